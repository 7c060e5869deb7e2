//! Clients over HTTP/2 with prior knowledge, on the port that also serves HTTP/1.

use crate::support::frames::fields;
use crate::support::{Backend, Balancer, Exit, Wire, modes, wait_until};
use zzz_lb::http2::frame::{self, END_HEADERS, END_STREAM, HEADER_BYTES, Header, Kind, PREFACE};

fn frame_of(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(&mut out, kind, flags, stream, payload);
    out
}

/// The preface, SETTINGS and a request with content.
fn post(content: &[u8]) -> Vec<u8> {
    let head = fields(&[(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", "/p")]);
    [
        PREFACE.to_vec(),
        frame_of(Kind::Settings, 0, 0, &[]),
        frame_of(Kind::Headers, END_HEADERS, 1, &head),
        frame_of(Kind::Data, END_STREAM, 1, content),
    ]
    .concat()
}

/// Reads until the end of stream 1. Returns its content.
fn response(client: &mut Wire) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        let header = Header::read(&client.exactly(HEADER_BYTES).expect("a frame")).expect("a header");
        let payload = client.exactly(header.length as usize).expect("a payload");
        match (header.kind, header.stream) {
            // The static table has 200 at this index.
            (Kind::Headers, 1) => assert_eq!(payload[0], 0x88),
            (Kind::Data, 1) => content.extend(payload),
            (Kind::RstStream | Kind::Goaway, _) => panic!("{header:?} {payload:?}"),
            _ => continue,
        }
        if header.has(END_STREAM) {
            return content;
        }
    }
}

/// Reads frames up to one that is wanted. Returns its payload.
fn read_until(client: &mut Wire, mut is_wanted: impl FnMut(Header) -> bool) -> Vec<u8> {
    loop {
        let header = Header::read(&client.exactly(HEADER_BYTES).expect("a frame")).expect("a header");
        let payload = client.exactly(header.length as usize).expect("a payload");
        if is_wanted(header) {
            return payload;
        }
    }
}

#[test]
fn a_client_with_prior_knowledge_is_served_however_its_bytes_are_cut() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &[]);
        for step in [1, 7, usize::MAX] {
            let mut client = balancer.connect();
            post(b"hello").chunks(step).for_each(|piece| client.send(piece));
            assert_eq!(response(&mut client), b"backend");
        }
        // The same port serves HTTP/1.
        assert_eq!(balancer.get("/"), "backend");
        assert_eq!(balancer.metric("zzz_lb_h2_streams_total", ""), 3);
    }
}

#[test]
fn resets_and_a_flood_are_counted_and_other_clients_are_served() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let client = balancer.connect();
        let head = fields(&[(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", "/p")]);
        client.send(PREFACE);
        client.send(frame_of(Kind::Settings, 0, 0, &[]));
        client.send(frame_of(Kind::Headers, END_HEADERS, 1, &head));
        client.send(frame_of(Kind::RstStream, 0, 1, &[0, 0, 0, 8]));
        wait_until("it is counted", || balancer.metric("zzz_lb_h2_resets_total", "by=\"client\"") == 1);
        let _ = client.try_send(frame_of(Kind::Ping, 0, 0, &[0; 8]).repeat(20_000));
        wait_until("it is counted", || balancer.metric("zzz_lb_h2_goaways_total", "reason=\"ping\"") == 1);
        assert_eq!(balancer.get("/"), "backend");
    }
}

/// A request was under way while the drain began, so nothing else made the worker send. The GOAWAY stayed in its queue,
/// and came together with the one that excludes streams.
#[test]
fn a_drain_is_announced_while_the_client_may_still_open_streams() {
    for mode in modes() {
        for (signal, text) in [(libc::SIGTERM, "process: draining"), (libc::SIGUSR2, "")] {
            let backend = Backend::named("backend");
            let mut balancer = Balancer::before(mode, &[&backend], &[]);
            let mut client = balancer.connect();
            let head = |path| fields(&[(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", path)]);
            client.send(PREFACE);
            client.send(frame_of(Kind::Settings, 0, 0, &[]));
            client.send(frame_of(Kind::Headers, END_HEADERS, 3, &head("/upload")));
            wait_until("it is served", || balancer.metric("zzz_lb_h2_streams_total", "") == 1);
            balancer.signal(signal);
            balancer.wait_for_log(text);
            // The PING behind it is not acknowledged, so the last stream is open for a second.
            let goaway = read_until(&mut client, |header| header.kind == Kind::Goaway);
            assert_eq!(goaway[..4], [0x7f, 0xff, 0xff, 0xff], "{mode:?}");
            client.send(frame_of(Kind::Headers, END_HEADERS | END_STREAM, 5, &head("/late")));
            let status = read_until(&mut client, |header| {
                assert_ne!(header.kind, Kind::Goaway, "{mode:?}: the second stream is served first");
                header.kind == Kind::Headers
            });
            assert_eq!(status[0], 0x88, "{mode:?}");
            client.send(frame_of(Kind::Data, END_STREAM, 3, b"end"));
            read_until(&mut client, |header| header.stream == 3 && header.has(END_STREAM));
            if signal == libc::SIGTERM {
                assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}");
            }
        }
    }
}
