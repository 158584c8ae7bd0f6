//! tapvs: a Linux Virtual Server router in user space.
//!
//! Frames come in from TAP devices, are parsed once ([`frame`]), meet the flow table and the
//! forwarding table ([`dataplane`], [`table`]) and leave rewritten in place. [`run`] is the loop that
//! introduces the rooms to one another; [`links`] is the only room that touches the operating system.

pub mod addr;
pub mod cli;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod frame;
pub mod ha;
pub mod health;
pub mod host;
pub mod http;
pub mod import;
pub mod lab;
pub mod links;
pub mod realserver;
pub mod run;
pub mod table;
pub mod time;
pub mod trace;
