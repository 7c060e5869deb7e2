//! Heads, trailers and whole connections from any bytes. Parsing at once and in two pieces gives the same
//! result, and every length and range is within the bytes.

use zzz_lb::http::fields::Span;
use zzz_lb::http::framing::{self, Body, RequestFacts};
use zzz_lb::http::head::{Head, HeadRef, Start};
use zzz_lb::http::message_error::MessageError;
use zzz_lb::http::part::Part;
use zzz_lb::http::part::Role;
use zzz_lb::http1::connection::Connection;
use zzz_lb::http1::parse;
use zzz_lb::limits::{HEAD_BYTES, HEAD_FIELDS, RESPONSE_FIELDS, TRAILER_BYTES};

/// Messages per input. More add nothing new.
const PARTS: usize = 2_000;

type Parser = fn(&[u8], &mut Head) -> Result<Option<usize>, MessageError>;

/// Panics if two results differ, or if one is out of bounds.
pub fn run(data: &[u8]) {
    run_with(data, true);
}

/// The same. If HEAD is not known, responses to it are read as any others, which must be noticed.
pub fn run_with(data: &[u8], knows_head: bool) {
    let (first, bytes) = data.split_first().unwrap_or((&0, &[]));
    heads(bytes);
    trailers(bytes);
    for (role, is_head) in [(Role::Server, false), (Role::Client, false), (Role::Client, true)] {
        for start in [None, Some(Body::Chunked), Some(Body::Length(u64::from(*first)))] {
            // An incomplete line is parsed once, and again when it ends. The line feed ends it.
            let bytes = [bytes, b"\n"].concat();
            let whole = read(role, is_head && knows_head, start, &[&bytes]);
            let cut = usize::from(*first) * bytes.len() / 256;
            let (one, two) = bytes.split_at(cut);
            assert_eq!(
                read(role, is_head && knows_head, start, &[one, two]),
                whole,
                "{role:?} from {start:?} cut at {cut}"
            );
            assert!(
                !is_head || start.is_some() || whole.parts.iter().all(|(name, _)| *name != "data"),
                "content to HEAD"
            );
        }
    }
}

fn heads(bytes: &[u8]) {
    for (parser, most) in [(parse::request as Parser, HEAD_FIELDS), (parse::response, RESPONSE_FIELDS)] {
        let mut head = Head::default();
        let Ok(Some(length)) = parser(bytes, &mut head) else { continue };
        assert!(length <= bytes.len() && length <= HEAD_BYTES && head.fields.len() <= most);
        assert!(bytes[..length].ends_with(b"\r\n\r\n"));
        let within = |span: Span| span.start <= span.end && span.end as usize <= length;
        match head.start {
            Start::Request { method, path, authority, protocol } => {
                assert!(
                    protocol.is_none()
                        && within(method)
                        && within(path)
                        && authority.is_none_or(within)
                        && !method.is_empty()
                );
            }
            Start::Response { status, reason } => assert!((100..1000).contains(&status) && within(reason)),
        }
        assert!(head.fields.iter().all(|field| within(field.name_span) && within(field.value_span)));
        let mut again = Head::default();
        assert_eq!(parser(&bytes[..length], &mut again), Ok(Some(length)), "what follows does not matter");
        assert_eq!(again.fields, head.fields);
        // Every prefix is valid but incomplete.
        assert_eq!(parser(&bytes[..length / 2], &mut again), Ok(None));
        assert_eq!(parser(&bytes[..length - 1], &mut again), Ok(None));
    }
}

fn trailers(bytes: &[u8]) {
    let mut fields = Vec::new();
    for role in [Role::Server, Role::Client] {
        if let Ok(Some(length)) = parse::trailers(bytes, role, &mut fields) {
            assert!(length <= bytes.len() && length <= TRAILER_BYTES && fields.len() <= HEAD_FIELDS);
            assert_eq!(parse::trailers(&bytes[..length], role, &mut fields), Ok(Some(length)));
            assert_eq!(parse::trailers(&bytes[..length - 1], role, &mut fields), Ok(None));
        }
    }
}

/// The result of reading a connection: its parts, with content joined, and the way it ended.
#[derive(Debug, Default, PartialEq)]
struct Story {
    parts: Vec<(&'static str, Vec<u8>)>,
    refusal: Option<MessageError>,
}

/// Reads pieces, either from a head on or after a head with the given framing. `is_head`: the messages are
/// responses to HEAD.
fn read(role: Role, is_head: bool, start: Option<Body>, pieces: &[&[u8]]) -> Story {
    let mut connection = Connection::new(role);
    start.into_iter().for_each(|body| connection.read_body(body));
    let (mut head, mut held, mut story) = (Head::default(), Vec::new(), Story::default());
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            let (skip, part) = match connection.decode(&held, &mut head) {
                Ok(decoded) => decoded,
                Err(refusal) => {
                    story.refusal = Some(refusal);
                    return story;
                }
            };
            assert!(skip <= held.len(), "only what there is is passed over");
            held.drain(..skip);
            let (name, length) = match part {
                Part::NeedMore => break,
                Part::Head(length) => ("head", length),
                Part::Interim(length) => ("interim", length),
                Part::Data(length) => ("data", length),
                Part::Trailers(length) => ("trailers", length),
                Part::End => ("end", 0),
            };
            if let Part::Head(length) = part {
                match body(role, is_head, HeadRef { bytes: &held[..length], head: &head }) {
                    Ok(body) => connection.read_body(body),
                    Err(refusal) => {
                        story.refusal = Some(refusal);
                        return story;
                    }
                }
            }
            let bytes: Vec<u8> = held.drain(..length).collect();
            match story.parts.last_mut() {
                Some((last, content)) if *last == "data" && name == "data" => content.extend(bytes),
                _ => story.parts.push((name, bytes)),
            }
            if part == Part::End {
                connection.next_message();
            }
            if story.parts.len() > PARTS {
                return story;
            }
        }
    }
    story
}

fn body(role: Role, is_head: bool, head: HeadRef<'_>) -> Result<Body, MessageError> {
    match role {
        Role::Server => framing::request(head).map(|facts| facts.body),
        Role::Client => framing::response(head, &RequestFacts::unread(is_head)).map(|facts| facts.body),
    }
}
