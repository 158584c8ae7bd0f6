//! Where things are. The root file system is in memory: all of it is gone at power off.

/// The configuration in use, and what came with it.
pub(crate) const CONFIG: &str = "/etc/tapvs";
/// The configuration before, while a new one is tried.
pub(crate) const CONFIG_BEFORE: &str = "/etc/tapvs.before";
/// The file that the router reads, below [`CONFIG`].
pub(crate) const CONFIG_FILE: &str = "tapvs.toml";
/// The configuration for machines that have none.
pub(crate) const DEFAULT: &str = "/usr/share/tapvs/default.toml";
/// The router.
pub(crate) const TAPVS: &str = "/bin/tapvs";
/// This program.
pub(crate) const SELF: &str = "/init";
/// Kernel modules, `NAME.ko` each.
pub(crate) const MODULES: &str = "/lib/modules";
/// Which modules there are, what they need, what they are for.
pub(crate) const MODULE_INDEX: &str = "/lib/modules/index";
/// A program with many names, for the rescue shell.
pub(crate) const BUSYBOX: &str = "/rescue/busybox";
/// What PID 1 tells the consoles.
pub(crate) const STATE: &str = "/run/appliance.json";
/// The log, and the part of it before.
pub(crate) const LOG: &str = "/run/log";
pub(crate) const OLD_LOG: &str = "/run/log.1";
/// Where a partition is mounted while it is read.
pub(crate) const MEDIA: &str = "/media";
/// Where routers listen.
pub(crate) const SOCKETS: &str = "/run/tapvs";
