//! What `trace` and `capture` tell of each packet, and its line.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The trace has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracing {
    /// All links, in file order.
    pub links: Vec<TracedLink>,
}

/// A link whose packets may come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedLink {
    /// Its TAP.
    pub tap: String,
    /// Its network's name.
    pub network: String,
}

/// Packets that passed the filter, but came too fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotShown {
    /// How many, since it was last said.
    pub packets: u64,
}

/// A packet, and why it went where it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// Microseconds since 1970-01-01 UTC.
    pub time_us: u64,
    /// The TAP it came in by; absent for what the router sends itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// `tcp`, `udp`, `icmp`, `arp`, `ipv6`, `ip 47`, `ether 0x88cc` or `runt`.
    pub protocol: String,
    /// Who sends it, with port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// For whom it is, with port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The packet as it came (or as it left, if it did not come), in tcpdump's words.
    pub packet: String,
    /// Its length with Ethernet header, in bytes.
    pub length: usize,
    /// What was decided; `sent` for what the router sends itself.
    pub verdict: Cow<'static, str>,
    /// Why it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
    /// What that means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meaning: Option<Cow<'static, str>>,
    /// The service's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The server's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Its flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<TracedFlow>,
    /// Where it left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out: Option<Out>,
    /// The table's generation.
    pub generation: u32,
    /// `capture` only: the frame as it came, in hexadecimal digits, cut off at the snaplen.
    #[serde(default, with = "hex", skip_serializing_if = "Vec::is_empty")]
    pub frame: Vec<u8>,
}

/// The flow of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedFlow {
    /// Who opened it.
    pub client: String,
    /// Where to, as the client sees it.
    pub destination: String,
    /// Who answers.
    pub server: String,
    /// The state after this packet.
    pub state: Cow<'static, str>,
    /// `to-server` or `to-client`.
    pub direction: Cow<'static, str>,
    /// This packet opened it.
    pub new: bool,
}

/// How a packet left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Out {
    /// The TAPs; several where it was copied.
    pub links: Vec<String>,
    /// The MAC it was sent to.
    pub mac: String,
    /// Source and destination as it left, where it was translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translated: Option<[String; 2]>,
    /// The answer in words, where it was turned into one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Its length with Ethernet header, in bytes.
    pub length: usize,
    /// `capture` only: the frame as it left, in hexadecimal digits, cut off at the snaplen.
    #[serde(default, with = "hex", skip_serializing_if = "Vec::is_empty")]
    pub frame: Vec<u8>,
}

/// The line, without its time.
impl fmt::Display for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { link, packet, length, verdict, reason, meaning, generation, .. } = self;
        let link = link.as_deref().unwrap_or("own");
        write!(f, "{link} {packet}, {length} bytes | verdict={verdict}")?;
        if let Some(reason) = reason {
            write!(f, " reason={reason}")?;
        }
        if let Some(service) = &self.service {
            write!(f, " service={service}")?;
        }
        if let Some(server) = &self.server {
            write!(f, " server={server}")?;
        }
        if let Some(meaning) = meaning {
            write!(f, " | {meaning}")?;
        }
        if let Some(flow) = &self.flow {
            write!(f, " | {flow}")?;
        }
        if let Some(out) = &self.out {
            write!(f, " | {out}")?;
        }
        write!(f, " | generation {generation}")
    }
}

impl fmt::Display for TracedFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, destination, server, state, direction, new } = self;
        let new = if *new { "new" } else { "known" };
        write!(f, "{new} flow {client} > {destination} > {server} {state} {direction}")
    }
}

impl fmt::Display for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out {} to {}", self.links.join(" and "), self.mac)?;
        if let Some([source, destination]) = &self.translated {
            write!(f, " as {source} > {destination}")?;
        }
        self.answer.iter().try_for_each(|answer| write!(f, " as {answer}"))
    }
}

/// Bytes as hexadecimal digits.
mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    const DIGITS: &[u8; 16] = b"0123456789abcdef";

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let text: String = digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect();
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        let wrong = || de::Error::custom("not an even number of hexadecimal digits");
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return Err(wrong()) };
        let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
        pairs.iter().map(byte).collect::<Option<_>>().ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_it_all_and_json_comes_back_the_same() {
        let traced = Traced {
            time_us: 7,
            link: Some("tapvs0".to_owned()),
            protocol: "tcp".to_owned(),
            source: Some("203.0.113.7:40000".to_owned()),
            destination: Some("203.0.113.10:80".to_owned()),
            packet: "203.0.113.7:40000 > 203.0.113.10:80 tcp [S] seq 1 win 8 data 0".to_owned(),
            length: 74,
            verdict: "forward".into(),
            reason: None,
            meaning: None,
            service: Some("web".to_owned()),
            server: Some("web1".to_owned()),
            flow: Some(TracedFlow {
                client: "203.0.113.7:40000".to_owned(),
                destination: "203.0.113.10:80".to_owned(),
                server: "10.0.0.11:8080".to_owned(),
                state: "SYN_RECV".into(),
                direction: "to-server".into(),
                new: true,
            }),
            out: Some(Out {
                links: vec!["tapvs1".to_owned()],
                mac: "02:00:00:00:00:11".to_owned(),
                translated: Some(["203.0.113.7:40000".to_owned(), "10.0.0.11:8080".to_owned()]),
                answer: None,
                length: 74,
                frame: vec![0, 0x7f, 0xff],
            }),
            generation: 3,
            frame: Vec::new(),
        };
        assert_eq!(
            traced.to_string(),
            "tapvs0 203.0.113.7:40000 > 203.0.113.10:80 tcp [S] seq 1 win 8 data 0, 74 bytes | \
             verdict=forward service=web server=web1 | new flow 203.0.113.7:40000 > 203.0.113.10:80 > \
             10.0.0.11:8080 SYN_RECV to-server | out tapvs1 to 02:00:00:00:00:11 as 203.0.113.7:40000 > \
             10.0.0.11:8080 | generation 3"
        );
        let text = serde_json::to_string(&traced).unwrap();
        assert!(text.contains(r#""frame":"007fff""#), "{text}");
        assert_eq!(serde_json::from_str::<Traced>(&text).unwrap(), traced);
        for wrong in ["007ff", "0x7f"] {
            let text = text.replace("007fff", wrong);
            assert!(serde_json::from_str::<Traced>(&text).is_err(), "{wrong}");
        }
    }
}
