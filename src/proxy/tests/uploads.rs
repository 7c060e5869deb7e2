//! Responses that are complete before the upload, and content before a tunnel.

use super::*;
use crate::limits::TIMER_TICK_US;

const PART: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01";
const NONE: &str = "HTTP/1.1 204 None\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 201 Made\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";

#[test]
fn an_upload_goes_on_after_a_complete_2xx() {
    for response in [OK, NONE, CHUNKED] {
        let mut world = World::new(1, |_| {});
        let (client, backend) = world.exchange(PART, response);
        assert!(!world.sent(client).contains("close"), "{response:?}");
        assert_eq!(world.metric("zzz_lb_in_flight{"), 1);
        for piece in ["234", "567", &format!("89{GET}")] {
            assert!(world.give(client, piece));
        }
        // Both connections go on after that.
        let sent = world.sent(backend);
        assert!(sent.contains("0123456789GET ") && world.dials.is_empty(), "{response:?} {sent}");
        assert!(world.give(backend, OK));
        assert!(world.sent(client).ends_with("ok"));
        assert!(!world.did(Output::Close(client)) && !world.did(Output::Close(backend)));
        assert_eq!((world.metric("zzz_lb_in_flight{"), world.metric("zzz_lb_failures_total{")), (0, 0));
    }
}

#[test]
fn chunks_and_trailers_behind_a_complete_response_arrive() {
    let mut world = World::new(1, |_| {});
    let post = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n01\r\n";
    let (client, backend) = world.exchange(post, OK);
    assert!(world.give(client, "3\r\n234\r\n0\r\nX-Sum: 1\r\n\r\n"));
    assert!(world.sent(backend).ends_with("2\r\n01\r\n3\r\n234\r\n0\r\nX-Sum: 1\r\n\r\n"));
    assert!(world.give(client, GET));
    assert!(world.sent(backend).starts_with("GET "));
}

#[test]
fn a_backend_that_reads_no_more_ends_the_client_s_connection() {
    type Leave = fn(&mut World, Key);
    let end: Leave = |world, backend| world.end(backend);
    let fail: Leave = |world, backend| world.fail(backend, Failure::Broken(104));
    let unsendable: Leave = |world, backend| {
        world.proxy.unsendable(backend);
        world.carry_out();
    };
    let known: Leave = |_, _| {};
    for (leave, early) in [(end, false), (fail, false), (unsendable, false), (known, true)] {
        let mut world = World::new(1, |_| {});
        let client = world.asking(PART);
        let backend = world.connect();
        if early {
            world.proxy.closing(backend);
        }
        assert!(world.give(backend, OK));
        leave(&mut world, backend);
        assert!(world.did(Output::Close(backend)) && world.did(Output::Finish(client)));
        assert!(world.sent(client).ends_with("ok"));
        assert_eq!((world.metric("zzz_lb_in_flight{"), world.metric("zzz_lb_failures_total{")), (0, 0));
        assert_eq!(world.log(), "");
    }
}

#[test]
fn a_client_is_told_if_the_rest_is_of_no_use() {
    let told = |response: &str| {
        let mut world = World::new(1, |_| {});
        let (client, backend) = world.exchange(PART, response);
        let closed = world.sent(client).contains("Connection: close");
        // The rest goes to a backend that ends its connection only after it.
        let goes_on = !world.did(Output::Close(backend));
        world.give(client, "23456789");
        assert_eq!(world.sent(backend).contains("0123456789"), goes_on);
        assert_eq!(world.did(Output::Finish(client)), closed, "{response:?}");
        (closed, goes_on)
    };
    let close = OK.replacen("Content", "Connection: close\r\nContent", 1);
    assert_eq!(told(OK), (false, true));
    assert_eq!(told(&close), (true, true));
    assert_eq!(told(&OK.replacen("200 OK", "303 Other", 1)), (true, false));
    assert_eq!(told(&OK.replacen("200 OK", "413 Large", 1)), (true, false));
}

#[test]
fn content_that_a_slow_backend_has_not_taken_yet_is_not_lost() {
    let mut world = World::new(1, |_| {});
    let client = world.asking("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    let backend = world.connect();
    world.full = true;
    assert!(world.give(client, "0123456789"));
    assert!(world.give(backend, OK));
    assert!(!world.did(Output::Close(backend)));
    world.drain();
    assert!(world.sent(backend).ends_with("0123456789") && world.sent(client).ends_with("ok"));
    assert!(world.give(client, GET));
    assert!(world.sent(backend).starts_with("GET "));
}

#[test]
fn an_upload_that_stops_after_its_response_ends_in_time() {
    for taken in [true, false] {
        let mut world = World::new(1, |_| {});
        let (client, backend) = world.exchange(PART, OK);
        if !taken {
            // The backend takes nothing.
            world.full = true;
            assert!(world.give(client, "23456789"));
        }
        world.pass(world.proxy.settings.timeouts.response_us + 2 * TIMER_TICK_US);
        world.drain();
        assert!(world.did(Output::Close(backend)) && world.did(Output::Finish(client)), "{taken}");
        assert_eq!((world.metric("zzz_lb_in_flight{"), world.metric("zzz_lb_failures_total{")), (0, 0));
    }
}

#[test]
fn a_backend_that_sends_more_than_its_response_gets_no_other_request() {
    let mut world = World::new(1, |_| {});
    let (client, backend) = world.exchange(PART, OK);
    assert!(world.give(backend, OK));
    assert!(world.give(client, "23456789"));
    assert!(world.did(Output::Close(backend)));
    let sent = world.sent(client);
    assert_eq!(sent.matches("200 OK").count(), 1, "{sent}");
}

const EXEC: &str =
    "POST /exec HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 10\r\n\r\n01";
const SWITCHING: &str = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello";

#[test]
fn a_tunnel_begins_behind_content_of_known_length() {
    // The backend switches after all content, or before.
    for early in [false, true] {
        let mut world = World::new(1, |_| {});
        let client = world.asking(EXEC);
        let backend = world.connect();
        assert!(world.sent(backend).contains("Upgrade: tcp\r\n"));
        if !early {
            assert!(world.give(client, "23456789"));
        }
        assert!(world.give(backend, SWITCHING));
        assert!(world.sent(client).ends_with("hello"));
        if early {
            assert!(world.give(client, "23456789"));
        }
        assert!(world.give(client, "ping"));
        assert!(world.sent(backend).ends_with("23456789ping"));
        assert!(world.give(backend, "pong"));
        assert_eq!(world.sent(client), "pong");
        world.end(client);
        world.end(backend);
        assert!(world.did(Output::Close(client)) && world.did(Output::Close(backend)));
    }
}

#[test]
fn an_upgrade_with_content_may_be_declined() {
    let mut world = World::new(1, |_| {});
    let (client, backend) = world.exchange(EXEC, OK);
    assert!(world.give(client, &format!("23456789{GET}")));
    assert!(world.sent(backend).contains("0123456789GET "));
}

#[test]
fn chunked_content_is_not_offered_an_upgrade() {
    let mut world = World::new(1, |_| {});
    let request = EXEC.replace("Content-Length: 10", "Transfer-Encoding: chunked").replace("01", "2\r\n01\r\n");
    let client = world.asking(&request);
    let backend = world.connect();
    assert!(!world.sent(backend).contains("Upgrade"));
    world.give(backend, SWITCHING);
    assert!(world.sent(client).contains(" 502 "));
}
