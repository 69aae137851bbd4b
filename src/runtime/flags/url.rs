//! URLs in flags: `http://host:port`, `unix:///path`.

#![forbid(unsafe_code)]

use super::FlagError;
use std::fmt;

/// `http://host:port` or `unix:///path`; `https://` and `unixs://` where it is only told to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Over TLS, which somebody before this server must then speak.
    pub secure: bool,
    /// Where to.
    pub place: Place,
}

/// Where a URL leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Over TCP.
    Tcp {
        /// The host as given; an IPv6 address keeps its brackets.
        host: String,
        /// The port; 0 takes a free one.
        port: u16,
    },
    /// A Unix socket, by its path.
    Unix(String),
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place, self.secure) {
            (Place::Tcp { host, port }, false) => write!(f, "http://{host}:{port}"),
            (Place::Tcp { host, port }, true) => write!(f, "https://{host}:{port}"),
            (Place::Unix(path), false) => write!(f, "unix://{path}"),
            (Place::Unix(path), true) => write!(f, "unixs://{path}"),
        }
    }
}

impl Url {
    /// The port, over TCP.
    #[cfg(test)]
    pub(super) fn port(&self) -> Option<u16> {
        match self.place {
            Place::Tcp { port, .. } => Some(port),
            Place::Unix(_) => None,
        }
    }

    /// A port of this machine.
    pub(super) fn local(port: u16) -> Url {
        Url {
            secure: false,
            place: Place::Tcp {
                host: "localhost".to_owned(),
                port,
            },
        }
    }
}

/// The longest path that a Unix socket may have.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// URLs to listen on, separated by commas.
pub(super) fn to_listen(name: &str, value: &str) -> Result<Vec<Url>, FlagError> {
    let urls = to_tell(name, value)?;
    match urls.iter().find(|url| url.secure) {
        Some(url) => Err(FlagError(format!(
            "--{name}: '{url}' asks for TLS, which this version does not serve"
        ))),
        None => Ok(urls),
    }
}

/// URLs that others are told, separated by commas.
pub(super) fn to_tell(name: &str, value: &str) -> Result<Vec<Url>, FlagError> {
    value.split(',').map(|url| read(name, url.trim())).collect()
}

fn read(name: &str, value: &str) -> Result<Url, FlagError> {
    let refuse = |why: &str| Err(FlagError(format!("--{name}: '{value}' {why}")));
    let Some((scheme, rest)) = value.split_once("://") else {
        return refuse("is not a URL such as http://127.0.0.1:2379");
    };
    let secure = match scheme {
        "http" => false,
        "https" => true,
        "unix" | "unixs" => {
            if rest.is_empty() || rest.ends_with('/') || rest.len() > UNIX_PATH_BYTES_MAX {
                return refuse("names no Unix socket; one is unix:///run/quoin.sock");
            }
            return Ok(Url {
                secure: scheme == "unixs",
                place: Place::Unix(rest.to_owned()),
            });
        }
        _ => return refuse("has a scheme other than http or unix"),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let Some((host, port)) = rest.rsplit_once(':') else {
        return refuse("names no port");
    };
    if host.is_empty() || rest.contains('/') || (host.contains(':') && !host.starts_with('[')) {
        return refuse("is not scheme://host:port");
    }
    match port.parse() {
        Ok(port) => Ok(Url {
            secure,
            place: Place::Tcp {
                host: host.to_owned(),
                port,
            },
        }),
        Err(_) => refuse("has a port that is not a number up to 65535"),
    }
}
