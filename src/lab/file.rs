//! The router's configuration file and its control socket, which nobody has to clean up.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file without a name: it is gone with the last process that holds it.
pub(super) fn configuration_file(text: &str) -> io::Result<File> {
    let folder = std::env::temp_dir();
    let open = || {
        let mut file = nameless_file(&folder)?;
        file.write_all(text.as_bytes())?;
        Ok(file)
    };
    open().map_err(|error: io::Error| {
        let place = folder.display();
        io::Error::new(error.kind(), format!("cannot write a file in {place}: {error}"))
    })
}

/// Where the router of that name listens: elsewhere for each lab, several may run at a time.
pub(super) fn control_socket(router: &str) -> PathBuf {
    std::env::temp_dir().join(format!("tapvs-lab-{}-{router}.sock", std::process::id()))
}

/// Takes a socket's name away. It can still be reached through what is returned.
pub(super) fn without_name(socket: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_PATH).open(socket)?;
    fs::remove_file(socket)?;
    Ok(file)
}

/// A name for `file` that other processes can use while this one has it open.
pub(super) fn path_of(file: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

fn nameless_file(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let nameless = options.clone().custom_flags(libc::O_TMPFILE).open(folder);
    if nameless.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Unsupported) {
        // Not every file system can: then it has a name for a moment.
        let path = folder.join(format!("tapvs-lab-{}.toml", std::process::id()));
        let file = options.create_new(true).open(&path)?;
        fs::remove_file(&path)?;
        return Ok(file);
    }
    nameless
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_socket_without_a_name_can_be_reached() {
        use std::os::unix::net::{UnixListener, UnixStream};
        let path = control_socket("test");
        let listener = UnixListener::bind(&path).unwrap();
        let file = without_name(&path).unwrap();
        assert!(!path.exists());
        let _client = UnixStream::connect(path_of(&file)).unwrap();
        assert!(listener.accept().is_ok());
    }

    #[test]
    fn the_configuration_file_can_be_read_again_and_has_no_name() {
        let file = configuration_file("[router]\n").unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        for _ in 0..2 {
            let mut text = String::new();
            File::open(&path).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "[router]\n");
        }
        assert!(fs::read_link(&path).unwrap().to_string_lossy().ends_with(" (deleted)"));
    }
}
