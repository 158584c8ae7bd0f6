//! Programs: a command as a value, printed for a shell or run as it stands.

use std::env;
use std::fmt;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{self, Stdio};

use super::error::Error;
use crate::links::Namespace;

/// Where administrators' programs are; not on every user's `PATH`.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A program with its arguments and what it reads. Prints as a shell takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    program: &'static str,
    arguments: Vec<String>,
    input: Option<String>,
}

/// What a program that ran said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) success: bool,
    pub(super) output: String,
    /// On standard error, or how it ended.
    pub(super) words: String,
}

impl Command {
    pub(super) fn new<T: Into<String>>(
        program: &'static str,
        arguments: impl IntoIterator<Item = T>,
    ) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { program, arguments, input: None }
    }

    pub(super) fn input(self, text: String) -> Self {
        Self { input: Some(text), ..self }
    }

    /// The same with one more argument before the others.
    pub(super) fn with_option(mut self, option: &str) -> Self {
        self.arguments.insert(0, option.to_owned());
        self
    }

    /// Runs it, in `namespace` if one is given, and waits for its end.
    pub(super) fn run(&self, namespace: Option<&Namespace>) -> Result<Said, Error> {
        let path = find(self.program)
            .ok_or_else(|| Error::Failed(format!("`{}` is not installed", self.program)))?;
        let output = self
            .output(path, namespace)
            .map_err(|error| Error::Failed(format!("`{}` did not run: {error}", self.program)))?;
        let mut words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if words.is_empty() && !output.status.success() {
            words = output.status.to_string();
        }
        Ok(Said {
            success: output.status.success(),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            words,
        })
    }

    fn output(&self, path: PathBuf, namespace: Option<&Namespace>) -> io::Result<process::Output> {
        let mut command = process::Command::new(path);
        command.args(&self.arguments).env("LC_ALL", "C");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match namespace {
            Some(namespace) => namespace.spawn(&mut command)?,
            None => command.spawn()?,
        };
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends without reading says why on standard error.
            drop(stdin.write_all(self.input.as_deref().unwrap_or_default().as_bytes()));
        }
        child.wait_with_output()
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program)?;
        for argument in &self.arguments {
            write!(f, " {}", quoted(argument))?;
        }
        match &self.input {
            Some(input) => write!(f, " <<'END'\n{input}END"),
            None => Ok(()),
        }
    }
}

/// Where a program is, if it is installed.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(SYSTEM_FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

/// As one word of a shell.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_prints_as_a_shell_takes_it() {
        let command = Command::new("nft", ["add", "{ 10.0.0.1 }", "it's", ""]);
        assert_eq!(command.to_string(), r"nft add '{ 10.0.0.1 }' 'it'\''s' ''");
        let command = Command::new("cat", ["-"]).input("a\n\tb\n".into());
        assert_eq!(command.to_string(), "cat - <<'END'\na\n\tb\nEND");
    }

    #[test]
    fn the_shell_and_the_process_get_the_same() {
        let command = Command::new("printf", ["%s\n", "a b", "c'd", "{ $e }"]);
        let by_shell = Command::new("sh", ["-c", &command.to_string()]).run(None).unwrap();
        let by_us = command.run(None).unwrap();
        assert!(by_us.success && by_shell.success);
        assert_eq!(by_us.output, "a b\nc'd\n{ $e }\n");
        assert_eq!(by_us.output, by_shell.output);
        let input = Command::new("cat", ["-"]).input("x\ty\n".into());
        let by_shell = Command::new("sh", ["-c", &input.to_string()]).run(None).unwrap();
        assert_eq!(
            (by_shell.output, input.run(None).unwrap().output.as_str()),
            ("x\ty\n".into(), "x\ty\n")
        );
    }

    #[test]
    fn what_fails_says_why() {
        let said = Command::new("sh", ["-c", "echo no >&2; exit 3"]).run(None).unwrap();
        assert!(!said.success && said.words == "no", "{said:?}");
        let said = Command::new("sh", ["-c", "exit 3"]).run(None).unwrap();
        assert_eq!(said.words, "exit status: 3");
        let error = Command::new("no-such-program-anywhere", [""]).run(None).unwrap_err();
        assert_eq!(error.to_string(), "`no-such-program-anywhere` is not installed");
    }
}
