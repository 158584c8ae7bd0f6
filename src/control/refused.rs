//! Why a file was not taken over: for whoever asked, and for the log.

use log::error;

use super::file::LoadError;

/// Nothing was touched.
#[derive(Debug)]
pub(super) enum Refused {
    /// The file is no configuration.
    Wrong(LoadError),
    /// What it changes cannot change while the router runs, a line each.
    NeedsRestart(Vec<String>),
}

impl Refused {
    /// For the one who asked to reload `file`: a line per reason, in full.
    pub(super) fn messages(&self, file: &str) -> Vec<String> {
        match self {
            Self::Wrong(error) => error.to_string().lines().map(str::to_owned).collect(),
            Self::NeedsRestart(changes) => {
                changes.iter().map(|change| format!("{file}: needs a restart: {change}")).collect()
            }
        }
    }

    /// A line of the log per reason.
    pub(super) fn log(&self, file: &str) {
        match self {
            Self::Wrong(LoadError::Wrong(_, mistakes)) => {
                for mistake in mistakes {
                    let (line, column, key) = (mistake.line, mistake.column, mistake.key.as_str());
                    error!(file, line, column, key; "reload: {}", mistake.message);
                }
                let count = mistakes.count() - mistakes.iter().count();
                if count > 0 {
                    error!(file, count; "reload: more mistakes");
                }
            }
            Self::Wrong(LoadError::Unreadable(_, error)) => {
                error!(file, error:%; "reload: the file cannot be read");
            }
            Self::Wrong(LoadError::Token(path, error)) => {
                let path = path.display();
                error!(file, path:%, error:%; "reload: the status page's token cannot be read");
            }
            Self::Wrong(LoadError::Key(path, error)) => {
                let path = path.display();
                error!(file, path:%, error:%; "reload: the key of the pair cannot be read");
            }
            Self::Wrong(LoadError::Nic(error)) => {
                error!(file, error:%; "reload: the NIC's MAC address is not known");
            }
            Self::NeedsRestart(changes) => {
                changes.iter().for_each(|change| error!(file; "reload: needs a restart: {change}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::config;
    use crate::links::recorder::logged;

    #[test]
    fn each_reason_is_a_line_for_both() {
        let wrong = "[router]\nname = \"lvs1\"\nnam = 1\n";
        let mistakes = config::parse(wrong).unwrap_err();
        let gone = || io::Error::from_raw_os_error(libc::ENOENT);
        let why = gone().to_string();
        for (refused, told, lines) in [
            (
                Refused::Wrong(LoadError::Wrong("a.toml".into(), mistakes)),
                "a.toml:3:1: router.nam: unknown key; did you mean `name`?".to_owned(),
                "ERROR reload: unknown key; did you mean `name`? file=a.toml line=3 column=1 key=router.nam"
                    .to_owned(),
            ),
            (
                Refused::Wrong(LoadError::Unreadable("a.toml".into(), gone())),
                format!("a.toml: cannot read the configuration: {why}"),
                format!("ERROR reload: the file cannot be read file=a.toml error={why:?}"),
            ),
            (
                Refused::Wrong(LoadError::Token("/t".into(), gone())),
                format!("/t: cannot read the status page's token: {why}"),
                format!(
                    "ERROR reload: the status page's token cannot be read file=a.toml path=/t error={why:?}"
                ),
            ),
            (
                Refused::NeedsRestart(vec!["[router] name: lvs2, was lvs1".to_owned()]),
                "a.toml: needs a restart: [router] name: lvs2, was lvs1".to_owned(),
                "ERROR reload: needs a restart: [router] name: lvs2, was lvs1 file=a.toml".to_owned(),
            ),
        ] {
            let messages = refused.messages("a.toml");
            assert!(messages.contains(&told), "{messages:?}");
            let logged = logged(|| refused.log("a.toml"));
            assert!(logged.contains(&lines), "{logged:?}");
            assert_eq!(logged.len(), messages.len());
        }
    }
}
