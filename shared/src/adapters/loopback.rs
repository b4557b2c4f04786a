//! An HTTP server on loopback with prepared answers, for tests of clients: real requests, no network, and no mocking
//! crate that would pull the SDK's HTTP stack into every test build.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use serde_json::Value;

/// One prepared answer.
#[derive(Clone, Debug)]
pub struct Answer {
    status: &'static str,
    content_type: &'static str,
    headers: &'static str,
    body: String,
}

impl Answer {
    /// Such as `200 OK` with a JSON body.
    pub fn json(status: &'static str, body: &Value) -> Self {
        Self { status, content_type: "application/x-amz-json-1.0", headers: "", body: body.to_string() }
    }

    /// Such as `404 Not Found` with an XML body.
    pub fn xml(status: &'static str, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/xml", headers: "", body: body.into() }
    }

    /// With further headers, each ending in `\r\n`.
    #[must_use]
    pub const fn with_headers(mut self, headers: &'static str) -> Self {
        self.headers = headers;
        self
    }
}

struct Request {
    head: String,
    body: String,
}

/// The server. It ends with its last answer or with the test process.
#[derive(Debug)]
pub struct Loopback {
    endpoint: String,
    requests: mpsc::Receiver<Request>,
}

impl Loopback {
    /// Answers one request with each of `answers`, in order, and then no more.
    ///
    /// # Panics
    /// When there is no free port.
    pub fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        let endpoint = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let answers: Vec<Answer> = answers.into_iter().collect();
        let (send, requests) = mpsc::channel();
        std::thread::spawn(move || {
            for answer in answers {
                let Ok((mut stream, _)) = listener.accept() else { return };
                let Ok(request) = read_request(&mut stream) else { return };
                // The test sees the request before the client sees the answer.
                let _ = send.send(request);
                let _ = write_answer(&mut stream, &answer);
            }
        });
        Self { endpoint, requests }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The bodies of the requests so far that were not taken yet.
    pub fn requests(&self) -> Vec<String> {
        self.requests.try_iter().map(|request| request.body).collect()
    }

    /// The heads of the requests so far that were not taken yet: the first line and the headers.
    pub fn heads(&self) -> Vec<String> {
        self.requests.try_iter().map(|request| request.head).collect()
    }
}

fn read_request(stream: &mut TcpStream) -> std::io::Result<Request> {
    let mut request = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        request.extend_from_slice(&buffer[..n]);
        let Some(head_end) = request.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&request[..head_end]);
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse().ok())
            .unwrap_or(0_usize);
        let body = &request[head_end + 4..];
        if body.len() >= length {
            return Ok(Request { body: String::from_utf8_lossy(body).into_owned(), head: head.into_owned() });
        }
    }
}

fn write_answer(stream: &mut TcpStream, answer: &Answer) -> std::io::Result<()> {
    let Answer { status, content_type, headers, body } = answer;
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{headers}Connection: close\r\n\r\n{body}"
    )
}
