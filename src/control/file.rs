//! From a path to a valid configuration.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::{error, fmt};

use crate::config::{self, AttachMode, Config, Mistakes};
use crate::links::{LinkError, nic_mac};

/// Far beyond any real configuration; a wrong path (a device, a log) must not fill the memory.
const LARGEST: u64 = 64 << 20;

/// Reads and validates the configuration in `path`.
///
/// # Errors
/// When the file cannot be read, or with every mistake in it.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let text = read(path).map_err(|error| LoadError::Unreadable(path.to_owned(), error))?;
    config::parse(&text).map_err(|mistakes| LoadError::Wrong(path.to_owned(), mistakes))
}

/// As [`load`], for a router that is to run here: where a NIC's own MAC address is the router's, that is
/// in it.
pub(super) fn load_here(path: &Path) -> Result<Config, LoadError> {
    let mut config = load(path)?;
    for network in &mut config.networks {
        let attach = network.links.iter().find_map(|link| link.attach.as_ref());
        if let Some(attach) = attach.filter(|attach| attach.mode == AttachMode::Macvtap) {
            network.mac = Some(nic_mac(&attach.nic).map_err(LoadError::Nic)?);
        }
    }
    Ok(config)
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        let text = format!("larger than {LARGEST} bytes: a configuration is a text file");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = format!("not UTF-8 at byte {at}: a configuration is a text file");
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

/// Why a file is no configuration.
#[derive(Debug)]
pub enum LoadError {
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The file has mistakes.
    Wrong(PathBuf, Mistakes),
    /// A NIC whose MAC address is to be the router's cannot be asked for it.
    Nic(LinkError),
    /// The file that `[status] token_file` names cannot be read, or holds no token.
    Token(PathBuf, io::Error),
    /// The file that `[failover.sync] key_file` names cannot be read, or holds no key.
    Key(PathBuf, io::Error),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => {
                write!(f, "{}: cannot read the configuration: {error}", path.display())
            }
            Self::Wrong(path, mistakes) => mistakes.display(path.display()).fmt(f),
            Self::Nic(error) => error.fmt(f),
            Self::Token(path, error) => {
                write!(f, "{}: cannot read the status page's token: {error}", path.display())
            }
            Self::Key(path, error) => {
                write!(f, "{}: cannot read the key of the pair: {error}", path.display())
            }
        }
    }
}

impl error::Error for LoadError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Unreadable(_, error) | Self::Token(_, error) | Self::Key(_, error) => Some(error),
            Self::Wrong(_, mistakes) => Some(mistakes),
            Self::Nic(error) => Some(error),
        }
    }
}
