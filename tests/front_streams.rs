//! Streams of clients over HTTP/2, frame by frame: trailers without content, heads beyond a limit, closed windows.

use crate::support::frames::fields;
use crate::support::{Backend, Balancer, PROTOCOLS, Way, Wire, modes, response, wait_until};
use zzz_lb::hpack::Decoder;
use zzz_lb::http2::ErrorCode;
use zzz_lb::http2::frame::{self, END_HEADERS, END_STREAM, HEADER_BYTES, Header, Kind, PREFACE};

const FRAME_BYTES: usize = 16_384;

/// A client over HTTP/2 with prior knowledge.
struct Client {
    wire: Wire,
    decoder: Decoder,
}

impl Client {
    fn new(balancer: &Balancer, settings: &[u8]) -> Client {
        let wire = balancer.connect();
        wire.send(PREFACE);
        let client = Client { wire, decoder: Decoder::new(4096) };
        client.send(Kind::Settings, 0, 0, settings);
        client
    }

    fn send(&self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        let mut out = Vec::new();
        frame::write(&mut out, kind, flags, stream, payload);
        self.wire.send(out);
    }

    fn get(&self, stream: u32, path: &str) {
        self.send(Kind::Headers, END_HEADERS | END_STREAM, stream, &request("GET", path, &[]));
    }

    /// The next frame for a stream, and its fields if it has some. Other frames are passed over.
    fn next(&mut self, stream: u32) -> (Header, Vec<u8>, Vec<(String, String)>) {
        loop {
            let header = Header::read(&self.wire.exactly(HEADER_BYTES).expect("a frame")).expect("a header");
            let payload = self.wire.exactly(header.length as usize).expect("a payload");
            let mut list = Vec::new();
            if header.kind == Kind::Headers {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
                let sink = |name: &[u8], value: &[u8]| list.push((text(name), text(value)));
                self.decoder.decode(&payload, usize::MAX, sink).expect("fields");
            }
            assert_ne!(header.kind, Kind::Goaway, "{payload:?}");
            if header.stream == stream {
                return (header, payload, list);
            }
        }
    }

    /// The status and the content of the response on a stream.
    fn response(&mut self, stream: u32) -> (String, Vec<u8>) {
        let (mut status, mut content) = (String::new(), Vec::new());
        loop {
            let (header, payload, list) = self.next(stream);
            match header.kind {
                Kind::Headers => status.clone_from(&list[0].1),
                Kind::Data => content.extend(payload),
                _ => panic!("{header:?} {payload:?}"),
            }
            if header.has(END_STREAM) {
                return (status, content);
            }
        }
    }
}

fn request(method: &str, path: &str, rest: &[(&str, &str)]) -> Vec<u8> {
    let start = [(":method", method), (":scheme", "http"), (":authority", "x"), (":path", path)];
    fields(&[&start[..], rest].concat())
}

#[test]
fn trailers_without_content_pass_in_both_directions() {
    for (at, protocol) in PROTOCOLS.into_iter().enumerate() {
        let backend = Backend::echo();
        let way = Way::to(&backend, protocol);
        let balancer = Balancer::start(modes()[at % 2], &way.args());
        let mut client = Client::new(&balancer, &[]);
        for stream in [1, 3] {
            client.send(Kind::Headers, END_HEADERS, stream, &request("POST", "/p", &[("te", "trailers")]));
            client.send(Kind::Headers, END_HEADERS | END_STREAM, stream, &fields(&[("x-sum", "abc")]));
            let (header, _, list) = client.next(stream);
            assert_eq!((header.kind, list[0].1.as_str()), (Kind::Headers, "200"), "{protocol:?}");
            assert!(!header.has(END_STREAM), "{protocol:?}");
            let (header, _, list) = client.next(stream);
            assert_eq!(header.kind, Kind::Headers, "{protocol:?}: no content precedes the trailers");
            assert!(header.has(END_STREAM), "{protocol:?}");
            // The backend sends the trailers back that it has received.
            assert_eq!(list, [("x-sum".to_string(), "abc".to_string())], "{protocol:?}");
        }
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0);
    }
}

/// A literal field that the decoder adds to its table.
fn indexed(name: &str, value: &str) -> Vec<u8> {
    [&[0x40, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

#[test]
fn a_head_beyond_a_limit_gets_431_and_its_connection_goes_on() {
    let many: Vec<(&str, &str)> = vec![("x", "y"); 101];
    let value = "v".repeat(8000);
    let large: Vec<(&str, &str)> = vec![("x-large", &value); 9];
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = Client::new(&balancer, &[]);
        for (at, rest) in [&many, &large].into_iter().enumerate() {
            let stream = 4 * at as u32 + 1;
            // The table of the decoder has to follow a block that is refused.
            let name = format!("x-state-{at}");
            let block = [request("GET", "/refused", rest), indexed(&name, "kept")].concat();
            let mut kind = Kind::Headers;
            let pieces: Vec<&[u8]> = block.chunks(FRAME_BYTES).collect();
            for (nth, piece) in pieces.iter().enumerate() {
                let flags = if nth + 1 == pieces.len() { END_HEADERS } else { 0 };
                client.send(kind, flags | if nth == 0 { END_STREAM } else { 0 }, stream, piece);
                kind = Kind::Continuation;
            }
            assert_eq!(client.response(stream).0, "431");
            let block = [request("GET", "/next", &[]), vec![0x80 | 62]].concat();
            client.send(Kind::Headers, END_HEADERS | END_STREAM, stream + 2, &block);
            assert_eq!(client.response(stream + 2), ("200".to_string(), b"backend".to_vec()));
            assert_eq!(backend.last().value(&name), Some("kept"));
        }
        assert_eq!(backend.count(), 2);
        assert_eq!(balancer.metric("zzz_lb_own_responses_total", "code=\"431\""), 2);
        assert_eq!(balancer.metric("zzz_lb_h2_goaways_total", ""), 0);
    }
}

#[test]
fn a_stream_whose_window_stays_closed_is_reset_at_its_timeout_and_others_go_on() {
    for mode in modes() {
        let backend = Backend::replying(response("", &[b'x'; 100_000]));
        let balancer = Balancer::before(mode, &[&backend], &["--response-timeout", "1s"]);
        let mut client = Client::new(&balancer, &[0, 4, 0, 0, 0, 0]);
        client.get(1, "/closed");
        client.get(3, "/open");
        client.send(Kind::WindowUpdate, 0, 0, &1_000_000_u32.to_be_bytes());
        client.send(Kind::WindowUpdate, 0, 3, &1_000_000_u32.to_be_bytes());
        let (status, content) = client.response(3);
        assert_eq!((status.as_str(), content.len()), ("200", 100_000));
        // On the other stream, only its head and its reset arrive. The head may have been passed over.
        let (mut header, mut payload, _) = client.next(1);
        if header.kind == Kind::Headers {
            (header, payload, _) = client.next(1);
        }
        assert_eq!((header.kind, payload), (Kind::RstStream, ErrorCode::CANCEL.0.to_be_bytes().to_vec()));
        client.get(5, "/later");
        client.send(Kind::WindowUpdate, 0, 5, &1_000_000_u32.to_be_bytes());
        assert_eq!(client.response(5).1.len(), 100_000);
        wait_until("it is counted", || balancer.metric("zzz_lb_client_aborts_total", "reason=\"stalled\"") == 1);
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0, "the backend is not to blame");
        assert_eq!(balancer.metric("zzz_lb_h2_resets_total", "by=\"proxy\""), 1);
    }
}
