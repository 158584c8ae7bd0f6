//! What an operator may type: the commands of `tapvs` that ask or operate, and a few about the machine.

use rustix::process::Signal;

use crate::files;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Back to the status screen.
    Screen,
    /// Print this.
    Say(String),
    /// Print this file.
    Show(String),
    Nics,
    /// Run `tapvs` with these words.
    Tapvs(Vec<String>),
    /// Tell PID 1, and the operator this.
    Signal(Signal, &'static str),
}

/// Of `tapvs`; the others need files, or are not for a router that runs.
const OPERATOR: [&str; 10] = [
    "status",
    "services",
    "flows",
    "neighbours",
    "drops",
    "drain",
    "undrain",
    "weight",
    "failover",
    "trace",
];

const HELP: &str = "\
status, services, flows, neighbours, drops      ask the router; --help after each tells more
drain SERVICE SERVER, undrain, weight ... N     operate it
failover yield|resume                           give the role to the other router, take part again
trace [FILTER], top                             watch it; Ctrl-C ends
reload                                          read the configuration again, from its disk
config, log, nics                               the running file, what happened, the NICs
poweroff, reboot                                end the machine
Enter                                           the status screen";

/// Reads one line.
pub(super) fn parse(line: &str) -> Order {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [] => Order::Screen,
        ["tapvs"] => Order::Say(HELP.into()),
        ["tapvs", ..] => of_words(&words[1..]),
        _ => of_words(&words),
    }
}

fn of_words(words: &[&str]) -> Order {
    match *words {
        ["help" | "?" | "--help" | "-h"] => Order::Say(HELP.into()),
        ["reload"] => Order::Signal(Signal::HUP, "reading the configuration again"),
        ["poweroff" | "halt" | "shutdown"] => Order::Signal(Signal::TERM, "powering off"),
        ["reboot"] => Order::Signal(Signal::USR1, "rebooting"),
        ["config"] => Order::Show(format!("{}/{}", files::CONFIG, files::CONFIG_FILE)),
        ["log"] => Order::Show(files::LOG.into()),
        ["nics"] => Order::Nics,
        [verb, ..] if OPERATOR.contains(&verb) || verb == "top" || verb == "--version" => {
            Order::Tapvs(words.iter().map(|word| (*word).to_owned()).collect())
        }
        [wrong, ..] => Order::Say(format!("`{wrong}` is not a command here.\n{HELP}")),
        [] => Order::Screen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Order {
        Order::Tapvs(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn commands_of_tapvs_go_with_or_without_its_name() {
        assert_eq!(parse("tapvs status --json"), words(&["status", "--json"]));
        assert_eq!(parse("  drain web   web1 "), words(&["drain", "web", "web1"]));
        assert_eq!(parse("top"), words(&["top"]));
        assert_eq!(parse(""), Order::Screen);
    }

    #[test]
    fn reload_means_the_disk_and_not_what_is_in_memory() {
        for line in ["reload", "tapvs reload"] {
            assert!(matches!(parse(line), Order::Signal(Signal::HUP, _)), "{line}");
        }
    }

    #[test]
    fn nothing_else_is_run() {
        for line in [
            "sh",
            "tapvs run /etc/passwd",
            "tapvs lab",
            "capture x",
            "/bin/sh",
            "; sh",
            "tapvs realserver",
        ] {
            let Order::Say(text) = parse(line) else { panic!("{line}") };
            assert!(text.contains("is not a command here"), "{line}: {text}");
        }
        assert!(matches!(parse("help"), Order::Say(text) if text.contains("status screen")));
    }
}
