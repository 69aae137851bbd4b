//! What `--version` prints: the lines that scripts look for in etcd's, and quoin's own.

#![forbid(unsafe_code)]

use super::server::VERSION;
use crate::etcd::member::ETCD_VERSION;

/// The text, each line with its end.
pub fn text() -> String {
    let commit = option_env!("QUOIN_GIT_SHA").unwrap_or("not provided");
    format!(
        "etcd Version: {ETCD_VERSION}\n\
         Git SHA: {commit}\n\
         Go Version: none, this is quoin, written in Rust\n\
         Go OS/Arch: {}/{}\n\
         quoin Version: {VERSION}\n",
        std::env::consts::OS,
        go_arch(std::env::consts::ARCH),
    )
}

/// Go's name for a processor.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn scripts_find_what_they_look_for() {
        let text = super::text();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        assert_eq!(field("etcd Version: "), Some(super::ETCD_VERSION));
        assert!(text.starts_with("etcd Version: "));
        for name in ["Git SHA: ", "Go Version: ", "quoin Version: "] {
            assert!(field(name).is_some_and(|value| !value.is_empty()), "{name}");
        }
        let (system, arch) = field("Go OS/Arch: ").unwrap().split_once('/').unwrap();
        assert_eq!(system, "linux");
        assert!(!arch.contains('_'), "{arch}");
    }
}
