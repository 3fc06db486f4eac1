//! HTTP/1.1, as far as the tests' clients use it: requests with a length or in chunks, answers,
//! dates.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::Deref;

/// The most bytes in a line and the most lines, more than any client of the tests sends.
const LINE_BYTES: u64 = 64 << 10;
const HEADERS: usize = 200;
const BODY_BYTES: u64 = 1 << 30;

/// A request without its body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    pub method: String,
    /// The decoded path.
    pub path: String,
    /// The decoded parameters of the query, followed by those of a form.
    pub query: Vec<(String, String)>,
    /// Headers, with names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The access key that signed the request.
    pub fn access_key(&self) -> Option<&str> {
        self.credential(0)
    }

    /// The region for which it was signed.
    pub fn region(&self) -> Option<&str> {
        self.credential(2)
    }

    /// A part of `Credential=KEY/DAY/REGION/SERVICE/aws4_request`.
    fn credential(&self, part: usize) -> Option<&str> {
        let (_, credential) = self.header("authorization")?.split_once("Credential=")?;
        credential.split([',', ' ']).next()?.split('/').nth(part)
    }

    pub fn token(&self) -> Option<&str> {
        self.header("x-amz-security-token")
    }

    pub fn sse(&self) -> Option<&str> {
        self.header("x-amz-server-side-encryption")
    }

    pub fn host(&self) -> Option<&str> {
        self.header("host")
    }

    fn is_form(&self) -> bool {
        self.header("content-type").is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
    }
}

/// A complete request.
pub struct HttpRequest {
    head: Head,
    pub body: Vec<u8>,
}

impl Deref for HttpRequest {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl HttpRequest {
    /// The next request of a connection; none if the client has closed it or does not speak HTTP.
    pub fn read(from: &mut BufReader<TcpStream>) -> Option<Self> {
        let mut head = head(from)?;
        if head.header("expect").is_some() {
            from.get_ref().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
        }
        let body = match head.header("content-length") {
            Some(length) => exactly(from, length.parse().ok()?)?,
            None if head.header("transfer-encoding").is_some() => chunks(from)?,
            None => Vec::new(),
        };
        if head.is_form() {
            head.query.extend(parameters(&String::from_utf8_lossy(&body)));
        }
        Some(Self { head, body })
    }

    pub fn head(&self) -> &Head {
        &self.head
    }
}

fn head(from: &mut BufReader<TcpStream>) -> Option<Head> {
    let first = line(from)?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut head = Head { method, path: decoded(path), query: parameters(query), headers: Vec::new() };
    while head.headers.len() < HEADERS {
        let line = line(from)?;
        if line.is_empty() {
            return Some(head);
        }
        let (name, value) = line.split_once(':')?;
        head.headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
    None
}

fn line(from: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = Vec::new();
    from.take(LINE_BYTES).read_until(b'\n', &mut line).ok()?;
    let line = line.strip_suffix(b"\n")?;
    Some(String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned())
}

fn exactly(from: &mut BufReader<TcpStream>, length: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(length.min(BODY_BYTES)).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 == length).then_some(bytes)
}

fn chunks(from: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(from)?;
        let size = u64::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        body.extend(exactly(from, size)?);
        // After the last chunk there may be trailers, which end with an empty line; after others
        // only that line.
        while !line(from)?.is_empty() {}
        if size == 0 {
            return Some(body);
        }
    }
}

fn parameters(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(name, value)| (decoded(&name.replace('+', " ")), decoded(&value.replace('+', " ")))).collect()
}

/// Decodes percent-encoding; an invalid one stays unchanged.
fn decoded(text: &str) -> String {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The answer to a request.
#[derive(Debug, Clone, Default)]
pub struct HttpResponse {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl HttpResponse {
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn text(status: u16, kind: &str, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.as_bytes().to_vec() }.with("Content-Type", kind)
    }

    pub fn xml(status: u16, body: &str) -> Self {
        let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}");
        Self::text(status, "application/xml", &body)
    }

    /// An error in the form of S3 (Amazon S3 API reference, Error responses).
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let message = escaped(message);
        let id = "<RequestId>1</RequestId><HostId>mini</HostId>";
        Self::xml(status, &format!("<Error><Code>{code}</Code><Message>{message}</Message>{id}</Error>"))
    }

    /// Writes the answer at once, so that no client sees half of it. For HEAD it has the length,
    /// but no body.
    pub fn write(&self, mut to: &TcpStream, method: &str, date: i64) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} \r\nDate: {}\r\nServer: mini\r\n", self.status, http_date(date));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !matches!(self.status, 204 | 304) {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        let body = if method == "HEAD" { &[][..] } else { &self.body };
        to.write_all(&[head.as_bytes(), b"\r\n", body].concat())
    }
}

/// Escapes text for XML.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Reverses [`escaped`].
pub fn unescaped(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    text.replace("&amp;", "&")
}

/// Seconds since the Unix epoch.
#[allow(clippy::disallowed_methods, reason = "a server has a clock of its own")]
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().cast_signed())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
pub fn http_date(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, [hour, minute, second]) = clock(seconds);
    let [year, month, day] = civil(days);
    let weekday = usize::try_from(days.rem_euclid(7)).map_or("", |at| DAYS[at]);
    let month = usize::try_from(month - 1).map_or("", |at| MONTHS[at]);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// `1994-11-06T08:49:37.000Z`.
pub fn iso_date(seconds: i64) -> String {
    let (days, [hour, minute, second]) = clock(seconds);
    let [year, month, day] = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z")
}

fn clock(seconds: i64) -> (i64, [i64; 3]) {
    let of_day = seconds.rem_euclid(86_400);
    (seconds.div_euclid(86_400), [of_day / 3_600, of_day / 60 % 60, of_day % 60])
}

/// Year, month and day, `days` after 1970-01-01 (Hinnant, chrono-compatible low-level date
/// algorithms).
fn civil(days: i64) -> [i64; 3] {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    [era * 400 + year + i64::from(month <= 2), month, day]
}
