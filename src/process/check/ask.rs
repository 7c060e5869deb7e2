//! The request of a probe on one connection, for `--check`: bytes in, bytes out, and the status at the end.
//!
//! The request is the one that a worker's probe sends, and the failures have the same words. The head of the
//! final response decides, so its content is not awaited.

use crate::collections::slab::Key;
use crate::http::grpc::{self, Unhealthy};
use crate::http::head::{Head, HeadRef};
use crate::http::part::{Part, Role};
use crate::http1;
use crate::http2::connection::Event;
use crate::http2::{self, ErrorCode};
use crate::limits::HEALTH_BYTES;
use crate::proxy::Failure;
use crate::proxy::probe::{write_call, write_request};

/// The request of a probe.
#[derive(Clone, Debug)]
pub(super) struct Request<'a> {
    pub(super) path: &'a str,
    pub(super) scheme: &'static str,
    /// The value of Host or `:authority`.
    pub(super) host: String,
    /// The service of a gRPC probe; `None` for a GET.
    pub(super) service: Option<&'a str>,
}

/// The protocol of the connection.
enum Codec {
    H1(http1::connection::Connection),
    H2(Box<http2::connection::Connection>),
    /// HTTP/2, and the message of a gRPC response as far as it has arrived.
    Grpc(Box<http2::connection::Connection>, Vec<u8>),
}

/// The result of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The status of the response.
    Status(u16),
    /// The judgement of a gRPC response.
    Health(Result<(), Unhealthy>),
}

/// One probe.
pub(super) struct Ask {
    codec: Codec,
    /// Bytes from the backend that are not decoded yet. A head is at most `HEAD_BYTES`, a frame at most
    /// `H2_FRAME_BYTES`.
    input: Vec<u8>,
    /// Bytes for the backend, which the caller takes.
    pub(super) output: Vec<u8>,
}

impl Ask {
    /// Writes the request. The connection speaks HTTP/2 from its beginning if `http2`.
    pub(super) fn begin(request: &Request<'_>, http2: bool) -> Ask {
        let mut output = Vec::new();
        let codec = if http2 {
            let mut connection = Box::new(http2::connection::Connection::new(Role::Client));
            connection.greet(&mut output);
            let mut block = Vec::new();
            let mut writer = http2::head::Writer::new(&mut block);
            match request.service {
                None => write_request(&mut writer, request.path, request.scheme, &request.host),
                Some(_) => write_call(&mut writer, request.scheme, &request.host),
            }
            if let Some(stream) = connection.open(Key::from_token(0)) {
                connection.write_fields(stream, &block, request.service.is_none(), &mut output);
                let message = request.service.map(grpc::health_request).unwrap_or_default();
                if let Some(header) = connection.data(stream, message.len(), true).filter(|_| !message.is_empty()) {
                    output.extend_from_slice(&header);
                    output.extend_from_slice(&message);
                }
            }
            match request.service {
                None => Codec::H2(connection),
                Some(_) => Codec::Grpc(connection, Vec::new()),
            }
        } else {
            let mut writer = http1::write::Writer::new(&mut output);
            write_request(&mut writer, request.path, request.scheme, &request.host);
            writer.finish();
            Codec::H1(http1::connection::Connection::new(Role::Client))
        };
        Ask { codec, input: Vec::new(), output }
    }

    /// Takes bytes from the backend; the status of the response, or why there is none, once that is known.
    pub(super) fn received(&mut self, bytes: &[u8], now_us: u64) -> Option<Result<Answer, Failure>> {
        self.input.extend_from_slice(bytes);
        let (used, outcome) = match &mut self.codec {
            Codec::H1(connection) => decode_http1(connection, &self.input),
            Codec::H2(connection) => {
                connection.set_clock(now_us);
                decode_http2(connection, None, &self.input, &mut self.output)
            }
            Codec::Grpc(connection, message) => {
                connection.set_clock(now_us);
                decode_http2(connection, Some(message), &self.input, &mut self.output)
            }
        };
        self.input.drain(..used);
        outcome
    }
}

/// The number of decoded bytes, and the result, if known.
type Decoded = (usize, Option<Result<Answer, Failure>>);

fn decode_http1(connection: &mut http1::connection::Connection, input: &[u8]) -> Decoded {
    let (mut at, mut head) = (0, Head::default());
    loop {
        match connection.decode(&input[at..], &mut head) {
            Ok((skip, Part::Interim(length))) => at += skip + length,
            Ok((skip, Part::Head(length))) => {
                let bytes = &input[at + skip..];
                let status = HeadRef { bytes, head: &head }.status();
                return (at + skip + length, Some(Ok(Answer::Status(status))));
            }
            Ok((skip, _)) => return (at + skip, None),
            Err(refusal) => return (at, Some(Err(Failure::Malformed(refusal)))),
        }
    }
}

/// `message`: the message of a gRPC response, which is completed.
fn decode_http2(
    connection: &mut http2::connection::Connection,
    mut message: Option<&mut Vec<u8>>,
    input: &[u8],
    output: &mut Vec<u8>,
) -> Decoded {
    let (mut at, mut head, mut arena) = (0, Head::default(), Vec::new());
    loop {
        let (skip, event) = match connection.decode(&input[at..], &mut head, &mut arena, output) {
            Ok(decoded) => decoded,
            Err(error) if error.is_limit() => return (at, Some(Err(Failure::Excess(error.reason)))),
            Err(error) => return (at, Some(Err(Failure::Http2(error.reason)))),
        };
        at += skip;
        let failure = match event {
            Event::NeedMore => return (at, None),
            Event::Head(_) => {
                let view = HeadRef { bytes: &arena, head: &head };
                let answer = match &message {
                    None => Answer::Status(view.status()),
                    Some(_) if view.status() != 200 => Answer::Health(Err(Unhealthy::Http(view.status()))),
                    Some(_) if !head.ended => continue,
                    Some(message) => Answer::Health(grpc::judge_health(grpc::status_in(view), message)),
                };
                return (at, Some(Ok(answer)));
            }
            Event::Trailers(_) => {
                let status = grpc::status_in(HeadRef { bytes: &arena, head: &head });
                let message = message.map_or(&[][..], |message| message.as_slice());
                return (at, Some(Ok(Answer::Health(grpc::judge_health(status, message)))));
            }
            Event::End(_) => return (at, Some(Ok(Answer::Health(Err(Unhealthy::NoStatus))))),
            Event::Data(_, length) => {
                if let Some(message) = &mut message {
                    message.extend_from_slice(&input[at..at + length]);
                    if message.len() > HEALTH_BYTES {
                        return (at, Some(Ok(Answer::Health(Err(Unhealthy::Malformed)))));
                    }
                }
                at += length;
                continue;
            }
            Event::Malformed(_, refusal) => Failure::Malformed(refusal),
            Event::Reset(_, ErrorCode::REFUSED_STREAM) => Failure::Refused,
            Event::Reset(_, code) => Failure::Reset(code),
            Event::GoAway(ErrorCode::NO_ERROR) if connection.unprocessed().next().is_none() => continue,
            Event::GoAway(ErrorCode::NO_ERROR) => Failure::Unprocessed,
            Event::GoAway(code) => Failure::GoAway(code),
            _ => continue,
        };
        return (at, Some(Err(failure)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(http2: bool) -> Ask {
        Ask::begin(&Request { path: "/up", scheme: "http", host: "a.test:1".into(), service: None }, http2)
    }

    /// The result of a response that arrives byte by byte.
    fn outcome(http2: bool, response: &[u8]) -> Option<Result<Answer, Failure>> {
        let mut ask = ask(http2);
        response.iter().find_map(|byte| ask.received(&[*byte], 0))
    }

    #[test]
    fn the_request_is_the_one_of_a_probe() {
        let request = String::from_utf8(ask(false).output).unwrap();
        assert!(request.starts_with("GET /up HTTP/1.1\r\nHost: a.test:1\r\nUser-Agent: load_balancer/"), "{request}");
        assert!(request.ends_with("\r\nConnection: close\r\n\r\n"), "{request}");
        assert!(ask(true).output.starts_with(http2::frame::PREFACE));
    }

    #[test]
    fn the_head_of_the_final_response_decides() {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let response = format!("{interim}{interim}HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(outcome(false, response.as_bytes()), Some(Ok(Answer::Status(404))));
        assert_eq!(outcome(false, &response.as_bytes()[..response.len() - 1]), None);
        assert!(matches!(outcome(false, b"SSH-2.0-OpenSSH\r\n"), Some(Err(Failure::Malformed(_)))));
        // SETTINGS, PING, then HEADERS with the status 200 of the static table.
        let frames = [
            &[0, 0, 0, 4, 0, 0, 0, 0, 0][..],
            &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88],
        ];
        assert_eq!(outcome(true, &frames.concat()), Some(Ok(Answer::Status(200))));
        assert!(matches!(outcome(true, b"HTTP/1.1 400 Bad Request\r\n\r\n"), Some(Err(Failure::Http2(_)))));
    }

    #[test]
    fn a_stream_that_is_reset_or_not_processed_fails() {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let reset = |code| outcome(true, &[&settings[..], &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, code]].concat());
        assert_eq!(reset(7), Some(Err(Failure::Refused)));
        assert_eq!(reset(2), Some(Err(Failure::Reset(ErrorCode::INTERNAL_ERROR))));
        let goaway = |last, code| {
            let frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, code];
            outcome(true, &[&settings[..], &frame].concat())
        };
        assert_eq!(goaway(1, 0), None, "the response still comes");
        assert_eq!(goaway(0, 0), Some(Err(Failure::Unprocessed)));
        assert_eq!(goaway(1, 2), Some(Err(Failure::GoAway(ErrorCode::INTERNAL_ERROR))));
    }
}
