//! Which packets: `KEY=VALUE ...`, all of which must match.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::record::Kind;
use crate::addr::Cidr;
use crate::dataplane::DropReason;

const KEYS: &str = "client, server, service, verdict, reason, proto, port, link";

/// A filter as it was written; names are not looked up yet. The empty one admits every packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Whose flow's client lies here; of packets without a flow, either end.
    pub client: Option<Cidr>,
    /// Whose flow goes to this server; of packets without a flow, either end.
    pub server: Option<ServerIs>,
    /// Of this service.
    pub service: Option<String>,
    /// What became of it.
    pub verdict: Option<Kind>,
    /// Why it was dropped.
    pub reason: Option<DropReason>,
    /// What it is.
    pub proto: Option<Protocol>,
    /// One of its ports, or of its flow's.
    pub port: Option<u16>,
    /// It came or left by this TAP.
    pub link: Option<String>,
}

/// How a server is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerIs {
    /// By its label.
    Named(String),
    /// By its address, at any port or this one.
    At(IpAddr, Option<u16>),
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// ARP.
    Arp,
    /// IPv6.
    Ipv6,
    /// IPv4 with this protocol number.
    Ip(u8),
}

/// What is wrong with a filter, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError(String);

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FilterError {}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let end = rest.find(['=', ' ', '\t', '\n']).unwrap_or(rest.len());
            let (key, after) = rest.split_at(end);
            let Some(after) = after.strip_prefix('=') else {
                return Err(wrong(
                    "",
                    format_args!("`{}` is no KEY=VALUE; keys are {KEYS}", cut(key)),
                ));
            };
            let (value, after) = take_value(key, after)?;
            filter.set(key, &value)?;
            rest = after.trim_start();
        }
        if let (Some(reason), Some(verdict)) = (filter.reason, filter.verdict)
            && verdict != Kind::Drop
        {
            return Err(wrong("reason", format_args!("`{reason}` goes with verdict=drop only")));
        }
        Ok(filter)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        let mut add = |key: &str, value: Option<String>| {
            words.extend(value.map(|value| format!("{key}={}", quoted(&value))));
        };
        let whole =
            |prefix: &Cidr| prefix.prefix() == if prefix.address().is_ipv4() { 32 } else { 128 };
        add(
            "client",
            self.client.map(|prefix| {
                if whole(&prefix) { prefix.address().to_string() } else { prefix.to_string() }
            }),
        );
        add("server", self.server.as_ref().map(ToString::to_string));
        add("service", self.service.clone());
        add("verdict", self.verdict.map(|verdict| verdict.name().to_owned()));
        add("reason", self.reason.map(|reason| reason.name().to_owned()));
        add("proto", self.proto.map(|proto| proto.to_string()));
        add("port", self.port.map(|port| port.to_string()));
        add("link", self.link.clone());
        f.write_str(&words.join(" "))
    }
}

impl Filter {
    fn set(&mut self, key: &str, value: &str) -> Result<(), FilterError> {
        if value.is_empty() {
            return Err(wrong(key, format_args!("a value is missing")));
        }
        let before = match key {
            "client" => self.client.replace(client(value)?).is_some(),
            "server" => self.server.replace(ServerIs::of(value)).is_some(),
            "service" => self.service.replace(value.to_owned()).is_some(),
            "verdict" => self.verdict.replace(verdict(value)?).is_some(),
            "reason" => self.reason.replace(reason(value)?).is_some(),
            "proto" => self.proto.replace(proto(value)?).is_some(),
            "port" => self.port.replace(port(value)?).is_some(),
            "link" => self.link.replace(value.to_owned()).is_some(),
            _ => {
                return Err(wrong("", format_args!("unknown key `{}`; keys are {KEYS}", cut(key))));
            }
        };
        if before { Err(wrong(key, format_args!("given twice"))) } else { Ok(()) }
    }
}

impl ServerIs {
    fn of(value: &str) -> Self {
        if let Ok(socket) = value.parse::<SocketAddr>() {
            return Self::At(socket.ip(), Some(socket.port()));
        }
        match value.parse() {
            Ok(address) => Self::At(address, None),
            Err(_) => Self::Named(value.to_owned()),
        }
    }
}

impl fmt::Display for ServerIs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::At(address, None) => address.fmt(f),
            Self::At(address, Some(port)) => SocketAddr::new(*address, *port).fmt(f),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arp => f.write_str("arp"),
            Self::Ipv6 => f.write_str("ipv6"),
            Self::Ip(1) => f.write_str("icmp"),
            Self::Ip(6) => f.write_str("tcp"),
            Self::Ip(17) => f.write_str("udp"),
            Self::Ip(number) => number.fmt(f),
        }
    }
}

/// A value up to the next space, or in quotes, with `\"` and `\\` in it.
fn take_value<'t>(key: &str, text: &'t str) -> Result<(String, &'t str), FilterError> {
    let Some(inside) = text.strip_prefix('"') else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return Ok((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = inside.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                let rest = &inside[at + 1..];
                if !rest.is_empty() && !rest.starts_with(char::is_whitespace) {
                    return Err(wrong(key, format_args!("something follows the closing quote")));
                }
                return Ok((value, rest));
            }
            '\\' => value.extend(characters.next().map(|(_, character)| character)),
            _ => value.push(character),
        }
    }
    Err(wrong(key, format_args!("a closing quote is missing")))
}

fn quoted(value: &str) -> String {
    if value.contains(char::is_whitespace) || value.starts_with('"') {
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        value.to_owned()
    }
}

fn client(value: &str) -> Result<Cidr, FilterError> {
    let alone = || {
        let address: IpAddr = value.parse().ok()?;
        Cidr::new(address, if address.is_ipv4() { 32 } else { 128 })
    };
    value.parse().ok().or_else(alone).ok_or_else(|| {
        wrong(
            "client",
            format_args!("`{}`: an address or a prefix such as 198.51.100.0/24", cut(value)),
        )
    })
}

fn verdict(value: &str) -> Result<Kind, FilterError> {
    Kind::ALL.iter().copied().find(|kind| kind.name() == value).ok_or_else(|| {
        let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        wrong("verdict", format_args!("`{}`: one of {}", cut(value), names.join(", ")))
    })
}

fn reason(value: &str) -> Result<DropReason, FilterError> {
    DropReason::ALL.iter().copied().find(|reason| reason.name() == value).ok_or_else(|| {
        let names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        wrong("reason", format_args!("`{}`: one of {}", cut(value), names.join(", ")))
    })
}

fn proto(value: &str) -> Result<Protocol, FilterError> {
    Ok(match value {
        "arp" => Protocol::Arp,
        "ipv6" => Protocol::Ipv6,
        "icmp" => Protocol::Ip(1),
        "tcp" => Protocol::Ip(6),
        "udp" => Protocol::Ip(17),
        number => Protocol::Ip(number.parse().map_err(|_| {
            let value = cut(value);
            wrong(
                "proto",
                format_args!("`{value}`: tcp, udp, icmp, arp, ipv6 or an IP protocol number"),
            )
        })?),
    })
}

fn port(value: &str) -> Result<u16, FilterError> {
    value
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| wrong("port", format_args!("`{}`: a number from 1 to 65535", cut(value))))
}

fn wrong(key: &str, what: fmt::Arguments<'_>) -> FilterError {
    FilterError(if key.is_empty() {
        format!("filter: {what}")
    } else {
        format!("filter: {key}: {what}")
    })
}

/// As much of it as a message needs.
fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_that_is_said_is_understood() {
        let text = "client=203.0.113.0/24 server=10.0.0.11:8080 service=\"my \\\"web\\\"\" verdict=drop \
                    reason=no_flow proto=tcp port=80 link=tapvs0";
        let filter: Filter = text.parse().unwrap();
        assert_eq!(filter.service.as_deref(), Some("my \"web\""));
        assert_eq!(filter.server, Some(ServerIs::At("10.0.0.11".parse().unwrap(), Some(8080))));
        assert_eq!(filter.proto, Some(Protocol::Ip(6)));
        assert_eq!(filter.to_string(), text);
        assert_eq!("".parse(), Ok(Filter::default()));
        assert_eq!("  \t".parse(), Ok(Filter::default()));
    }

    #[test]
    fn what_is_wrong_says_what_would_be_right() {
        for (text, why) in [
            ("web1", "`web1` is no KEY=VALUE; keys are client,"),
            ("=x", "unknown key ``"),
            ("sevice=web", "unknown key `sevice`; keys are client, server, service"),
            ("client=", "client: a value is missing"),
            ("client=203.0.113.0/33", "a prefix such as 198.51.100.0/24"),
            (
                "verdict=dropped",
                "one of forward, flood, split, reply, to_host, to_ha, held, consumed, drop, sent",
            ),
            ("reason=no_flows", "one of unknown_link, runt"),
            ("proto=tpc", "tcp, udp, icmp, arp, ipv6 or an IP protocol number"),
            ("proto=256", "tcp, udp"),
            ("port=0", "a number from 1 to 65535"),
            ("port=80 port=81", "port: given twice"),
            ("verdict=forward reason=no_flow", "goes with verdict=drop only"),
            ("service=\"web", "service: a closing quote is missing"),
            ("service=\"web\"x", "something follows the closing quote"),
        ] {
            let error = text.parse::<Filter>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let long = format!("{}=1", "x".repeat(100_000));
        assert!(long.parse::<Filter>().unwrap_err().to_string().len() < 200);
    }

    fn filters() -> impl Strategy<Value = Filter> {
        let address = any::<std::net::Ipv4Addr>();
        let client = (address, 0_u8..=32)
            .prop_map(|(address, prefix)| Cidr::new(address.into(), prefix).unwrap());
        let server = prop_oneof![
            "[a-z \"\\\\=]{1,8}".prop_map(ServerIs::Named),
            (any::<IpAddr>(), option::of(any::<u16>()))
                .prop_map(|(address, port)| ServerIs::At(address, port)),
        ];
        let verdict = (0..Kind::ALL.len()).prop_map(|at| Kind::ALL[at]);
        let reason = (0..DropReason::COUNT).prop_map(|at| DropReason::ALL[at]);
        let proto = prop_oneof![
            Just(Protocol::Arp),
            Just(Protocol::Ipv6),
            any::<u8>().prop_map(Protocol::Ip),
        ];
        let name = "\\PC{1,12}";
        let parts = (option::of(client), option::of(server), option::of(name), option::of(verdict));
        let more = (option::of(reason), option::of(proto), option::of(1_u16..), option::of(name));
        (parts, more).prop_map(
            |((client, server, service, verdict), (reason, proto, port, link))| Filter {
                client,
                server,
                service,
                // A reason is one of a drop.
                verdict: if reason.is_some() { verdict.map(|_| Kind::Drop) } else { verdict },
                reason,
                proto,
                port,
                link,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(filter in filters()) {
            let text = filter.to_string();
            prop_assert_eq!(text.parse::<Filter>(), Ok(filter), "{}", text);
        }

        #[test]
        fn whatever_is_typed_is_understood_or_refused(text in ".*") {
            drop(text.parse::<Filter>());
        }
    }
}
