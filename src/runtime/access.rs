//! What HTTP clients may ask of this server, as the operator has set it.

#![forbid(unsafe_code)]

use crate::runtime::flags::Config;

/// See the module.
#[derive(Debug, Clone)]
pub struct Access {
    /// etcd's API is served as JSON.
    pub gateway: bool,
    /// gRPC streams of one connection.
    pub streams_max: u32,
}

impl Access {
    /// As the settings say.
    pub fn new(config: &Config) -> Access {
        Access {
            gateway: config.gateway,
            streams_max: config.streams_max,
        }
    }
}
