//! `tapvs import FILE`: another load balancer's configuration, written anew.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{FAILURE, NO_PERMISSION, PARTIAL, USAGE, fail};
use crate::import::{self, Imported, Kind, Options, Surroundings};

/// Write the configuration of ipvsadm, keepalived or Piranha anew, as TOML for tapvs
///
/// What has no place in tapvs is said on standard error, as FILE:LINE: ..., and stands as a comment where it
/// would belong. Exit code 65: the result is there, but something was not carried over.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// What `ipvsadm-save` wrote, a keepalived.conf or an lvs.cf; - for standard input
    file: PathBuf,

    /// Whose configuration it is; found out from the content otherwise
    #[arg(long, value_parser = ["ipvsadm", "keepalived", "lvs.cf"])]
    kind: Option<String>,

    /// Write into this new file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// keepalived's --config-id: lines that begin with @ID count, those with another id do not
    #[arg(short = 'i', long, value_name = "ID")]
    config_id: Option<String>,

    /// Servers in the order of the kernel's list, where the last one added is the first
    #[arg(long)]
    kernel_order: bool,
}

pub(super) fn main(args: &ImportArgs) -> ExitCode {
    let (name, text) = match read(&args.file) {
        Ok(read) => read,
        Err(error) => {
            let denied = error.kind() == io::ErrorKind::PermissionDenied;
            return fail(&about(&args.file, &error), if denied { NO_PERMISSION } else { USAGE });
        }
    };
    let given = args.kind.as_deref();
    let given = given.and_then(|given| Kind::WORDS.iter().find(|(word, _)| *word == given));
    let Some(kind) = given.map(|(_, kind)| *kind).or_else(|| Kind::detect(&text)) else {
        let what = format!(
            "{name}: neither ipvsadm-save output nor a keepalived.conf or lvs.cf, as far as can be seen; say which \
             with --kind"
        );
        return fail(&io::Error::other(what), USAGE);
    };
    let options = Options {
        file: name.clone(),
        kind,
        config_id: args.config_id.clone(),
        kernel_order: args.kernel_order,
    };
    let imported = match import::import(&text, &options, &mut System::default()) {
        Ok(imported) => imported,
        Err(error) => return fail(&io::Error::other(format!("{name}: {error}")), USAGE),
    };
    match write(args.output.as_deref(), &imported) {
        Ok(()) => finish(&imported),
        Err(error) if args.output.is_none() && error.kind() == io::ErrorKind::BrokenPipe => {
            finish(&imported)
        }
        Err(error) => {
            let code = match error.kind() {
                io::ErrorKind::PermissionDenied => NO_PERMISSION,
                io::ErrorKind::AlreadyExists => USAGE,
                _ => FAILURE,
            };
            let path = args.output.as_deref().unwrap_or_else(|| Path::new("standard output"));
            fail(&about(path, &error), code)
        }
    }
}

fn finish(imported: &Imported) -> ExitCode {
    let mut lines = String::new();
    for remark in &imported.remarks {
        lines.push_str(&format!("{remark}\n"));
    }
    // Nobody may be listening; that changes nothing about the code.
    let _ = io::stderr().write_all(lines.as_bytes());
    if imported.is_partial() { PARTIAL.into() } else { ExitCode::SUCCESS }
}

fn about(path: &Path, error: &io::Error) -> io::Error {
    let what = match error.kind() {
        io::ErrorKind::AlreadyExists => "is there already; name a new file".to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("{}: {what}", path.display()))
}

fn read(file: &Path) -> io::Result<(String, String)> {
    if file == Path::new("-") {
        return Ok(("standard input".to_owned(), bounded(&mut io::stdin().lock())?));
    }
    Ok((file.display().to_string(), bounded(&mut File::open(file)?)?))
}

/// A byte more than is accepted, so that what is too long is seen to be; what is no UTF-8 is a comment
/// or a mistake anyway.
fn bounded(from: &mut dyn io::Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.take(import::LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

fn write(output: Option<&Path>, imported: &Imported) -> io::Result<()> {
    let text = imported.toml.as_bytes();
    match output {
        None => io::stdout().write_all(text),
        Some(path) => OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text),
    }
}

/// This machine's files and names.
#[derive(Debug, Default)]
struct System {
    services: Option<String>,
}

/// Files that one `include` may name.
const MOST_INCLUDED: usize = 500;

impl Surroundings for System {
    fn include(&mut self, pattern: &str, from: &str) -> io::Result<Vec<(String, String)>> {
        let beside = Path::new(from).parent().unwrap_or_else(|| Path::new(""));
        let pattern = beside.join(pattern);
        let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let paths =
            if name.contains(['*', '?']) { fitting(&pattern, name)? } else { vec![pattern] };
        let mut files = Vec::new();
        for path in paths.into_iter().take(MOST_INCLUDED) {
            if path.is_file() {
                files.push((path.display().to_string(), bounded(&mut File::open(&path)?)?));
            }
        }
        Ok(files)
    }

    fn host(&mut self, name: &str) -> Option<Ipv4Addr> {
        let addresses = (name, 0).to_socket_addrs().ok()?;
        addresses.into_iter().find_map(|address| match address {
            SocketAddr::V4(address) => Some(*address.ip()),
            SocketAddr::V6(_) => None,
        })
    }

    fn port(&mut self, name: &str) -> Option<u16> {
        let services = self.services.get_or_insert_with(|| {
            File::open("/etc/services").and_then(|mut file| bounded(&mut file)).unwrap_or_default()
        });
        listed(services, name).or_else(|| listed(COMMON, name))
    }
}

/// For machines without /etc/services.
const COMMON: &str = "ftp-data 20/tcp\nftp 21/tcp\nssh 22/tcp\ntelnet 23/tcp\nsmtp 25/tcp\n\
                      domain 53/tcp\nhttp 80/tcp www\npop3 110/tcp pop-3\nntp 123/udp\n\
                      imap2 143/tcp imap\nldap 389/tcp\nhttps 443/tcp\nsubmissions 465/tcp smtps ssmtp\n\
                      submission 587/tcp\nldaps 636/tcp\nimaps 993/tcp\npop3s 995/tcp\nmysql 3306/tcp\n\
                      ms-wbt-server 3389/tcp\nsip 5060/udp\npostgresql 5432/tcp\nhttp-alt 8080/tcp webcache\n";

/// The port of a service by its name or another of its names, in the form of /etc/services.
fn listed(services: &str, name: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let (first, port) = (words.next()?, words.next()?);
        (first == name || words.any(|other| other == name)).then_some(())?;
        port.split('/').next()?.parse().ok()
    })
}

/// The files of a directory whose names fit a pattern, sorted.
fn fitting(path: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut found = Vec::new();
    for entry in fs::read_dir(directory.unwrap_or_else(|| Path::new(".")))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // As the shell: a file that begins with a dot is hidden from a pattern that does not.
        if name.starts_with('.') == pattern.starts_with('.')
            && fits(pattern.as_bytes(), name.as_bytes())
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// `*` is any text, `?` any byte. Goes back to the last `*` only: linear in both, times each other.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_the_shells() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.old", false),
            ("*", "anything", true),
            ("a?c*e", "abcde", true),
            ("a?c*e", "abcd", false),
            ("**a**", "bab", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
        // A pattern that would take exponential time if every * were tried.
        assert!(!fits("*a".repeat(40).as_bytes(), "b".repeat(200).as_bytes()));
    }

    #[test]
    fn services_have_names() {
        assert_eq!(listed(COMMON, "https"), Some(443));
        assert_eq!(listed(COMMON, "smtps"), Some(465));
        assert_eq!(listed("http\t80/tcp  www # x\n", "x"), None);
        assert_eq!(System::default().port("http"), Some(80));
        assert_eq!(System::default().port("no such service"), None);
    }
}
