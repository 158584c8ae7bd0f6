//! An answer and its bytes.

/// The status codes that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in RFC 9110 section 15")]
pub enum Status {
    Ok,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    /// 405: it can only be read.
    OnlyGet,
    /// 405: it can only be done.
    OnlyPost,
    RequestTimeout,
    LengthRequired,
    ContentTooLarge,
    UnprocessableContent,
    TooManyRequests,
    HeadersTooLarge,
    NotImplemented,
    ServiceUnavailable,
}

impl Status {
    const fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::Unauthorized => "401 Unauthorized",
            Self::Forbidden => "403 Forbidden",
            Self::NotFound => "404 Not Found",
            Self::OnlyGet | Self::OnlyPost => "405 Method Not Allowed",
            Self::RequestTimeout => "408 Request Timeout",
            Self::LengthRequired => "411 Length Required",
            Self::ContentTooLarge => "413 Content Too Large",
            Self::UnprocessableContent => "422 Unprocessable Content",
            Self::TooManyRequests => "429 Too Many Requests",
            Self::HeadersTooLarge => "431 Request Header Fields Too Large",
            Self::NotImplemented => "501 Not Implemented",
            Self::ServiceUnavailable => "503 Service Unavailable",
        }
    }

    /// What a client needs to know besides (RFC 9110 sections 10.2.1, 10.2.3 and 11.6.1).
    const fn extra(self) -> &'static str {
        match self {
            Self::Unauthorized => "WWW-Authenticate: Bearer\r\n",
            Self::OnlyGet => "Allow: GET, HEAD\r\n",
            Self::OnlyPost => "Allow: POST\r\n",
            Self::TooManyRequests | Self::ServiceUnavailable => "Retry-After: 1\r\n",
            _ => "",
        }
    }
}

/// An answer. The connection ends with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// What became of the request.
    pub status: Status,
    /// What `body` is.
    pub content_type: &'static str,
    /// The page.
    pub body: Vec<u8>,
}

impl Response {
    /// Readable text.
    pub fn text(status: Status, body: impl Into<String>) -> Self {
        let body: String = body.into();
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into_bytes() }
    }

    /// JSON.
    pub const fn json(status: Status, body: Vec<u8>) -> Self {
        Self { status, content_type: "application/json", body }
    }

    /// A line that says why there is no page.
    pub fn refusal(status: Status, why: impl Into<String>) -> Self {
        let mut why: String = why.into();
        why.push('\n');
        Self::text(status, why)
    }

    /// Everything that goes over the wire; `head_only` as RFC 9110 section 9.3.2 has it.
    pub fn into_bytes(self, head_only: bool) -> Vec<u8> {
        let Self { status, content_type, body } = self;
        let mut bytes = format!(
            "HTTP/1.1 {}\r\n{}Content-Type: {content_type}\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
            status.line(),
            status.extra(),
            body.len(),
        )
        .into_bytes();
        if !head_only {
            bytes.extend_from_slice(&body);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_on_the_wire() {
        let response = Response::refusal(Status::Unauthorized, "no token");
        let text = String::from_utf8(response.clone().into_bytes(false)).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: 9\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Connection: close\r\n\r\nno token\n"
        );
        let head = String::from_utf8(response.into_bytes(true)).unwrap();
        assert_eq!(format!("{head}no token\n"), text);
    }
}
