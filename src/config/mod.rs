//! TOML text to a [`Config`] that cannot be wrong. Reads no files and hides no defaults.

mod model;
mod words;

pub use model::{
    Attach, Config, Forward, Link, Masquerade, Method, Network, Route, Router, Scheduler, Server,
    Service, Timeouts, Unserved, VirtualIp,
};
