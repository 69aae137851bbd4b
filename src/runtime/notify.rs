//! systemd's notifications: the service manager that set `NOTIFY_SOCKET` hears when the server
//! serves, and when it stops.

#![forbid(unsafe_code)]

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The server serves.
pub const READY: &str = "READY=1";
/// The server stops.
pub const STOPPING: &str = "STOPPING=1";

/// Tells the service manager, if there is one. It is only told: a failure is logged.
pub fn tell(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let Some(name) = name.to_str() else {
        return;
    };
    if let Err(error) = send(name, state) {
        crate::log_warn!("the service manager at '{name}' cannot be told '{state}': {error}");
    }
}

/// A name that begins with `@` is one of the abstract name space; others are paths.
fn send(name: &str, state: &str) -> io::Result<()> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold the server up.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{READY, send};
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    fn heard(manager: &UnixDatagram) -> Vec<u8> {
        let mut bytes = [0; 64];
        let count = manager.recv(&mut bytes).unwrap();
        bytes[..count].to_vec()
    }

    #[test]
    fn both_kinds_of_names_are_reached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.to_str().unwrap(), READY).unwrap();
        assert_eq!(heard(&manager), b"READY=1");
        let name = format!("quoin-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send(&format!("@{name}"), READY).unwrap();
        assert_eq!(heard(&manager), b"READY=1");
        assert!(send("/nonexistent/notify", READY).is_err());
    }
}
