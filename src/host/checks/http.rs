//! An HTTP answer, looked at as it comes in, piece by piece (RFC 9112).
//!
//! Bounded in what it keeps and in what it reads: the rest of a long answer is nobody's business.

use memchr::memmem;

use crate::config::HttpCheck;
use crate::health::Failure;

/// Longest header, in bytes, and most of its fields.
const LONGEST_HEADER: usize = 8 << 10;
const MOST_FIELDS: usize = 64;
/// Bytes of the body that are searched.
const SEARCHED: usize = 64 << 10;
/// Longest line before a chunk, in bytes.
const LONGEST_CHUNK_LINE: usize = 256;

/// What has come of an answer so far.
#[derive(Debug, Default)]
pub(super) struct Answer {
    stage: Stage,
    /// The header so far; later the line before a chunk.
    line: Vec<u8>,
    /// The end of what was searched, where the text may have begun.
    tail: Vec<u8>,
    searched: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Header,
    /// So many bytes are to come; `None`: all until the end.
    Body(Option<u64>),
    /// The line before a chunk.
    ChunkSize,
    /// So many bytes of the chunk are to come.
    Chunk(u64),
    /// The end of line behind a chunk.
    ChunkEnd,
    /// Whatever comes is not of interest.
    Over,
}

/// What is known of an answer: nothing final yet, or this.
pub(super) type Verdict = Option<Result<(), Failure>>;

impl Answer {
    /// Forgets everything but its buffers.
    pub(super) fn clear(&mut self) {
        (self.stage, self.searched) = (Stage::Header, 0);
        self.line.clear();
        self.tail.clear();
    }

    /// Takes in the next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8], check: &HttpCheck) -> Verdict {
        while !bytes.is_empty() {
            let verdict = match self.stage {
                Stage::Header => self.header(&mut bytes, check),
                Stage::Body(left) => self.body(&mut bytes, left, check),
                Stage::ChunkSize => self.chunk_size(&mut bytes),
                Stage::Chunk(left) => self.chunk(&mut bytes, left, check),
                Stage::ChunkEnd => self.chunk_end(&mut bytes),
                Stage::Over => return None,
            };
            if verdict.is_some() {
                self.stage = Stage::Over;
                return verdict;
            }
        }
        None
    }

    /// The connection was closed in order.
    pub(super) const fn end(&self) -> Failure {
        match self.stage {
            // All of it has come.
            Stage::Body(None) => Failure::Body,
            Stage::Header
            | Stage::Body(Some(_))
            | Stage::ChunkSize
            | Stage::Chunk(_)
            | Stage::ChunkEnd
            | Stage::Over => Failure::Cut,
        }
    }

    fn header(&mut self, bytes: &mut &[u8], check: &HttpCheck) -> Verdict {
        let room = LONGEST_HEADER - self.line.len();
        let taken = take(bytes, room);
        let before = self.line.len();
        self.line.extend_from_slice(taken);
        if !begins_like(&self.line, b"HTTP/") {
            return Some(Err(Failure::NotHttp));
        }
        // Parsed again only when a line is whole: who sends byte by byte causes no more work.
        let parsed = if taken.contains(&b'\n') { parse(&self.line) } else { Parsed::Partial };
        match parsed {
            Parsed::Partial if self.line.len() == LONGEST_HEADER => Some(Err(Failure::LongHeader)),
            Parsed::Partial => None,
            Parsed::Wrong(failure) => Some(Err(failure)),
            Parsed::Whole { len, status, body } => {
                // What came behind the header is still to be read.
                let behind = (before + taken.len()).saturating_sub(len).min(taken.len());
                let rest = &taken[taken.len() - behind..];
                self.line.clear();
                // Another answer follows (RFC 9110 section 15.2).
                let interim = (100..200).contains(&status) && status != 101;
                if !interim && !check.status.contains(status) {
                    return Some(Err(Failure::Status(status)));
                }
                if !interim {
                    if check.body.is_none() {
                        return Some(Ok(()));
                    }
                    if body == Stage::Body(Some(0)) || matches!(status, 204 | 304) {
                        return Some(Err(Failure::Body));
                    }
                    self.stage = body;
                }
                if let Some(verdict) = self.feed(rest, check) {
                    return Some(verdict);
                }
                None
            }
        }
    }

    fn body(&mut self, bytes: &mut &[u8], left: Option<u64>, check: &HttpCheck) -> Verdict {
        let taken = take(bytes, left.map_or(usize::MAX, limit));
        let left = left.map(|left| left - taken.len() as u64);
        self.stage = Stage::Body(left);
        let found = self.search(taken, check);
        if found.is_none() && left == Some(0) { Some(Err(Failure::Body)) } else { found }
    }

    fn chunk(&mut self, bytes: &mut &[u8], left: u64, check: &HttpCheck) -> Verdict {
        let taken = take(bytes, limit(left));
        let left = left - taken.len() as u64;
        self.stage = if left == 0 { Stage::ChunkEnd } else { Stage::Chunk(left) };
        self.search(taken, check)
    }

    fn chunk_size(&mut self, bytes: &mut &[u8]) -> Verdict {
        if !self.whole_line(bytes) {
            return (self.line.len() == LONGEST_CHUNK_LINE).then_some(Err(Failure::NotHttp));
        }
        let size = httparse::parse_chunk_size(&self.line);
        self.line.clear();
        match size {
            // The last one: nothing but trailers behind it.
            Ok(httparse::Status::Complete((_, 0))) => Some(Err(Failure::Body)),
            Ok(httparse::Status::Complete((_, size))) => {
                self.stage = Stage::Chunk(size);
                None
            }
            Ok(httparse::Status::Partial) | Err(_) => Some(Err(Failure::NotHttp)),
        }
    }

    fn chunk_end(&mut self, bytes: &mut &[u8]) -> Verdict {
        let whole = self.whole_line(bytes);
        if !b"\r\n".starts_with(&self.line) {
            return Some(Err(Failure::NotHttp));
        }
        if whole {
            self.line.clear();
            self.stage = Stage::ChunkSize;
        }
        None
    }

    /// Takes bytes until the end of a line, which is not too long.
    fn whole_line(&mut self, bytes: &mut &[u8]) -> bool {
        let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
        let taken = take(bytes, end.min(LONGEST_CHUNK_LINE - self.line.len()));
        self.line.extend_from_slice(taken);
        self.line.ends_with(b"\n")
    }

    /// Whether the text is in what has come so far, of which these are the last bytes.
    fn search(&mut self, bytes: &[u8], check: &HttpCheck) -> Verdict {
        let wanted = check.body.as_ref()?.as_bytes();
        let bytes = &bytes[..bytes.len().min(SEARCHED - self.searched)];
        self.searched += bytes.len();
        let overlap = wanted.len().saturating_sub(1);
        // First where the old ends and the new begins.
        self.tail.extend_from_slice(&bytes[..bytes.len().min(overlap)]);
        let found =
            memmem::find(&self.tail, wanted).is_some() || memmem::find(bytes, wanted).is_some();
        if found {
            return Some(Ok(()));
        }
        if bytes.len() > overlap {
            self.tail.clear();
            self.tail.extend_from_slice(&bytes[bytes.len() - overlap..]);
        } else {
            let old = self.tail.len().saturating_sub(overlap);
            self.tail.drain(..old);
        }
        (self.searched == SEARCHED).then_some(Err(Failure::Body))
    }
}

enum Parsed {
    Partial,
    Wrong(Failure),
    Whole { len: usize, status: u16, body: Stage },
}

fn parse(bytes: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let len = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => return Parsed::Wrong(Failure::LongHeader),
        Err(_) => return Parsed::Wrong(Failure::NotHttp),
    };
    let field = |name: &str| {
        let mut fields = response.headers.iter();
        let field = fields.find(|field| field.name.eq_ignore_ascii_case(name));
        field.and_then(|field| std::str::from_utf8(field.value).ok()).map(str::trim)
    };
    let chunked = |coding: &str| coding.to_ascii_lowercase().ends_with("chunked");
    // Which wins is RFC 9112 section 6.3's rule.
    let body = if field("transfer-encoding").is_some_and(chunked) {
        Stage::ChunkSize
    } else {
        match field("content-length").map(str::parse) {
            None => Stage::Body(None),
            Some(Ok(length)) => Stage::Body(Some(length)),
            Some(Err(_)) => return Parsed::Wrong(Failure::NotHttp),
        }
    };
    Parsed::Whole { len, status: response.code.unwrap_or(0), body }
}

/// The first bytes, `most` at the most, off the front.
fn take<'b>(bytes: &mut &'b [u8], most: usize) -> &'b [u8] {
    let (taken, rest) = bytes.split_at(bytes.len().min(most));
    *bytes = rest;
    taken
}

fn limit(left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX)
}

/// Whether `bytes` begin with `what`, as far as they go.
fn begins_like(bytes: &[u8], what: &[u8]) -> bool {
    bytes.iter().zip(what).all(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StatusCodes;

    fn check(body: Option<&str>) -> HttpCheck {
        HttpCheck {
            path: "/".to_owned(),
            host: "www".to_owned(),
            status: StatusCodes(vec![200..=399]),
            body: body.map(str::to_owned),
        }
    }

    /// What comes of an answer however it is cut, and then closed.
    #[track_caller]
    fn verdict(answer: &[u8], body: Option<&str>) -> Result<(), Failure> {
        let check = check(body);
        let with = |size: usize| {
            let mut so_far = Answer::default();
            let mut pieces = answer.chunks(size);
            let found = pieces.find_map(|piece| so_far.feed(piece, &check));
            found.unwrap_or_else(|| Err(so_far.end()))
        };
        let whole = with(answer.len().max(1));
        for size in [1, 2, 3, 7, 64] {
            assert_eq!(with(size), whole, "in pieces of {size}: {}", answer.escape_ascii());
        }
        whole
    }

    #[test]
    fn the_status_is_enough_without_a_body() {
        assert_eq!(verdict(b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nanything", None), Ok(()));
        assert_eq!(
            verdict(b"HTTP/1.0 302 Found\nLocation: /\n\n", None),
            Ok(()),
            "bare line feeds"
        );
        let down = verdict(b"HTTP/1.1 503 Service Unavailable\r\n\r\n", None);
        assert_eq!(down, Err(Failure::Status(503)));
        let interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(verdict(interim, None), Ok(()));
        assert_eq!(verdict(b"HTTP/1.1 100 Continue\r\n\r\n", None), Err(Failure::Cut));
    }

    #[test]
    fn what_is_no_http_is_told_at_once() {
        for wrong in [
            &b"SSH-2.0-OpenSSH_9.6\r\n"[..],
            b"\x15\x03\x01\x00\x02\x02",
            b"HTTP/1.1 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
            b"HTTP/3 200 OK\r\n\r\n",
            b"\n",
        ] {
            assert_eq!(verdict(wrong, None), Err(Failure::NotHttp), "{}", wrong.escape_ascii());
        }
        assert_eq!(verdict(b"", None), Err(Failure::Cut));
        assert_eq!(verdict(b"HTTP/1.1 200 OK\r\nServ", None), Err(Failure::Cut));
        let many: String = (0..65).map(|n| format!("a{n}: b\r\n")).collect();
        let many = format!("HTTP/1.1 200 OK\r\n{many}\r\n");
        assert_eq!(verdict(many.as_bytes(), None), Err(Failure::LongHeader));
        let long = format!("HTTP/1.1 200 OK\r\nCookie: {}\r\n\r\n", "x".repeat(LONGEST_HEADER));
        assert_eq!(verdict(long.as_bytes(), None), Err(Failure::LongHeader));
    }

    #[test]
    fn a_text_is_found_wherever_it_is_cut() {
        let answer = |fields: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
        let found = |text: &str| verdict(text.as_bytes(), Some("all is well"));
        assert_eq!(found(&answer("", "status: all is well\n")), Ok(()));
        assert_eq!(found(&answer("Content-Length: 11\r\n", "all is well")), Ok(()));
        assert_eq!(found(&answer("", "all is we")), Err(Failure::Body), "closed: that was all");
        let short = answer("Content-Length: 9\r\n", "all is well");
        assert_eq!(found(&short), Err(Failure::Body), "what lies behind the body is not in it");
        assert_eq!(found(&answer("Content-Length: 99\r\n", "all is")), Err(Failure::Cut));
        assert_eq!(found(&answer("Content-Length: 0\r\n", "")), Err(Failure::Body));
        assert_eq!(found(&answer("Content-Length: -1\r\n", "x")), Err(Failure::NotHttp));
        assert_eq!(found("HTTP/1.1 204 No Content\r\n\r\n"), Err(Failure::Body));
        assert_eq!(found(&answer("", "all is all is well")), Ok(()), "a false start");
    }

    #[test]
    fn chunks_are_put_together() {
        let chunked = |body: &str| {
            let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            verdict(answer.as_bytes(), Some("all is well"))
        };
        assert_eq!(chunked("4\r\nall \r\n7;x=y\r\nis well\r\n0\r\n\r\n"), Ok(()));
        assert_eq!(chunked("4\r\nall \r\n3\r\nis \r\n0\r\n\r\n"), Err(Failure::Body));
        assert_eq!(chunked("5\r\nall"), Err(Failure::Cut));
        assert_eq!(chunked("zz\r\n"), Err(Failure::NotHttp));
        assert_eq!(chunked("1\r\naXX"), Err(Failure::NotHttp), "a chunk longer than it says");
        assert_eq!(chunked(&format!("1;{}\r\n", "x".repeat(300))), Err(Failure::NotHttp));
        assert_eq!(chunked("ffffffffffffffff1\r\n"), Err(Failure::NotHttp));
    }

    #[test]
    fn only_so_much_is_searched() {
        let answer = |before: usize| {
            let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
            answer.resize(answer.len() + before, b'x');
            answer.extend(b"ok");
            answer.extend([b'x'; 9]);
            answer
        };
        assert_eq!(verdict(&answer(SEARCHED - 2), Some("ok")), Ok(()));
        assert_eq!(verdict(&answer(SEARCHED - 1), Some("ok")), Err(Failure::Body));
        let mut so_far = Answer::default();
        so_far.feed(b"HTTP/1.1 200 OK\r\n\r\n", &check(Some("ok")));
        let endless = std::iter::repeat_n([b'x'; 1_000], 100);
        let mut fed = endless.map(|piece| so_far.feed(&piece, &check(Some("ok"))));
        assert_eq!(fed.find_map(|verdict| verdict), Some(Err(Failure::Body)));
        assert!(so_far.tail.len() < 9 && so_far.line.is_empty(), "{so_far:?}");
    }

    #[test]
    fn it_can_be_used_again() {
        let mut answer = Answer::default();
        assert_eq!(answer.feed(b"HTTP/1.1 200 OK\r\n\r\nno", &check(Some("ok"))), None);
        answer.clear();
        assert_eq!(answer.feed(b"HTTP/1.1 200 OK\r\n\r\nok", &check(Some("ok"))), Some(Ok(())));
    }
}
