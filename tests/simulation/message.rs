//! Messages as the virtual clients and backends read them. This reader is independent of the proxy's parser, so it
//! does not share its mistakes. It accepts only the messages that the proxy may write, which are fewer than HTTP
//! allows.

/// A head.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    pub(super) start: String,
    pub(super) fields: Vec<(String, String)>,
}

impl Head {
    /// Returns the first field with a name, in any case.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|field| field.0.eq_ignore_ascii_case(name)).map(|field| &field.1[..])
    }

    /// True if a field is left that concerns one connection (RFC 9110, 7.6.1), or the one that [`HOP_FIELDS`] names
    /// in Connection. `te` allows the fields that the proxy may add to a request.
    pub(super) fn has_hop_fields(&self, te: bool) -> bool {
        let ends_here = |name: &str| {
            ["Keep-Alive", "Proxy-Connection", "X-Hop"].iter().any(|other| other.eq_ignore_ascii_case(name))
        };
        let te_left = self.get("TE").is_some_and(|value| !te || value != "trailers");
        self.fields.iter().any(|field| ends_here(&field.0)) || self.option("x-hop") || te_left
    }

    /// Returns a field that is a number.
    pub(super) fn number(&self, name: &str) -> Option<usize> {
        self.get(name)?.parse().ok()
    }

    /// True if Connection has an option.
    pub(super) fn option(&self, option: &str) -> bool {
        let named = |value: &str| value.split(',').any(|member| member.trim().eq_ignore_ascii_case(option));
        self.fields.iter().any(|field| field.0.eq_ignore_ascii_case("Connection") && named(&field.1))
    }

    /// Returns the status of a response's start line.
    pub(super) fn status(&self) -> Option<u16> {
        self.start.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
    }

    /// Returns the framing of the content; `None` if no field decides it. Two deciding fields are an error.
    pub(super) fn framing(&self) -> Result<Option<Framing>, String> {
        let named = |name: &str| self.fields.iter().filter(|field| field.0.eq_ignore_ascii_case(name)).count();
        match (named("Content-Length"), named("Transfer-Encoding")) {
            (0, 0) => Ok(None),
            (1, 0) => match self.number("Content-Length") {
                Some(length) => Ok(Some(Framing::Length(length))),
                None => Err("a Content-Length that is no number".into()),
            },
            (0, 1) if self.get("Transfer-Encoding") == Some("chunked") => Ok(Some(Framing::Chunked)),
            _ => Err(format!("framed twice, or unknown: {:?}", self.fields)),
        }
    }
}

/// The end of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// Fields that end at the proxy. Connection names one of them.
pub(super) const HOP_FIELDS: &str =
    "Connection: x-hop\r\nX-Hop: secret\r\nKeep-Alive: timeout=9\r\nProxy-Connection: keep-alive\r\n";

/// The fields of a trailer section.
pub(super) type Trailers = Vec<(String, String)>;

/// Returns the trailers that reach the other end, for a message with this tag.
pub(super) fn trailers(tag: &str) -> Trailers {
    ["a", "b"].map(|one| ("X-Trailer".to_string(), format!("{tag}-{one}"))).into()
}

/// Returns a trailer section with these trailers and with fields that end at the proxy. `named`: Connection names
/// X-Hop.
pub(super) fn trailer_section(tag: &str, named: bool, barred: bool) -> String {
    let mut text: String = trailers(tag).iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    text.push_str(if named { "X-Hop: secret\r\n" } else { "" });
    text.push_str(if barred { "Content-Type: evil\r\nX-Forwarded-For: 6.6.6.6\r\n" } else { "" });
    text + "\r\n"
}

/// True if the received trailers are these. Their names may have any case.
pub(super) fn are_trailers(came: &Trailers, expected: &Trailers) -> bool {
    let same = |a: &(String, String), b: &(String, String)| a.0.eq_ignore_ascii_case(&b.0) && a.1 == b.1;
    came.len() == expected.len() && came.iter().zip(expected).all(|(a, b)| same(a, b))
}

/// A piece of a message.
#[derive(Debug)]
pub(super) enum Piece {
    Head(Head),
    Data(Vec<u8>),
    End(Trailers),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Length(usize),
    Size,
    Chunk(usize),
    ChunkEnd,
    Trailers,
    UntilClose,
    Over,
}

/// Reads one message after another.
#[derive(Debug)]
pub(super) struct Reader {
    held: Vec<u8>,
    at: usize,
    state: State,
    trailers: Trailers,
}

impl Reader {
    pub(super) fn new() -> Reader {
        Reader { held: Vec::new(), at: 0, state: State::Head, trailers: Vec::new() }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.held.drain(..self.at);
        self.at = 0;
        self.held.extend_from_slice(bytes);
    }

    /// Sets the framing of the content after the head that was just read.
    pub(super) fn body(&mut self, framing: Framing) {
        self.state = match framing {
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
            Framing::UntilClose => State::UntilClose,
        };
    }

    /// Prepares for a further message.
    pub(super) fn again(&mut self) {
        self.state = State::Head;
    }

    /// Returns the bytes that are not decoded yet.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        let rest = self.held[self.at..].to_vec();
        self.at = self.held.len();
        rest
    }

    /// True if the bytes so far end at the end of a message.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.state, State::Head | State::Over) && self.at == self.held.len()
    }

    /// True if the end of the connection is a proper end of the content now.
    pub(super) fn ends_by_close(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Returns the next piece if it is complete.
    pub(super) fn piece(&mut self) -> Result<Option<Piece>, String> {
        loop {
            let rest = &self.held[self.at..];
            match self.state {
                State::Over => return Ok(None),
                State::Head => return self.head(),
                State::Length(0) => {
                    self.state = State::Over;
                    return Ok(Some(Piece::End(Vec::new())));
                }
                State::Length(_) | State::Chunk(_) | State::UntilClose if rest.is_empty() => return Ok(None),
                State::Length(left) => {
                    let data = self.data(left);
                    self.state = State::Length(left - data.len());
                    return Ok(Some(Piece::Data(data)));
                }
                State::UntilClose => return Ok(Some(Piece::Data(self.data(usize::MAX)))),
                State::Chunk(left) => {
                    let data = self.data(left);
                    let left = left - data.len();
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    return Ok(Some(Piece::Data(data)));
                }
                State::Size => {
                    let Some(line) = self.line()? else { return Ok(None) };
                    let size = usize::from_str_radix(&line, 16).map_err(|_| format!("chunk size {line:?}"))?;
                    self.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
                }
                State::ChunkEnd => {
                    let Some(line) = self.line()? else { return Ok(None) };
                    if !line.is_empty() {
                        return Err(format!("{line:?} behind a chunk"));
                    }
                    self.state = State::Size;
                }
                State::Trailers => {
                    let Some(line) = self.line()? else { return Ok(None) };
                    if line.is_empty() {
                        self.state = State::Over;
                        return Ok(Some(Piece::End(std::mem::take(&mut self.trailers))));
                    }
                    let (name, value) = line.split_once(": ").ok_or(format!("trailer {line:?}"))?;
                    self.trailers.push((name.into(), value.into()));
                }
            }
        }
    }

    fn data(&mut self, most: usize) -> Vec<u8> {
        let end = self.at + (self.held.len() - self.at).min(most);
        let data = self.held[self.at..end].to_vec();
        self.at = end;
        data
    }

    /// Returns a line without its CRLF.
    fn line(&mut self) -> Result<Option<String>, String> {
        let rest = &self.held[self.at..];
        let Some(end) = rest.windows(2).take(300).position(|two| two == b"\r\n") else {
            return if rest.len() > 300 { Err("a line without an end".into()) } else { Ok(None) };
        };
        let line = String::from_utf8(rest[..end].to_vec()).map_err(|_| "a line that is no text".to_string())?;
        self.at += end + 2;
        Ok(Some(line))
    }

    fn head(&mut self) -> Result<Option<Piece>, String> {
        let rest = &self.held[self.at..];
        let Some(end) = memmem(rest, b"\r\n\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(&rest[..end]).map_err(|_| "a head that is no text".to_string())?;
        let mut lines = text.split("\r\n");
        let mut head = Head { start: lines.next().unwrap_or_default().into(), fields: Vec::new() };
        for line in lines {
            let (name, value) = line.split_once(": ").ok_or(format!("field line {line:?}"))?;
            head.fields.push((name.into(), value.into()));
        }
        self.at += end + 4;
        self.state = State::Over;
        Ok(Some(Piece::Head(head)))
    }
}

fn memmem(text: &[u8], wanted: &[u8]) -> Option<usize> {
    let mut from = 0;
    // The search for the first byte is quick without optimisation.
    while let Some(at) = text[from..].iter().position(|&byte| byte == wanted[0]) {
        if text[from + at..].starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}
