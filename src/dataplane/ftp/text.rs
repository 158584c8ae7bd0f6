//! What the lines of an FTP control connection say about data connections (RFC 959, RFC 2428), and the
//! text that says something else instead.

use std::net::Ipv4Addr;
use std::ops::Range;

/// A place where a data connection is awaited, as one line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) form: Form,
    /// The address, where the form has one.
    pub(super) address: Option<Ipv4Addr>,
    pub(super) port: u16,
    /// Where in what was read the address and port stand.
    pub(super) range: Range<usize>,
}

/// How an offer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum Form {
    /// `PORT h1,h2,h3,h4,p1,p2`
    Port,
    /// `EPRT |1|ADDRESS|PORT|`
    ExtendedPort,
    /// `227 ... (h1,h2,h3,h4,p1,p2)`
    Passive,
    /// `229 ... (|||PORT|)`
    ExtendedPassive,
}

/// What a line comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    /// Nothing about data connections.
    Nothing,
    /// The client asks for a passive connection.
    Asks,
    Offer(Offer),
    /// It begins like an offer, and is none that can be relied on: cut off, wrong numbers.
    Unreadable,
}

/// What a text comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// In the order of the lines.
    pub(super) offers: [Option<Offer>; OFFERS_AT_ONCE],
    /// Passive connections that the client asks for, or may ask for in lines that are cut off.
    pub(super) asks: u8,
    /// Lines that begin like an offer, and are none; or one too many.
    pub(super) unreadable: u64,
    /// Whether it ends where the next line begins.
    pub(super) is_whole: bool,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    Client,
    Server,
}

/// Offers that one text may hold: a client may ask for several before it hears of one.
const OFFERS_AT_ONCE: usize = 4;
/// Longer lines are no offers: text may stand before the numbers of an answer.
const LONGEST: usize = 256;
/// Longer texts are not read: a control connection carries lines.
const LONGEST_READ: usize = 8_192;

/// Reads the lines of `text`, of which the first is one where `is_line`. What is cut off says nothing: it
/// may say something else in the end.
pub(super) fn read(speaker: Speaker, text: &[u8], is_line: bool) -> Heard {
    let mut heard = Heard { is_whole: text.ends_with(b"\n"), ..Heard::default() };
    let piece = u8::from(speaker == Speaker::Client);
    let mut rest = 0;
    if !is_line || text.len() > LONGEST_READ {
        heard.asks = piece;
        let first = text.iter().take(LONGEST_READ).position(|byte| *byte == b'\n');
        let Some(end) = first.filter(|_| text.len() <= LONGEST_READ) else { return heard };
        rest = end + 1;
    }
    let mut offers = 0;
    while let Some(line) = text.get(rest..).filter(|line| !line.is_empty()) {
        let len = line.iter().position(|byte| *byte == b'\n').map_or(line.len(), |end| end + 1);
        let line = &line[..len];
        match said(speaker, line) {
            Said::Nothing if !line.ends_with(b"\n") => {
                heard.asks = heard.asks.saturating_add(piece)
            }
            Said::Nothing => {}
            Said::Asks => heard.asks = heard.asks.saturating_add(1),
            Said::Unreadable => heard.unreadable += 1,
            Said::Offer(offer) => match heard.offers.get_mut(offers) {
                Some(place) => {
                    let range = offer.range.start + rest..offer.range.end + rest;
                    *place = Some(Offer { range, ..offer });
                    offers += 1;
                }
                None => heard.unreadable += 1,
            },
        }
        rest += len;
    }
    heard
}

fn said(speaker: Speaker, line: &[u8]) -> Said {
    let begins =
        |word: &[u8]| line.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word));
    let form = match speaker {
        Speaker::Client if begins(b"PASV\r") || begins(b"EPSV\r") => return Said::Asks,
        Speaker::Client if begins(b"PASV ") || begins(b"EPSV ") => return Said::Asks,
        Speaker::Client if begins(b"PORT ") => Form::Port,
        Speaker::Client if begins(b"EPRT ") => Form::ExtendedPort,
        Speaker::Server if begins(b"227 ") => Form::Passive,
        Speaker::Server if begins(b"229 ") => Form::ExtendedPassive,
        Speaker::Client | Speaker::Server => return Said::Nothing,
    };
    let Some(line) = line.strip_suffix(b"\r\n").filter(|line| line.len() <= LONGEST) else {
        return Said::Unreadable;
    };
    if line.iter().any(|byte| matches!(byte, b'\r' | 0)) {
        return Said::Unreadable;
    }
    let offer = match form {
        Form::Port => six(line, 5, form).filter(|offer| offer.range.end == line.len()),
        // RFC 1123 section 4.1.2.6: the numbers are the first ones, with brackets or without.
        Form::Passive => {
            let first = line.iter().skip(4).position(u8::is_ascii_digit);
            first.and_then(|at| six(line, at + 4, form))
        }
        Form::ExtendedPort => extended_port(line),
        Form::ExtendedPassive => extended_passive(line),
    };
    offer.map_or(Said::Unreadable, Said::Offer)
}

/// Six decimal bytes from `at` on.
fn six(line: &[u8], at: usize, form: Form) -> Option<Offer> {
    let mut bytes = [0; 6];
    let mut end = at;
    for (position, byte) in bytes.iter_mut().enumerate() {
        if position > 0 {
            if line.get(end) != Some(&b',') {
                return None;
            }
            end += 1;
        }
        let (value, next) = decimal(line, end, 3)?;
        *byte = u8::try_from(value).ok()?;
        end = next;
    }
    let [a, b, c, d, high, low] = bytes;
    // A seventh number, or a digit too much, means that these are not what they seem to be.
    if line.get(end).is_some_and(|next| next.is_ascii_digit() || *next == b',') {
        return None;
    }
    Some(Offer {
        form,
        address: Some(Ipv4Addr::new(a, b, c, d)),
        port: u16::from_be_bytes([high, low]),
        range: at..end,
    })
}

/// A decimal number of at most so many digits, and where it ends.
fn decimal(line: &[u8], at: usize, most: usize) -> Option<(u32, usize)> {
    let digits = line.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || digits > most {
        return None;
    }
    let end = at + digits;
    let value =
        line.get(at..end)?.iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some((value, end))
}

/// `EPRT |1|ADDRESS|PORT|` with any printable sign as bar.
fn extended_port(line: &[u8]) -> Option<Offer> {
    let bar = *line.get(5).filter(|bar| bar.is_ascii_graphic() && !bar.is_ascii_alphanumeric())?;
    let mut parts = line.get(6..)?.split(|byte| *byte == bar);
    let (family, address, port) = (parts.next()?, parts.next()?, parts.next()?);
    if family != b"1" || parts.next() != Some(b"") || parts.next().is_some() {
        return None;
    }
    let address: Ipv4Addr = std::str::from_utf8(address).ok()?.parse().ok()?;
    let (port, end) = decimal(port, 0, 5).filter(|(_, end)| *end == port.len())?;
    let _ = end;
    Some(Offer {
        form: Form::ExtendedPort,
        address: Some(address),
        port: u16::try_from(port).ok()?,
        range: 5..line.len(),
    })
}

/// `229 ... (|||PORT|)` with any printable sign as bar.
fn extended_passive(line: &[u8]) -> Option<Offer> {
    let open = line.iter().position(|byte| *byte == b'(')?;
    let bar =
        *line.get(open + 1).filter(|bar| bar.is_ascii_graphic() && !bar.is_ascii_alphanumeric())?;
    if line.get(open + 2..open + 4)? != [bar, bar] {
        return None;
    }
    let (port, end) = decimal(line, open + 4, 5)?;
    if line.get(end..end + 2)? != [bar, b')'] {
        return None;
    }
    let port = u16::try_from(port).ok()?;
    Some(Offer { form: Form::ExtendedPassive, address: None, port, range: open + 4..end })
}

/// The longest text that [`Text::new`] can make: `255,255,255,255,255,255`.
pub(super) const LONGEST_TEXT: usize = 24;

/// A short text, kept without an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Text {
    /// What it stands for.
    pub(in crate::dataplane) form: Form,
    pub(in crate::dataplane) port: u16,
    bytes: [u8; LONGEST_TEXT],
    len: u8,
}

impl Text {
    /// What names `address` and `port` in the form of an answer.
    pub(in crate::dataplane) fn new(form: Form, address: Ipv4Addr, port: u16) -> Self {
        let mut text = Self { form, port, bytes: [0; LONGEST_TEXT], len: 0 };
        match form {
            Form::Port | Form::Passive | Form::ExtendedPort => {
                let [high, low] = port.to_be_bytes();
                for byte in address.octets().into_iter().chain([high]) {
                    text.decimal(u16::from(byte));
                    text.push(b',');
                }
                text.decimal(u16::from(low));
            }
            Form::ExtendedPassive => text.decimal(port),
        }
        text
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub(super) const fn len(&self) -> u32 {
        self.len as u32
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(usize::from(self.len)) {
            *place = byte;
            self.len += 1;
        }
    }

    fn decimal(&mut self, value: u16) {
        let mut unit = 10_000;
        let mut begun = false;
        while unit > 0 {
            let digit = u8::try_from(value / unit % 10).unwrap_or(0);
            begun |= digit > 0 || unit == 1;
            if begun {
                self.push(b'0' + digit);
            }
            unit /= 10;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(said: &Said) -> (Option<Ipv4Addr>, u16, Range<usize>) {
        match said {
            Said::Offer(offer) => (offer.address, offer.port, offer.range.clone()),
            other => panic!("{other:?}"),
        }
    }

    fn of_client(line: &[u8]) -> Said {
        said(Speaker::Client, line)
    }

    fn of_server(line: &[u8]) -> Said {
        said(Speaker::Server, line)
    }

    #[test]
    fn offers_are_read() {
        let here = Some(Ipv4Addr::new(10, 0, 0, 11));
        let said = of_client(b"PORT 10,0,0,11,4,1\r\n");
        assert_eq!(offer(&said), (here, 1025, 5..18));
        let said = of_client(b"eprt |1|10.0.0.11|5282|\r\n");
        assert_eq!(offer(&said), (here, 5282, 5..23));
        let said = of_server(b"227 Entering Passive Mode (10,0,0,11,195,80).\r\n");
        assert_eq!(offer(&said), (here, 50000, 27..43));
        let said = of_server(b"227 Entering Passive Mode 10,0,0,11,195,80\r\n");
        assert_eq!(offer(&said), (here, 50000, 26..42));
        let said = of_server(b"229 Entering Extended Passive Mode (|||6446|)\r\n");
        assert_eq!(offer(&said), (None, 6446, 39..43));
        for nothing in [
            &b"USER anonymous\r\n"[..],
            b"",
            b"PASVX\r\n",
            b"STOR x",
            b"\xff\xf4\xff\xf2PORT 10,0,0,11,4,1\r\n",
            b" PORT 10,0,0,11,4,1\r\n",
        ] {
            assert_eq!(of_client(nothing), Said::Nothing);
        }
        for asks in [&b"PASV\r\n"[..], b"pasv\r\n", b"EPSV\r\n", b"EPSV 1\r\n", b"EPSV ALL\r\n"] {
            assert_eq!(of_client(asks), Said::Asks);
        }
        for nothing in
            [&b"220 (vsFTPd)\r\n"[..], b"226 ok\r\n150 x\r\n", b"22", b"230 227 (1,2)\r\n"]
        {
            assert_eq!(of_server(nothing), Said::Nothing);
        }
    }

    #[test]
    fn what_lies_is_unreadable() {
        for wrong in [
            "PORT 10,0,0,11,4",
            "PORT 10,0,0,11,4,1,2",
            "PORT 10,0,0,11,4,256",
            "PORT 10,0,0,11,4,0001",
            "PORT 10,0,0,11,4,1 ",
            "PORT  10,0,0,11,4,1",
            "PORT -1,0,0,11,4,1",
            "EPRT |2|2001:db8::1|5282|",
            "EPRT |1|10.0.0.11|65536|",
            "EPRT |1|10.0.0.11|5282",
            "EPRT |1|10.0.0.11|5282|x",
            "EPRT 1 10.0.0.11 5282",
            "EPRT ",
        ] {
            assert_eq!(of_client(format!("{wrong}\r\n").as_bytes()), Said::Unreadable, "{wrong}");
        }
        for wrong in [
            "227 Entering Passive Mode (10,0,0,11,195,80",
            "227 x (10,0,0,11,195)",
            "227 x (10,0,0,11,195,80,1)",
            "227 x",
            "229 x (|||70000|)",
            "229 x (|||6446|",
            "229 x (|1||6446|)",
            "229 x (111)",
            "229 x",
        ] {
            let whole = format!("{wrong}\r\n");
            let expected = wrong.ends_with("195,80");
            assert_eq!(matches!(of_server(whole.as_bytes()), Said::Offer(_)), expected, "{wrong}");
        }
        // Cut off, or with more behind it.
        for wrong in [
            "227 x (10,0,0,11,1,1)",
            "227 x (10,0,0,11,1,1)\r",
            "227 x (10,0,0,11,1,1)\n",
            "227 x (10,0,0,11,1,1)\r226 y\r\n",
        ] {
            assert_eq!(of_server(wrong.as_bytes()), Said::Unreadable, "{wrong:?}");
        }
        assert_eq!(
            of_server(&[b"227 ", &[b'x'; 400][..], b"(1,1,1,1,1,1)\r\n"].concat()),
            Said::Unreadable
        );
    }

    #[test]
    fn lines_are_told_apart() {
        let text = b"PASV\r\nPORT 10,0,0,11,4,1\r\nNOOP\r\nEPRT |1|10.0.0.11|9|\r\nEPSV\r\nPORT 1";
        let heard = read(Speaker::Client, text, true);
        let [Some(first), Some(second), None, None] = &heard.offers else { panic!("{heard:?}") };
        assert_eq!(&text[first.range.clone()], b"10,0,0,11,4,1");
        assert_eq!(&text[second.range.clone()], b"|1|10.0.0.11|9|");
        assert_eq!((heard.asks, heard.unreadable, heard.is_whole), (2, 1, false));
        // Where a line goes on that began before, it is not one.
        let heard = read(Speaker::Server, b"227 x (10,0,0,11,1,1)\r\n229 x (|||7|)\r\n", false);
        assert!(matches!(&heard.offers, [Some(only), None, ..] if only.port == 7), "{heard:?}");
        assert!(heard.is_whole);
        let heard = read(Speaker::Server, b"227 x (10,0,0,11,1,1)", false);
        assert_eq!(heard, Heard::default());
        // What a client says in pieces may be anything.
        assert_eq!(read(Speaker::Client, b"PA", true).asks, 1);
        assert_eq!(read(Speaker::Client, b"SV\r\n", false).asks, 1);
        let many = b"229 x (|||7777|)\r\n".repeat(6);
        let heard = read(Speaker::Server, &many, true);
        assert_eq!((heard.offers.iter().flatten().count(), heard.unreadable), (4, 2));
        // So long is no answer.
        let long = [&many[..], &[b'x'; LONGEST_READ], b"\r\n"].concat();
        let heard = read(Speaker::Server, &long, true);
        assert_eq!(heard, Heard { is_whole: true, ..Heard::default() });
    }

    #[test]
    fn text_names_address_and_port() {
        let text =
            |form, port| Text::new(form, Ipv4Addr::new(203, 0, 113, 10), port).bytes().to_vec();
        assert_eq!(text(Form::Passive, 50_000), b"203,0,113,10,195,80");
        assert_eq!(text(Form::Passive, 5), b"203,0,113,10,0,5");
        assert_eq!(text(Form::ExtendedPassive, 6446), b"6446");
        assert_eq!(text(Form::ExtendedPassive, 65_535), b"65535");
        let longest = Text::new(Form::Passive, Ipv4Addr::BROADCAST, u16::MAX);
        assert_eq!(longest.bytes(), b"255,255,255,255,255,255");
    }
}
