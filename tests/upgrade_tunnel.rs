//! Upgrades (RFC 9110, 7.8): a tunnel begins after the backend's 101, and not before.

use crate::support::{Backend, Balancer, Fault, Gate, Mode, Peer, Random, Wire, modes, response, wait_until};
use std::sync::mpsc::channel;
use std::time::Duration;

const UPGRADE: &str = "GET /socket HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A backend that switches protocols on request, runs `tunnel`, and also serves plain requests.
fn switching(tunnel: impl Fn(&mut Peer) + Send + Sync + 'static) -> Backend {
    Backend::serve(move |mut peer| {
        while let Some(request) = peer.request() {
            if request.has("Upgrade") {
                peer.send(SWITCHING);
                return tunnel(&mut peer);
            }
            peer.send(response("", b"plain"));
        }
    })
}

#[track_caller]
fn upgraded(balancer: &Balancer) -> Wire {
    let mut client = balancer.connect();
    client.send(UPGRADE);
    let answer = client.response("GET");
    assert_eq!(answer.status(), 101, "{answer:?}");
    assert!(answer.connection_has("upgrade"), "{answer:?}");
    assert_eq!(answer.value("Upgrade"), Some("websocket"));
    assert_eq!(answer.value("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client
}

#[test]
fn after_101_bytes_pass_both_ways() {
    for mode in modes() {
        let backend = switching(|peer| {
            peer.send("hello");
            while let Ok(bytes) = peer.some(4096) {
                peer.send(bytes.to_ascii_uppercase());
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = upgraded(&balancer);
        assert_eq!(client.exactly(5), Ok(b"hello".to_vec()), "{mode:?}: what stood right behind the 101");
        for text in ["a", "GET / HTTP/1.1\r\n\r\n", "\0\x01\u{ff}", "bye"] {
            client.send(text);
            assert_eq!(client.exactly(text.len()), Ok(text.as_bytes().to_ascii_uppercase()), "{mode:?}");
        }
        let request = backend.last();
        assert_eq!(request.value("Upgrade"), Some("websocket"));
        assert!(request.connection_has("upgrade"), "{request:?}");
        assert_eq!(request.value("Sec-WebSocket-Key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
        drop(client);
        backend.wait_until_idle();
        assert_eq!(balancer.get("/"), "plain");
        assert_eq!(backend.connections(), 2, "{mode:?}: a tunnel's connection is not used again");
    }
}

#[test]
fn a_tunnel_carries_much_at_once_in_both_directions() {
    for mode in modes() {
        let (up, down) = (Random::new(1).body(4 << 20), Random::new(2).body(4 << 20));
        let (sent_up, sent_down) = (up.clone(), down.clone());
        let backend = switching(move |peer| {
            let sender = Wire::shared(peer.socket().clone());
            std::thread::scope(|scope| {
                scope.spawn(|| sender.send(&sent_down));
                assert!(peer.exactly(up.len()) == Ok(up.clone()), "the bytes up are the ones sent");
            });
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = upgraded(&balancer);
        let sender = Wire::shared(client.socket().clone());
        std::thread::scope(|scope| {
            scope.spawn(|| sender.send(&sent_up));
            assert!(client.exactly(down.len()) == Ok(down), "{mode:?}: the bytes down are the ones sent");
        });
        assert_eq!(client.end(), Fault::Fin);
        backend.wait_until_idle();
    }
}

#[test]
fn one_direction_may_end_before_the_other() {
    for mode in modes() {
        let backend = switching(|peer| {
            let (bytes, fault) = peer.rest();
            assert_eq!(fault, Fault::Fin, "the client's end comes as an end");
            peer.send([b"got ", bytes.as_slice()].concat());
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = upgraded(&balancer);
        client.send("all of it");
        client.shutdown_write();
        assert_eq!(client.rest(), (b"got all of it".to_vec(), Fault::Fin), "{mode:?}");

        let backend = switching(|peer| {
            peer.send("first");
            peer.shutdown_write();
            assert_eq!(peer.rest(), (b"and then".to_vec(), Fault::Fin));
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = upgraded(&balancer);
        assert_eq!(client.rest(), (b"first".to_vec(), Fault::Fin), "{mode:?}");
        client.send("and then");
        client.shutdown_write();
        backend.wait_until_idle();
    }
}

#[test]
fn early_data_of_a_client_waits_for_the_101() {
    for mode in modes() {
        let backend = Backend::serve(|mut peer| {
            if peer.request().is_some() {
                assert!(peer.silent_for(Duration::from_millis(100)), "nothing passes before the 101");
                peer.send(SWITCHING);
                let early = peer.exactly(5).expect("what was sent early");
                peer.send(early);
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        client.send(format!("{UPGRADE}early"));
        assert_eq!(client.response("GET").status(), 101);
        assert_eq!(client.rest(), (b"early".to_vec(), Fault::Fin), "{mode:?}");
    }
}

#[test]
fn a_refused_upgrade_is_a_response_like_another() {
    for mode in modes() {
        let backend = Backend::named("no upgrade");
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        client.send(format!("{UPGRADE}GET /next HTTP/1.1\r\nHost: x\r\n\r\n"));
        let answer = client.response("GET");
        assert_eq!((answer.status(), answer.text().as_str()), (200, "no upgrade"), "{mode:?}");
        assert_eq!(client.response("GET").text(), "no upgrade", "{mode:?}: the connection goes on");
        assert_eq!(backend.last().target(), "/next");
    }
}

#[test]
fn h2c_upgrades_are_not_forwarded() {
    for mode in modes() {
        let backend = switching(|_| panic!("nothing to switch to"));
        let balancer = Balancer::before(mode, &[&backend], &[]);
        for upgrade in ["h2c", "H2C"] {
            let mut client = balancer.connect();
            client.send(format!(
                "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n\
                 HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            ));
            assert_eq!(client.response("GET").text(), "plain", "{mode:?}");
            let request = backend.last();
            assert!(!request.has("Upgrade") && !request.has("HTTP2-Settings"), "{request:?}");
            assert!(!request.connection_has("upgrade"), "{request:?}");
            assert_eq!(client.get("/next").text(), "plain");
        }
    }
}

#[test]
fn an_upgrade_field_that_connection_does_not_name_is_no_upgrade() {
    let backend = switching(|_| panic!("nobody asked"));
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let mut client = balancer.connect();
    client.send("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.response("GET").text(), "plain");
}

#[test]
fn an_upgrade_in_http_1_0_is_no_upgrade() {
    let backend = switching(|_| panic!("HTTP/1.0 cannot ask"));
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let mut client = balancer.connect();
    client.send("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.response("GET").text(), "plain");
}

#[test]
fn a_tunnel_ends_when_either_side_is_gone() {
    for mode in modes() {
        // Neither side may take a cut for the end of the content.
        let (ends, end) = channel();
        let backend = switching(move |peer| ends.send(peer.end()).expect("the test waits for it"));
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let client = upgraded(&balancer);
        client.reset();
        assert_eq!(end.recv_timeout(Duration::from_secs(20)), Ok(Fault::Reset), "{mode:?}");

        let backend = Backend::serve(|mut peer| {
            if peer.request().is_some() {
                peer.send(SWITCHING);
                let _ = peer.exactly(2);
                peer.reset();
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = upgraded(&balancer);
        client.send("go");
        assert_eq!(client.end(), Fault::Reset, "{mode:?}");
    }
}

#[test]
fn a_tunnel_that_is_stuck_ends_with_its_backend() {
    for mode in modes() {
        // If our direction has ended before, a reset is not reported as an error of the connection.
        for ended in [false, true] {
            let stuck = Gate::shut();
            let gate = stuck.clone();
            let backend = Backend::serve(move |mut peer| {
                if peer.request().is_some() {
                    peer.send(SWITCHING);
                    if ended {
                        peer.shutdown_write();
                    }
                    gate.pass();
                    peer.reset();
                }
            });
            let balancer = Balancer::before(mode, &[&backend], &[]);
            let mut client = upgraded(&balancer);
            balancer.fill(&client);
            client.shutdown_write();
            let in_flight = || balancer.metric("zzz_lb_in_flight", "");
            assert_eq!(in_flight(), 1, "{mode:?}");
            stuck.open();
            assert_eq!(client.end(), if ended { Fault::Fin } else { Fault::Reset }, "{mode:?}");
            wait_until("the tunnel has ended", || in_flight() == 0);
        }
    }
}

#[test]
fn a_101_that_names_no_protocol_is_502() {
    for mode in modes() {
        for protocol in ["", "Upgrade:\r\n", "Upgrade: ,\r\n"] {
            let reply = format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{protocol}\r\nhello");
            let backend = Backend::replying(reply);
            let balancer = Balancer::before(mode, &[&backend], &[]);
            let mut client = balancer.connect();
            client.send(UPGRADE);
            let answer = client.response("GET");
            assert_eq!(answer.status(), 502, "{mode:?} {protocol:?}: {answer:?}");
            assert!(!answer.text().contains("hello"), "{answer:?}");
        }
    }
}
