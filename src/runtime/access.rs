//! What HTTP clients may ask of this server, as the operator has set it.

#![forbid(unsafe_code)]

use crate::runtime::flags::Config;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// etcd's API is served as JSON.
    pub gateway: bool,
    /// gRPC streams of one connection.
    pub streams_max: u32,
    /// The sites whose pages may ask; `*` is every site.
    origins: Vec<String>,
    /// The names under which the server may be asked; `None` is any.
    hosts: Option<Vec<String>>,
}

impl Access {
    /// As the settings say.
    pub fn new(config: &Config) -> Access {
        Access {
            gateway: config.gateway,
            streams_max: config.streams_max,
            origins: config.cors.clone(),
            hosts: config.host_whitelist.clone(),
        }
    }

    /// The name under which a request with this `Host` must not ask, if it must not: a page of
    /// another site may have pointed a name of its own here (CVE-2018-5702).
    pub fn misdirected<'h>(&self, host: &'h str) -> Option<&'h str> {
        let hosts = self.hosts.as_ref()?;
        let name = name_of(host);
        (!hosts.iter().any(|known| known == name)).then_some(name)
    }

    /// The site whose pages may read the answer to a request from `origin`.
    pub fn allowed_origin<'o>(&'o self, origin: Option<&'o str>) -> Option<&'o str> {
        if self.origins.iter().any(|known| known == "*") {
            return Some("*");
        }
        origin.filter(|origin| self.origins.iter().any(|known| known == origin))
    }
}

/// A host without its port; the brackets of an IPv6 address go with it, as in etcd.
fn name_of(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((name, port)) if port.starts_with(':') => name,
            _ => host,
        };
    }
    match host.split_once(':') {
        Some((name, port)) if !port.contains(':') => name,
        _ => host,
    }
}

/// What a request under a name that is not listed is told; the text is etcd's.
pub fn misdirected_text(host: &str) -> String {
    format!(
        "\netcd received your request, but the Host header was unrecognized.\n\n\
         To fix this, choose one of the following options:\n\
         - Enable TLS, then any HTTPS request will be allowed.\n\
         - Add the hostname you want to use to the whitelist in settings.\n  \
         - e.g. etcd --host-whitelist {host:?}\n\n\
         This requirement has been added to help prevent \"DNS Rebinding\" attacks \
         (CVE-2018-5702).\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::{Access, name_of};

    #[test]
    fn hosts_are_compared_without_their_ports() {
        for (host, name) in [
            ("a:1", "a"),
            ("a", "a"),
            ("[::1]:1", "::1"),
            ("[::1]", "[::1]"),
            ("::1", "::1"),
            ("", ""),
        ] {
            assert_eq!(name_of(host), name);
        }
        let any = Access::default();
        assert_eq!(any.misdirected("evil:1"), None);
        let some = Access {
            hosts: Some(vec!["a".to_owned()]),
            ..Access::default()
        };
        assert_eq!(some.misdirected("a:2379"), None);
        assert_eq!(some.misdirected("evil:2379"), Some("evil"));
    }

    #[test]
    fn sites_are_told_apart() {
        let access = |origins: &[&str]| Access {
            origins: origins.iter().map(|o| (*o).to_owned()).collect(),
            ..Access::default()
        };
        assert_eq!(access(&[]).allowed_origin(Some("http://a")), None);
        assert_eq!(access(&["*"]).allowed_origin(None), Some("*"));
        let one = access(&["http://a"]);
        assert_eq!(one.allowed_origin(Some("http://a")), Some("http://a"));
        assert_eq!(one.allowed_origin(Some("http://b")), None);
        assert_eq!(one.allowed_origin(None), None);
    }
}
