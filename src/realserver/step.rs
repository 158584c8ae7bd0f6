//! One change to a real server, and the command that a person would type for it.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::plan::Service;
use super::program::Command;

/// The table that is tapvs's own, in nft's families `arp` and `ip`.
pub(super) const TABLE: &str = "tapvs_realserver";

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// A sysctl of one interface, or of `all`.
    #[expect(missing_docs, reason = "the names say it")]
    Sysctl { key: Key, of: String },
    /// A virtual IP as an address of an interface.
    #[expect(missing_docs, reason = "the names say it")]
    Address { vip: Ipv4Addr, interface: String },
    /// arptables: ARP that asks for the virtual IP is dropped.
    #[expect(missing_docs, reason = "the names say it")]
    DropArp { vip: Ipv4Addr },
    /// arptables: ARP that would leave with the virtual IP as sender names the server instead.
    #[expect(missing_docs, reason = "the names say it")]
    MangleArp { vip: Ipv4Addr, address: Ipv4Addr },
    /// nft: the table that does both, for the virtual IPs in its set.
    #[expect(missing_docs, reason = "the names say it")]
    ArpTable { address: Ipv4Addr },
    /// nft: a virtual IP in the set of that table.
    #[expect(missing_docs, reason = "the names say it")]
    ArpVip { vip: Ipv4Addr },
    /// nft: the table that redirects the services in its set.
    NatTable,
    /// nft: a service in the set of that table.
    NatService(Service),
}

/// A step that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) step: Step,
    /// What a sysctl was before.
    pub(super) before: Option<String>,
}

/// The sysctls that govern ARP; of `all` and of the interface, the larger value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// Which questions are answered.
    ArpIgnore,
    /// Which address asks.
    ArpAnnounce,
}

impl Key {
    pub(super) const ALL: [Self; 2] = [Self::ArpIgnore, Self::ArpAnnounce];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ArpIgnore => "arp_ignore",
            Self::ArpAnnounce => "arp_announce",
        }
    }

    /// What is written.
    pub(super) const fn value(self) -> &'static str {
        match self {
            Self::ArpIgnore => "1",
            Self::ArpAnnounce => "2",
        }
    }

    /// Whether the value keeps a virtual IP on lo quiet. `arp_ignore` 2 is stricter than 1, and 8
    /// answers for nothing; 3 answers for a global address on lo. Any `arp_announce` but 1 and 2
    /// is taken as 0.
    pub(super) fn suffices(self, value: &str) -> bool {
        match self {
            Self::ArpIgnore => matches!(value, "1" | "2" | "8"),
            Self::ArpAnnounce => value == "2",
        }
    }

    /// Its file below `/proc/sys`.
    pub(super) fn path(self, of: &str) -> String {
        format!("net/ipv4/conf/{of}/{}", self.name())
    }

    /// As `sysctl` wants it: with slashes where an interface's name has dots.
    pub(super) fn dotted(self, of: &str) -> String {
        let path = self.path(of);
        if of.contains('.') { path } else { path.replace('/', ".") }
    }
}

impl Step {
    /// The virtual IP that it is for; `None` where all share it.
    pub(super) const fn vip(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Sysctl { .. } | Self::ArpTable { .. } | Self::NatTable => None,
            Self::Address { vip, .. }
            | Self::DropArp { vip }
            | Self::MangleArp { vip, .. }
            | Self::ArpVip { vip }
            | Self::NatService(Service { vip, .. }) => Some(*vip),
        }
    }

    /// Whether it goes with the table that it is in.
    pub(super) const fn goes_with_its_table(&self) -> bool {
        matches!(self, Self::ArpVip { .. } | Self::NatService(_))
    }

    /// Why it is done, for the comments of a script.
    pub(super) const fn why(&self) -> &'static str {
        match self {
            Self::Sysctl { key: Key::ArpIgnore, .. } => {
                "Answer ARP only for addresses of the interface that the question came in by."
            }
            Self::Sysctl { key: Key::ArpAnnounce, .. } => {
                "Ask with an address of the interface that the question leaves by, never with the \
                 virtual IP."
            }
            Self::Address { .. } => "The virtual IP, now that nobody will hear of it.",
            Self::DropArp { .. } => "Do not hear questions for the virtual IP.",
            Self::MangleArp { .. } => {
                "Do not speak as the virtual IP: questions and answers name the server itself."
            }
            Self::ArpTable { .. } => {
                "Neither hear questions for a virtual IP nor speak as one; a table of its own."
            }
            Self::ArpVip { .. } => "The virtual IPs that the table is for.",
            Self::NatTable => {
                "Take packets to a virtual IP as if they were for the server itself; connection \
                 tracking gives the answers their address back. A table of its own."
            }
            Self::NatService(_) => "The services that the table is for.",
        }
    }

    /// The command that carries it out.
    pub(super) fn command(&self) -> Command {
        match self {
            Self::Sysctl { key, of } => {
                Command::new("sysctl", ["-w".into(), format!("{}={}", key.dotted(of), key.value())])
            }
            Self::Address { vip, interface } => address("add", *vip, interface),
            Self::DropArp { .. } | Self::MangleArp { .. } => self.arptables("-I"),
            Self::ArpTable { address } => {
                Command::new("nft", ["-f", "-"]).input(arp_table(*address))
            }
            Self::NatTable => Command::new("nft", ["-f", "-"]).input(nat_table()),
            Self::ArpVip { .. } | Self::NatService(_) => self.element("add"),
        }
    }

    /// The command that takes it back; `None` for a sysctl, whose value before is not known here.
    pub(super) fn undo(&self) -> Option<Command> {
        match self {
            Self::Sysctl { .. } => None,
            Self::Address { vip, interface } => Some(address("del", *vip, interface)),
            Self::DropArp { .. } | Self::MangleArp { .. } => Some(self.arptables("-D")),
            Self::ArpTable { .. } => Some(table("delete", "arp")),
            Self::NatTable => Some(table("delete", "ip")),
            Self::ArpVip { .. } | Self::NatService(_) => Some(self.element("delete")),
        }
    }

    /// The command whose output shows it, or fails without it; `None` where the kernel is asked
    /// directly.
    pub(super) fn look(&self) -> Option<Command> {
        match self {
            Self::Sysctl { .. } | Self::Address { .. } => None,
            Self::DropArp { .. } => Some(Command::new("arptables", ["-L", "INPUT", "-n"])),
            Self::MangleArp { .. } => Some(Command::new("arptables", ["-L", "OUTPUT", "-n"])),
            Self::ArpTable { .. } => Some(table("list", "arp")),
            Self::NatTable => Some(table("list", "ip")),
            Self::ArpVip { .. } | Self::NatService(_) => Some(self.element("get")),
        }
    }

    /// A rule as the option pairs that follow its chain.
    pub(super) fn rule(&self) -> Vec<[String; 2]> {
        let pair = |option: &str, value: String| [option.to_owned(), value];
        match self {
            Self::DropArp { vip } => vec![pair("-d", vip.to_string()), pair("-j", "DROP".into())],
            Self::MangleArp { vip, address } => vec![
                pair("-s", vip.to_string()),
                pair("-j", "mangle".into()),
                pair("--mangle-ip-s", address.to_string()),
            ],
            _ => Vec::new(),
        }
    }

    /// The rules of a table, each as a line of its text; `None` for what is no table.
    pub(super) fn table_rules(&self) -> Option<Vec<String>> {
        let text = match self {
            Self::ArpTable { address } => arp_table(*address),
            Self::NatTable => nat_table(),
            _ => return None,
        };
        // What a rule is not: braces around, the hook with its policy.
        let lines = text.lines().map(str::trim);
        let rules = lines.filter(|line| !line.ends_with(['{', '}', ';']));
        Some(rules.map(str::to_owned).collect())
    }

    fn arptables(&self, verb: &str) -> Command {
        let chain = if matches!(self, Self::DropArp { .. }) { "INPUT" } else { "OUTPUT" };
        let rule = self.rule().into_iter().flatten();
        Command::new("arptables", [verb.to_owned(), chain.to_owned()].into_iter().chain(rule))
    }

    fn element(&self, verb: &str) -> Command {
        let (family, set, element) = match self {
            Self::NatService(Service { vip, protocol, port }) => {
                ("ip", "services", format!("{{ {vip} . {protocol} . {port} }}"))
            }
            step => {
                ("arp", "vips", format!("{{ {} }}", step.vip().unwrap_or(Ipv4Addr::UNSPECIFIED)))
            }
        };
        let words = [verb, "element", family, TABLE, set].map(str::to_owned);
        Command::new("nft", words.into_iter().chain([element]))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl { key, of } => write!(f, "{} = {}", key.dotted(of), key.value()),
            Self::Address { vip, interface } => write!(f, "{vip}/32 on {interface}"),
            Self::DropArp { vip } => write!(f, "arptables: ARP for {vip} dropped"),
            Self::MangleArp { vip, address } => {
                write!(f, "arptables: ARP from {vip} sent as {address}")
            }
            Self::ArpTable { .. } => write!(f, "nft table arp {TABLE}"),
            Self::ArpVip { vip } => write!(f, "nft table arp {TABLE}: {vip}"),
            Self::NatTable => write!(f, "nft table ip {TABLE}"),
            Self::NatService(service) => write!(f, "nft table ip {TABLE}: {service}"),
        }
    }
}

fn address(verb: &str, vip: Ipv4Addr, interface: &str) -> Command {
    Command::new("ip", ["address", verb, &format!("{vip}/32"), "dev", interface])
}

fn table(verb: &str, family: &str) -> Command {
    Command::new("nft", [verb, "table", family, TABLE])
}

fn arp_table(address: Ipv4Addr) -> String {
    format!(
        "\
table arp {TABLE} {{
	set vips {{ type ipv4_addr; }}
	chain input {{
		type filter hook input priority 0; policy accept;
		arp daddr ip @vips drop
	}}
	chain output {{
		type filter hook output priority 0; policy accept;
		arp saddr ip @vips arp saddr ip set {address}
	}}
}}
"
    )
}

fn nat_table() -> String {
    format!(
        "\
table ip {TABLE} {{
	set services {{ type ipv4_addr . inet_proto . inet_service; }}
	chain prerouting {{
		type nat hook prerouting priority -100; policy accept;
		ip daddr . ip protocol . th dport @services redirect
	}}
}}
"
    )
}
