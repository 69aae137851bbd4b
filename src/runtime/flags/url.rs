//! URLs in flags: `http://host:port`.

#![forbid(unsafe_code)]

use super::FlagError;
use std::fmt;

/// `http://host:port`, or `https://` where it is only told to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Over TLS, which somebody before this server must then speak.
    pub secure: bool,
    /// The host as given; an IPv6 address keeps its brackets.
    pub host: String,
    /// The port; 0 takes a free one.
    pub port: u16,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl Url {
    /// A port of this machine.
    pub(super) fn local(port: u16) -> Url {
        Url {
            secure: false,
            host: "localhost".to_owned(),
            port,
        }
    }
}

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
            return refuse("names a Unix socket, which this version does not serve");
        }
        _ => return refuse("has a scheme other than http"),
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
            host: host.to_owned(),
            port,
        }),
        Err(_) => refuse("has a port that is not a number up to 65535"),
    }
}
