//! Every time limit: the response if one side is too slow.

use crate::smuggling::assert_own_answer;
use crate::support::{Backend, Balancer, Fault, Framing, Gate, Mode, ignore_when_full, modes, response, shrink_room};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// The limits in these tests, and the minimum time before one may expire.
const LIMIT: &str = "400ms";
const LEAST: Duration = Duration::from_millis(350);

/// A backend that reads requests and answers none until the gate opens.
fn silent(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::serve(move |mut peer| {
        while peer.request().is_some() {
            if peer.nth > 0 || gate.pass() {
                let _ = peer.try_send(response("", b"late"));
            }
        }
    })
}

#[test]
fn a_request_head_that_takes_too_long_is_408() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &["--request-timeout", LIMIT]);
        for part in ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: x\r\n", "GET / HTTP/1.1\r\nHost: x\r\nX: "] {
            let start = Instant::now();
            let mut client = balancer.connect();
            client.send(part);
            let answer = client.response("GET");
            assert_own_answer(part, &answer, &[408]);
            assert!(start.elapsed() > LEAST, "{part}: {:?}", start.elapsed());
            assert!(answer.connection_has("close"));
            assert_eq!(client.end(), Fault::Fin, "{part}");
        }
        assert_eq!(backend.connections(), 0);
    }
}

#[test]
fn bytes_that_drip_do_not_extend_the_limit_of_a_head() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Sp, &[&backend], &["--request-timeout", LIMIT]);
    let mut client = balancer.connect();
    client.send("GET / HTTP/1.1\r\nHost: x\r\nX: ");
    let start = Instant::now();
    while client.silent_for(Duration::from_millis(20)) {
        assert!(start.elapsed() < Duration::from_secs(10), "never answered");
        let _ = client.try_send("y");
    }
    assert_own_answer("drip", &client.response("GET"), &[408]);
}

#[test]
fn the_limit_of_a_head_holds_for_later_requests_too() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Sp, &[&backend], &["--request-timeout", LIMIT]);
    let mut client = balancer.connect();
    assert_eq!(client.get("/").status(), 200);
    client.send("GET / HTTP/1.1\r\n");
    assert_own_answer("second head", &client.response("GET"), &[408]);
    assert_eq!(client.end(), Fault::Fin);
}

#[test]
fn a_connection_on_which_nothing_comes_is_closed() {
    let backend = Backend::named("backend");
    let args = ["--request-timeout", LIMIT, "--idle-timeout", LIMIT];
    let balancer = Balancer::before(Mode::Sp, &[&backend], &args);
    let mut client = balancer.connect();
    assert_eq!(client.rest(), (Vec::new(), Fault::Fin), "it has asked nothing");
}

#[test]
fn an_idle_connection_is_closed_after_its_limit() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &["--idle-timeout", LIMIT]);
        let mut client = balancer.connect();
        for _ in 0..2 {
            assert_eq!(client.get("/").status(), 200);
        }
        let start = Instant::now();
        assert_eq!(client.end(), Fault::Fin, "{mode:?}");
        assert!(start.elapsed() > LEAST, "{:?}", start.elapsed());
    }
}

#[test]
fn a_backend_that_does_not_answer_is_504() {
    for mode in modes() {
        let gate = Gate::shut();
        let backend = silent(&gate);
        let balancer = Balancer::before(mode, &[&backend], &["--response-timeout", LIMIT]);
        let start = Instant::now();
        let mut client = balancer.connect();
        let answer = client.post("/slow", b"order");
        assert_own_answer(&format!("{mode:?}"), &answer, &[504]);
        assert!(start.elapsed() > LEAST, "{:?}", start.elapsed());
        assert_eq!(backend.count(), 1, "and it is not sent again");
        gate.open();
        backend.wait_until_idle();
        // The late response reaches no client.
        assert_eq!(balancer.get("/next"), "late");
        assert_eq!(backend.connections(), 2);
    }
}

#[test]
fn a_response_that_stalls_is_cut() {
    for mode in modes() {
        let backend = Backend::serve(|mut peer| {
            while peer.request().is_some() {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &["--response-timeout", LIMIT]);
        let mut client = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        match client.try_response("GET") {
            Err((Fault::Fin | Fault::Reset, Some(part))) => assert_eq!(part.text(), "hello"),
            other => panic!("{mode:?}: {other:?}"),
        }
        backend.wait_until_idle();
    }
}

#[test]
fn a_response_that_trickles_is_not_cut() {
    let backend = Backend::serve(|mut peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
            // The test is a total above the limit in steps that are each far below it.
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(300));
                peer.send("t");
            }
        }
    });
    let balancer = Balancer::before(Mode::Sp, &[&backend], &["--response-timeout", "2500ms"]);
    assert_eq!(balancer.get("/"), "tttttttttt");
}

#[test]
fn an_upload_that_stalls_is_408() {
    for mode in modes() {
        let backend = Backend::echo();
        let balancer = Balancer::before(mode, &[&backend], &["--response-timeout", LIMIT]);
        for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
            // An echo answers at once and would prove nothing. This backend waits for the whole body.
            let waiting = Backend::named("whole");
            let balancer_before_waiting = Balancer::before(mode, &[&waiting], &["--response-timeout", LIMIT]);
            let mut client = balancer_before_waiting.connect();
            client.send(format!("POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n5\r\nhe"));
            let answer = client.response("POST");
            assert_own_answer(&format!("{mode:?}, {framing}"), &answer, &[408]);
            assert_eq!(client.end(), Fault::Fin);
            waiting.wait_until_idle();
            assert_eq!(waiting.count(), 0, "the backend never sees it whole");

            let mut client = balancer.connect();
            client.send(format!("POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n5\r\nhe"));
            match client.try_response("POST") {
                Err((Fault::Fin | Fault::Reset, part)) => {
                    assert!(part.is_none_or(|part| part.body.framing != Framing::Close))
                }
                other => panic!("{mode:?}, {framing}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_backend_that_does_not_take_the_connection_is_passed_over() {
    for mode in modes() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let (address, _held) = ignore_when_full(&listener);
        let address = address.to_string();
        let backend = Backend::echo();
        let args = ["-b", &address, "-b", &backend.spec(), "--connect-timeout", "300ms"];
        let balancer = Balancer::start(mode, &args);
        for n in 0..2 {
            assert_eq!(balancer.connect().post(&format!("/{n}"), b"body").text(), "body", "{mode:?}");
        }
        let balancer = Balancer::start(mode, &["-b", &address, "--connect-timeout", "300ms"]);
        let mut client = balancer.connect();
        let answer = client.get("/");
        assert_own_answer(&format!("{mode:?}"), &answer, &[504]);
    }
}

#[test]
fn a_slow_answer_within_the_limit_is_served() {
    for mode in modes() {
        let gate = Gate::shut();
        let backend = silent(&gate);
        let balancer = Balancer::before(mode, &[&backend], &["--request-timeout", "300ms", "--idle-timeout", "300ms"]);
        let mut client = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        // Neither limit concerns a response: it may take longer than both.
        assert!(client.silent_for(Duration::from_millis(700)), "{mode:?}");
        gate.open();
        assert_eq!(client.response("GET").text(), "late", "{mode:?}");
    }
}

/// More content than the system holds for a connection.
const MUCH: usize = 12_000_000;

/// Reads a message with much content: steadily and slowly for four seconds, then the rest.
fn read_slowly(stream: &mut TcpStream) -> usize {
    let (start, mut bytes, mut got) = (Instant::now(), vec![0; 20_000], 0);
    while got < MUCH {
        match stream.read(&mut bytes) {
            Ok(n) if n > 0 => got += n,
            _ => return got,
        }
        if start.elapsed() < Duration::from_secs(4) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    got
}

/// The system holds megabytes for it, and reports room for more only when a third of them are gone.
#[test]
fn a_peer_that_reads_slowly_and_steadily_is_not_cut() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    shrink_room(listener.as_fd(), 16 * 1024);
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the balancer connects");
        assert!(read_slowly(&mut stream) >= MUCH, "the backend gets all");
        stream.write_all(&response("", b"slow")).expect("the balancer waits for it");
    });
    let spec = format!("127.0.0.1:{port}");
    let balancer = Balancer::start(Mode::Sp, &["-b", &spec, "--response-timeout", "1s"]);
    let answer = balancer.connect().post("/", &vec![b'x'; MUCH]);
    assert_eq!((answer.status(), answer.text().as_str()), (200, "slow"));

    let backend = Backend::replying(response("", &vec![b'x'; MUCH]));
    let balancer = Balancer::before(Mode::Sp, &[&backend], &["--response-timeout", "1s"]);
    let mut client = TcpStream::connect(balancer.address()).expect("the balancer listens");
    shrink_room(client.as_fd(), 16 * 1024);
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("the balancer reads");
    assert!(read_slowly(&mut client) >= MUCH, "the client gets all");
}
