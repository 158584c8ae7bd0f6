//! What the status screen shows, as text: facts in, lines out.

use crate::journal::visible;
use crate::nics::Nic;
use crate::state::State;

const RED: &str = "\x1b[1;31m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";
/// How to go on, where there is nothing to be read.
const HOW: [&str; 3] = [
    "To change it, edit tapvs.toml on the system partition, or plug in a FAT disk",
    "labelled TAPVS that has one: it is read at once. `reload` reads again.",
    "Type a command, `help` lists them; Enter comes back here.",
];

/// The facts.
#[derive(Debug)]
pub(super) struct Picture<'p> {
    pub(super) state: &'p State,
    /// As `tapvs services` prints it.
    pub(super) services: &'p str,
    /// With a pair, the role.
    pub(super) role: Option<&'p str>,
    pub(super) width: usize,
    pub(super) height: usize,
}

impl Picture<'_> {
    /// Lines that fit the terminal, each cleared to its end; a line is left for the prompt.
    pub(super) fn draw(&self) -> String {
        let lines = self.lines();
        lines
            .iter()
            .map(|(style, line)| {
                let line: String = visible(line).chars().take(self.width).collect();
                format!("{style}{line}{PLAIN}\x1b[K\r\n")
            })
            .collect()
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let room = self.height.saturating_sub(1);
        let mut lines = vec![(BOLD, self.title()), ("", self.origin())];
        let mistakes = &self.state.mistakes;
        if !mistakes.is_empty() {
            lines.push((RED, "WRONG CONFIGURATION, not in use:".into()));
            lines.extend(cut(mistakes.iter().map(String::as_str), 6).map(|line| (RED, line)));
        }
        let end: Vec<_> = HOW.iter().map(|line| ("", (*line).to_owned())).collect();
        let blocks = [
            first_tables(&self.state.summary),
            table(self.services),
            nics(&self.state.nics).lines().map(str::to_owned).collect(),
        ];
        for block in blocks {
            let left = room.saturating_sub(lines.len() + end.len() + 2);
            if block.is_empty() || left < 3 {
                continue;
            }
            lines.push(("", String::new()));
            lines.extend(cut(block.iter().map(String::as_str), left - 1).map(|line| ("", line)));
        }
        let left = room.saturating_sub(lines.len() + end.len() + 2);
        let log = &self.state.log;
        if left > 1 && !log.is_empty() {
            lines.push(("", String::new()));
            let from = log.len().saturating_sub(left - 1);
            lines.extend(log[from..].iter().map(|line| ("", line.clone())));
        }
        lines.push(("", String::new()));
        lines.extend(end);
        lines.truncate(room);
        lines
    }

    fn title(&self) -> String {
        let State { router, restarts, watchdog, .. } = self.state;
        let mut title = format!("tapvs   router {router}");
        if let Some(role) = self.role {
            title.push_str(&format!("   role {}", role.to_uppercase()));
        }
        if *restarts > 0 {
            title.push_str(&format!("   restarted {restarts} times"));
        }
        if let Some(watchdog) = watchdog {
            title.push_str(&format!("   watchdog {watchdog}"));
        }
        title
    }

    fn origin(&self) -> String {
        let State { source, started_ms, ready_ms, forwarded_ms, .. } = self.state;
        let after = |at: u64| at.saturating_sub(*started_ms);
        match (ready_ms, forwarded_ms) {
            (_, Some(at)) => {
                format!("configuration from {source}; first frame {} ms after PID 1", after(*at))
            }
            (Some(at), None) => {
                format!("configuration from {source}; ready {} ms after PID 1", after(*at))
            }
            (None, None) => format!("configuration from {source}"),
        }
    }
}

/// The networks and virtual IPs of `tapvs check`: its first line repeats the file's name.
fn first_tables(summary: &str) -> Vec<String> {
    let mut parts = summary.split("\n\n").skip(1);
    let wanted = |part: &&str| part.starts_with("NETWORK ") || part.starts_with("VIRTUAL IP");
    let mut lines = Vec::new();
    for part in parts.by_ref().filter(wanted) {
        lines.extend(part.lines().map(str::to_owned));
    }
    lines
}

/// Up to the first empty line.
fn table(text: &str) -> Vec<String> {
    text.lines().take_while(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

/// The NICs as a table.
pub(super) fn nics(nics: &[Nic]) -> String {
    let mut text = format!("{:<8}{:<19}{:<14}{:<12}LINK\n", "NIC", "MAC", "PCI", "DRIVER");
    for Nic { name, mac, pci, driver, carrier } in nics {
        let pci = if pci.is_empty() { "-" } else { pci };
        let link = if *carrier { "up" } else { "no carrier" };
        text.push_str(&format!("{name:<7} {mac:<18} {pci:<13} {driver:<11} {link}\n"));
    }
    if nics.is_empty() {
        text.push_str("none: this machine has no NIC that is known here\n");
    }
    text
}

/// At most so many lines, the last one saying how many are missing.
fn cut<'l>(lines: impl Iterator<Item = &'l str>, most: usize) -> impl Iterator<Item = String> {
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    if lines.len() > most {
        let more = lines.len() - most.saturating_sub(1);
        lines.truncate(most.saturating_sub(1));
        lines.push(format!("... and {more} more"));
    }
    lines.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = "/etc/tapvs/tapvs.toml: valid\nrouter lvs1: ...\n\n\
        NETWORK   LINKS        ADDRESSES       GATEWAY  MTU\n\
        internet  tapvs0+eth0  203.0.113.2/24  -        1500\n\n\
        VIRTUAL IP    NETWORK\n203.0.113.10  internet\n\nSERVICE  ADDRESS\nweb  tcp\n";
    const SERVICES: &str = "SERVICE  ADDRESS              HEALTH\nweb      tcp 203.0.113.10:80  2 of 2 up\n\nIN TOTAL\n";

    fn state() -> State {
        let nic = Nic {
            name: "eth0".into(),
            mac: "52:54:00:00:00:01".into(),
            pci: "0000:00:03.0".into(),
            driver: "virtio_net".into(),
            carrier: true,
        };
        State {
            source: "disk TAPVS (vdb)".into(),
            summary: SUMMARY.into(),
            router: "running, pid 70".into(),
            nics: vec![nic],
            ready_ms: Some(900),
            started_ms: 500,
            log: (0..8).map(|number| format!("log line {number}")).collect(),
            ..State::default()
        }
    }

    fn draw(state: &State, role: Option<&str>, width: usize, height: usize) -> Vec<String> {
        let picture = Picture { state, services: SERVICES, role, width, height };
        let text = picture.draw();
        let plain = |line: &str| {
            [RED, BOLD, PLAIN, "\x1b[K"].iter().fold(line.to_owned(), |l, s| l.replace(s, ""))
        };
        text.split_terminator("\r\n").map(plain).collect()
    }

    #[test]
    fn everything_is_on_a_large_screen() {
        let lines = draw(&state(), Some("active"), 120, 40).join("\n");
        for text in [
            "role ACTIVE",
            "disk TAPVS (vdb)",
            "ready 400 ms after PID 1",
            "203.0.113.2/24",
            "203.0.113.10  internet",
            "2 of 2 up",
            "0000:00:03.0",
            "log line 7",
            "To change it",
        ] {
            assert!(lines.contains(text), "{text} in:\n{lines}");
        }
        assert!(!lines.contains("IN TOTAL") && !lines.contains("WRONG"), "{lines}");
    }

    #[test]
    fn what_is_wrong_comes_first_and_everything_fits() {
        let mut state = state();
        state.mistakes = (0..20).map(|line| format!("tapvs.toml:{line}:1: wrong\x1b[2J")).collect();
        for (width, height) in [(80, 25), (40, 10), (10, 3), (1, 1)] {
            let lines = draw(&state, None, width, height);
            assert!(lines.len() < height.max(2), "{width} x {height}: {}", lines.len());
            assert!(
                lines.iter().all(|line| line.chars().count() <= width && !line.contains('\x1b'))
            );
        }
        let lines = draw(&state, None, 80, 25);
        assert!(lines[2].starts_with("WRONG"), "{lines:#?}");
        assert!(lines[3].starts_with("tapvs.toml:0:1: wrong"), "{lines:#?}");
        assert_eq!(lines[8], "... and 15 more");
    }
}
