//! Bytes of a connection to a request, or to the refusal that they deserve.

use super::{Response, Status};

/// The longest request line with all headers, in bytes.
const LONGEST_HEAD: usize = 8 << 10;
/// The longest body, in bytes.
const LONGEST_BODY: usize = 4 << 10;
/// The longest request, in bytes.
pub const LONGEST: usize = LONGEST_HEAD + LONGEST_BODY;
/// Headers of a request, at most.
const HEADERS: usize = 64;

/// What is to be done with the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// It is read.
    Get,
    /// Something is to change.
    Post,
}

/// A request that was received whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `HEAD` counts as `GET`: its body is left out when the answer is written.
    pub method: Method,
    /// The path, without a query.
    pub path: String,
    /// The credentials of `Authorization: Bearer`.
    pub token: Option<String>,
    /// The body of a `POST`.
    pub body: Vec<u8>,
}

/// A request, and how its answer is to be written.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What is asked.
    pub request: Request,
    /// The answer goes without its body (`HEAD`).
    pub head_only: bool,
}

/// The request in `bytes`; `None` while it is not whole.
///
/// # Errors
/// The answer to what is no request, or one that this server does not understand.
pub fn parse(bytes: &[u8]) -> Result<Option<Parsed>, Response> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= LONGEST_HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEAD => return Ok(None),
        Ok(_) => {
            let limit = format!("the headers are longer than {LONGEST_HEAD} bytes");
            return Err(Response::refusal(Status::HeadersTooLarge, limit));
        }
        Err(httparse::Error::TooManyHeaders) => {
            let limit = format!("there are more than {HEADERS} headers");
            return Err(Response::refusal(Status::HeadersTooLarge, limit));
        }
        Err(error) => {
            return Err(Response::refusal(Status::BadRequest, format!("not HTTP: {error}")));
        }
    };
    let (method, head_only) = match head.method {
        Some("GET") => (Method::Get, false),
        Some("HEAD") => (Method::Get, true),
        Some("POST") => (Method::Post, false),
        _ => {
            let known = "expected GET, HEAD or POST";
            return Err(Response::refusal(Status::NotImplemented, known));
        }
    };
    let body_length = body_length(head.headers)?;
    let Some(body) = bytes.get(length..length + body_length) else { return Ok(None) };
    let target = head.path.unwrap_or_default();
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let request =
        Request { method, path: path.to_owned(), token: token(head.headers), body: body.to_vec() };
    Ok(Some(Parsed { request, head_only }))
}

/// How long the body is. RFC 9112 section 6.3: without a length there is none; two that differ,
/// or a length beside an encoding, are an attack.
fn body_length(headers: &[httparse::Header<'_>]) -> Result<usize, Response> {
    let is = |header: &&httparse::Header<'_>, name: &str| header.name.eq_ignore_ascii_case(name);
    if headers.iter().any(|header| is(&header, "transfer-encoding")) {
        let needed = "a body needs Content-Length; Transfer-Encoding is not understood";
        return Err(Response::refusal(Status::LengthRequired, needed));
    }
    let mut lengths = headers.iter().filter(|header| is(header, "content-length"));
    let Some(first) = lengths.next() else { return Ok(0) };
    let digits = std::str::from_utf8(first.value).ok().map(str::trim);
    let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (None, Some(digits)) = (lengths.next(), digits.filter(is_number)) else {
        let wrong = "Content-Length has to be one number";
        return Err(Response::refusal(Status::BadRequest, wrong));
    };
    // What does not fit a number is too long, too.
    match digits.parse() {
        Ok(length) if length <= LONGEST_BODY => Ok(length),
        _ => {
            let limit = format!("a body has at most {LONGEST_BODY} bytes");
            Err(Response::refusal(Status::ContentTooLarge, limit))
        }
    }
}

/// RFC 6750 section 2.1.
fn token(headers: &[httparse::Header<'_>]) -> Option<String> {
    let header = headers.iter().find(|h| h.name.eq_ignore_ascii_case("authorization"))?;
    let (scheme, token) = std::str::from_utf8(header.value).ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Parsed {
        parse(text.as_bytes()).unwrap().unwrap()
    }

    fn refused(text: &str) -> Status {
        parse(text.as_bytes()).unwrap_err().status
    }

    #[test]
    fn a_request_is_whole_with_its_last_byte_and_not_before() {
        let text = "POST /api/drain?x=1 HTTP/1.1\r\nHost: a\r\nauthorization: bearer  s3cret\r\n\
                    content-length: 5\r\n\r\n{\"a\"}";
        for end in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..end]), Ok(None), "{end} bytes");
        }
        let Parsed { request, head_only } = whole(text);
        assert_eq!((request.method, request.path.as_str()), (Method::Post, "/api/drain"));
        assert_eq!(request.token.as_deref(), Some("s3cret"));
        assert_eq!((request.body, head_only), (b"{\"a\"}".to_vec(), false));
        assert!(whole("HEAD / HTTP/1.0\r\n\r\n").head_only);
        assert_eq!(whole("GET / HTTP/1.1\r\n\r\n").request.token, None);
        let basic = whole("GET / HTTP/1.1\r\nAuthorization: Basic eDp5\r\n\r\n");
        assert_eq!(basic.request.token, None);
    }

    #[test]
    fn what_is_wrong_is_refused_by_its_name() {
        let get = |headers: &str| format!("GET / HTTP/1.1\r\n{headers}\r\n");
        for (text, status) in [
            ("\x16\x03\x01\x02\x00\x01\x00\x01".to_owned(), Status::BadRequest),
            ("GET  HTTP/1.1\r\n\r\n".to_owned(), Status::BadRequest),
            ("GET / HTTP/9.9\r\n\r\n".to_owned(), Status::BadRequest),
            (get("no colon\r\n"), Status::BadRequest),
            ("BREW / HTTP/1.1\r\n\r\n".to_owned(), Status::NotImplemented),
            (get("Transfer-Encoding: chunked\r\n"), Status::LengthRequired),
            (get("Content-Length: 1\r\nContent-Length: 2\r\n"), Status::BadRequest),
            (get("Content-Length: +1\r\n"), Status::BadRequest),
            (get("Content-Length: \r\n"), Status::BadRequest),
            (get("Content-Length: 4097\r\n"), Status::ContentTooLarge),
            (get("Content-Length: 99999999999999999999999\r\n"), Status::ContentTooLarge),
            (get(&"A: b\r\n".repeat(65)), Status::HeadersTooLarge),
            (get(&format!("A: {}\r\n", "b".repeat(LONGEST_HEAD))), Status::HeadersTooLarge),
        ] {
            assert_eq!(refused(&text), status, "{text:?}");
        }
        let endless = format!("GET /{}", "a".repeat(LONGEST_HEAD));
        assert_eq!(refused(&endless), Status::HeadersTooLarge);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
