//! ipvsadm's command line, as popt reads it: clusters of short options (`-at`), values that follow, stick
//! (`-w5`) or come after `=`, quotes.

/// What a line does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    AddService,
    EditService,
    DeleteService,
    Clear,
    AddServer,
    EditServer,
    DeleteServer,
    Set,
    StartDaemon,
    /// Lists, saves, zeroes or stops something.
    Other(&'static str),
}

/// An option and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flag {
    /// Its short name; the long one if it has no short one.
    pub(super) name: &'static str,
    pub(super) value: Option<String>,
}

/// What follows a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) flags: Vec<Flag>,
    /// Words that belong to no option.
    pub(super) values: Vec<String>,
}

impl Arguments {
    pub(super) fn has(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag.name == name)
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.flags.iter().find(|flag| flag.name == name)?.value.as_deref()
    }
}

#[derive(Clone, Copy)]
enum Takes {
    Nothing,
    Value,
    /// `-p` and `-p 300`.
    Perhaps,
    Command(Command),
}

use Takes::{Nothing, Perhaps, Value};

/// Short name, long name, what it takes.
const OPTIONS: [(&str, &str, Takes); 46] = [
    ("-A", "--add-service", Takes::Command(Command::AddService)),
    ("-E", "--edit-service", Takes::Command(Command::EditService)),
    ("-D", "--delete-service", Takes::Command(Command::DeleteService)),
    ("-C", "--clear", Takes::Command(Command::Clear)),
    ("-a", "--add-server", Takes::Command(Command::AddServer)),
    ("-e", "--edit-server", Takes::Command(Command::EditServer)),
    ("-d", "--delete-server", Takes::Command(Command::DeleteServer)),
    ("", "--set", Takes::Command(Command::Set)),
    ("", "--start-daemon", Takes::Command(Command::StartDaemon)),
    ("", "--stop-daemon", Takes::Command(Command::Other("--stop-daemon"))),
    ("-L", "--list", Takes::Command(Command::Other("--list"))),
    ("-l", "--list", Takes::Command(Command::Other("--list"))),
    ("-Z", "--zero", Takes::Command(Command::Other("--zero"))),
    ("-S", "--save", Takes::Command(Command::Other("--save"))),
    ("-R", "--restore", Takes::Command(Command::Other("--restore"))),
    ("-h", "--help", Takes::Command(Command::Other("--help"))),
    ("-t", "--tcp-service", Value),
    ("-u", "--udp-service", Value),
    ("", "--sctp-service", Value),
    ("-f", "--fwmark-service", Value),
    ("-s", "--scheduler", Value),
    ("-p", "--persistent", Perhaps),
    ("-M", "--netmask", Value),
    ("", "--pe", Value),
    ("-b", "--sched-flags", Value),
    ("-o", "--ops", Nothing),
    ("-6", "--ipv6", Nothing),
    ("-n", "--numeric", Nothing),
    ("-r", "--real-server", Value),
    ("-g", "--gatewaying", Nothing),
    ("-i", "--ipip", Nothing),
    ("-m", "--masquerading", Nothing),
    ("-w", "--weight", Value),
    ("-x", "--u-threshold", Value),
    ("-y", "--l-threshold", Value),
    ("", "--tun-type", Value),
    ("", "--tun-port", Value),
    ("", "--tun-nocsum", Nothing),
    ("", "--tun-csum", Nothing),
    ("", "--tun-remcsum", Nothing),
    ("", "--mcast-interface", Value),
    ("", "--syncid", Value),
    ("", "--sync-maxlen", Value),
    ("", "--mcast-group", Value),
    ("", "--mcast-port", Value),
    ("", "--mcast-ttl", Value),
];

/// A line as words, without their quotes.
pub(super) fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (_, '\\') => {
                let next = chars.next().ok_or("ends in \\")?;
                word.get_or_insert_default().push(next);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if quote.is_some() { Err("a quote is not closed") } else { Ok(words) }
}

/// The one command of a line, and its arguments.
pub(super) fn parse(words: &[String]) -> Result<(Command, Arguments), String> {
    let mut command = None;
    let mut arguments = Arguments::default();
    let mut words = words.iter().map(String::as_str).peekable();
    while let Some(word) = words.next() {
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) =
                long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            let found = OPTIONS.iter().find(|(_, known, _)| known.strip_prefix("--") == Some(name));
            let option = found.ok_or_else(|| format!("unknown option --{name}"))?;
            take(option, value, &mut words, &mut command, &mut arguments)?;
        } else if let Some(cluster) = word.strip_prefix('-').filter(|cluster| !cluster.is_empty()) {
            let mut rest = cluster;
            while let Some(letter) = rest.chars().next() {
                rest = &rest[letter.len_utf8()..];
                let is = |short: &str| {
                    short.strip_prefix('-').is_some_and(|name| name.chars().eq([letter]))
                };
                let found = OPTIONS.iter().find(|(short, ..)| is(short));
                let option = found.ok_or_else(|| format!("unknown option -{letter}"))?;
                let stuck = match option.2 {
                    Value | Perhaps if !rest.is_empty() => {
                        let value = rest.strip_prefix('=').unwrap_or(rest);
                        rest = "";
                        Some(value)
                    }
                    Value | Perhaps | Nothing | Takes::Command(_) => None,
                };
                take(option, stuck, &mut words, &mut command, &mut arguments)?;
            }
        } else {
            arguments.values.push(word.to_owned());
        }
    }
    let command = command.ok_or("no command, such as -A or -a")?;
    let takes_words = matches!(command, Command::Set | Command::StartDaemon | Command::Other(_));
    match arguments.values.first() {
        Some(word) if !takes_words => Err(format!("the word {word:?} belongs to no option")),
        _ => Ok((command, arguments)),
    }
}

fn take<'w>(
    (short, long, takes): &(&'static str, &'static str, Takes),
    stuck: Option<&'w str>,
    words: &mut std::iter::Peekable<impl Iterator<Item = &'w str>>,
    command: &mut Option<Command>,
    arguments: &mut Arguments,
) -> Result<(), String> {
    let name = if short.is_empty() { long } else { short };
    let value = match takes {
        Takes::Command(this) => {
            return match command.replace(*this) {
                None => Ok(()),
                Some(_) => Err("more than one command".to_owned()),
            };
        }
        Nothing if stuck.is_some() => return Err(format!("{name} takes no value")),
        Nothing => None,
        Value => {
            Some(stuck.or_else(|| words.next()).ok_or_else(|| format!("{name} needs a value"))?)
        }
        Perhaps => stuck.or_else(|| words.next_if(|next| !next.starts_with('-'))),
    };
    arguments.flags.push(Flag { name, value: value.map(str::to_owned) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Flags = Vec<(&'static str, Option<String>)>;

    fn line(text: &str) -> Result<(Command, Flags), String> {
        let (command, arguments) = parse(&words(text)?)?;
        let flags = arguments.flags.into_iter().map(|flag| (flag.name, flag.value));
        Ok((command, flags.collect()))
    }

    #[test]
    fn options_are_read_however_they_are_written() {
        let expected = line("-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 5").unwrap();
        assert_eq!(expected.0, Command::AddServer);
        for other in [
            "-at 192.0.2.1:80 -r 10.0.0.1:80 -mw5",
            "-a --tcp-service=192.0.2.1:80 --real-server 10.0.0.1:80 --masquerading -w=5",
            "-at \"192.0.2.1:80\" -r '10.0.0.1:80' -m --weight 5",
        ] {
            assert_eq!(line(other).unwrap(), expected, "{other}");
        }
        assert_eq!(line("-A -t x -p").unwrap().1[1], ("-p", None));
        assert_eq!(line("-A -t x -p -s rr").unwrap().1[1], ("-p", None));
        assert_eq!(line("-A -t x -p 90").unwrap().1[1], ("-p", Some("90".to_owned())));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("-t x", "no command"),
            ("-A -t", "-t needs a value"),
            ("-A -t x -k", "unknown option -k"),
            ("-A -t x --nothing", "unknown option --nothing"),
            ("-A -a -t x", "more than one command"),
            ("-A -t x y", "belongs to no option"),
            ("-A --ops=1", "takes no value"),
            ("-A -t \"x", "quote"),
            ("-A -t x\\", "ends in"),
        ] {
            let error = line(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
