//! Every exit of an exchange completes exactly one record.

use super::super::abort::Abort;
use super::super::record::Reason;
use super::super::reply::LocalReply;
use super::*;
use crate::http::message_error::MessageError;
use crate::limits::{DEFAULT_HALF_CLOSE_US, DEFAULT_RESPONSE_US, TUNNEL_IDLE_US};

const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
const UPLOAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf";
const SWITCH: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";

type Play = fn(&mut World);

/// Each way in which an exchange ends, with the status and the reason of its record.
fn exits() -> Vec<(&'static str, Play, u16, Reason)> {
    let failed = |failure| Reason::Replied(LocalReply::Failed(failure));
    let refused = |error| Reason::Replied(LocalReply::Refused(error));
    vec![
        ("complete", |world| _ = world.exchange(GET, OK), 200, Reason::Complete),
        ("page", |world| _ = world.metric("zzz_lb_client_connections_total"), 200, Reason::Page),
        ("small page", admin_page, 200, Reason::Replied(LocalReply::Alive)),
        ("tunnel, client", |world| tunnel(world, |world, client, _| world.end(client)), 101, Reason::Tunnel),
        ("tunnel, idle", |world| tunnel(world, |world, _, _| world.pass(2 * TUNNEL_IDLE_US)), 101, Reason::Tunnel),
        (
            "tunnel, backend",
            |world| tunnel(world, |world, _, backend| world.fail(backend, Failure::Broken(104))),
            101,
            Reason::Tunnel,
        ),
        ("not connected", |world| fail_dial(world, Failure::Connect(111)), 502, failed(Failure::Connect(111))),
        ("no response", |world| respond(world, "", DEFAULT_RESPONSE_US), 504, failed(Failure::Timeout)),
        ("response cut", |world| respond(world, HALF, DEFAULT_RESPONSE_US), 200, failed(Failure::Timeout)),
        (
            "malformed response",
            |world| respond(world, "nonsense\r\n\r\n", 0),
            502,
            failed(Failure::Malformed(MessageError::StatusLine)),
        ),
        ("upload cut short", upload_cut_short, 400, Reason::ClientLeft(Abort::Incomplete)),
        ("upload late", |world| upload(world, "", DEFAULT_RESPONSE_US), 408, Reason::Replied(LocalReply::ContentLate)),
        ("upload malformed", chunk_malformed, 400, refused(MessageError::ChunkSize)),
        ("client half-closed", half_closed, 499, Reason::ClientLeft(Abort::Closed)),
        ("client reset", client_reset, 499, Reason::ClientLeft(Abort::Reset)),
        ("client stalled", client_stalled, 200, Reason::ClientLeft(Abort::Stalled)),
        ("stopped", |world| stop(world, ""), 499, Reason::Stopped),
        ("stopped, response begun", |world| stop(world, HALF), 200, Reason::Stopped),
    ]
}

fn admin_page(world: &mut World) {
    let client = world.proxy.accept_admin(SocketAddr::from(([127, 0, 0, 1], 50_000)));
    assert!(world.give(client, "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"));
}

fn tunnel(world: &mut World, end: fn(&mut World, Key, Key)) {
    let (client, backend) = world.exchange(SWITCH, SWITCHED);
    assert!(world.proxy.take_records().is_empty(), "a tunnel is not over with its head");
    end(world, client, backend);
    world.end(backend);
    world.end(client);
}

fn fail_dial(world: &mut World, failure: Failure) {
    world.asking(GET);
    let (backend, _) = world.dial();
    world.fail(backend, failure);
}

fn respond(world: &mut World, response: &str, wait_us: u64) {
    world.asking("PUT / HTTP/1.1\r\nHost: a\r\n\r\n");
    let backend = world.connect();
    world.give(backend, response);
    world.pass(wait_us + SECOND_US);
}

fn upload(world: &mut World, response: &str, wait_us: u64) {
    world.asking(UPLOAD);
    let backend = world.connect();
    world.give(backend, response);
    world.pass(wait_us + SECOND_US);
}

fn upload_cut_short(world: &mut World) {
    let client = world.asking(UPLOAD);
    world.connect();
    world.end(client);
}

fn chunk_malformed(world: &mut World) {
    let client = world.asking("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    world.connect();
    world.give(client, "x\r\n");
}

fn half_closed(world: &mut World) {
    let client = world.asking(GET);
    world.connect();
    world.proxy.closing(client);
    world.pass(DEFAULT_HALF_CLOSE_US + SECOND_US);
}

fn client_reset(world: &mut World) {
    let client = world.asking(GET);
    world.connect();
    world.fail(client, Failure::Broken(104));
}

fn client_stalled(world: &mut World) {
    world.full = true;
    world.asking(GET);
    world.full = false;
    let backend = world.connect();
    world.full = true;
    world.give(backend, HALF);
    world.pass(DEFAULT_RESPONSE_US + SECOND_US);
}

fn stop(world: &mut World, response: &str) {
    world.asking(GET);
    let backend = world.connect();
    world.give(backend, response);
    assert_eq!(world.proxy.stop(), 1);
}

#[test]
fn every_exit_of_an_exchange_completes_one_record() {
    for (name, play, status, reason) in exits() {
        let mut world = World::new(1, |_| {});
        world.proxy.keep_records();
        world.pass(7);
        play(&mut world);
        world.carry_out();
        let records = world.proxy.take_records();
        assert_eq!(records.len(), 1, "{name}: {records:?}");
        assert_eq!((records[0].status, records[0].reason), (status, Some(reason)), "{name}");
        assert!(records[0].began_us >= 7 && records[0].ended_us >= records[0].began_us, "{name}: {records:?}");
        assert_eq!(world.proxy.requests(), 0, "{name}");
    }
}

#[test]
fn a_record_has_the_bytes_the_times_and_the_slot() {
    let mut world = World::new(1, |_| {});
    world.proxy.keep_records();
    world.asking(POST);
    world.pass(1000);
    let backend = world.connect();
    world.pass(2000);
    assert!(world.give(backend, OK));
    let records = world.proxy.take_records();
    let (slot, reason) = (Some(0), Some(Reason::Complete));
    let expected = Record {
        began_us: 0,
        sent_us: 1000,
        ended_us: 3000,
        status: 200,
        grpc_status: None,
        slot,
        received: 2,
        sent: 2,
        reason,
    };
    assert_eq!(records, [expected]);
}

#[test]
fn a_try_that_fails_completes_no_record() {
    let mut world = World::new(2, |_| {});
    world.proxy.keep_records();
    fail_dial(&mut world, Failure::Connect(111));
    assert_eq!(world.proxy.take_records(), []);
    let backend = world.connect();
    assert!(world.give(backend, OK));
    assert_eq!(world.proxy.take_records().len(), 1);
}
