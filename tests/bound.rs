//! Clients with a backend connection of their own, because they authenticate it.

use crate::support::{Backend, Balancer, Mode, PROTOCOLS, Protocol, Way, Wire, modes, wait_until};

/// A backend that authenticates connections as NTLM does: in two steps, and then for all later requests.
fn ntlm() -> Backend {
    Backend::serve(|mut peer| {
        let (mut challenged, mut user) = (false, None);
        while let Some(request) = peer.request() {
            let credentials = request.value("Authorization").and_then(|value| value.strip_prefix("NTLM "));
            let (status, field) = match (credentials, &user) {
                (Some("negotiate"), _) => {
                    challenged = true;
                    (401, "WWW-Authenticate: NTLM challenge\r\n")
                }
                (Some(name), _) if challenged => {
                    user = Some(name.to_string());
                    (200, "")
                }
                (_, Some(_)) => (200, ""),
                _ => (401, "WWW-Authenticate: NTLM\r\n"),
            };
            let name = user.as_deref().filter(|_| status == 200).unwrap_or("nobody");
            let length = name.len();
            if peer.try_send(format!("HTTP/1.1 {status} X\r\n{field}Content-Length: {length}\r\n\r\n{name}")).is_err() {
                return;
            }
        }
    })
}

fn ask(client: &mut Wire, fields: &str) -> (u16, String) {
    client.send(format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
    let answer = client.response("GET");
    (answer.status(), answer.text())
}

#[test]
fn a_client_that_authenticates_a_connection_has_it_alone() {
    for protocol in [Protocol::H1, Protocol::H1Tls] {
        for mode in modes() {
            let (one, two) = (ntlm(), ntlm());
            let (first, second) = (Way::to(&one, protocol), Way::to(&two, protocol));
            let balancer = Balancer::start(mode, &["-k", "-b", first.spec(), "-b", second.spec()]);
            let mut clients: Vec<(String, Wire)> = (0..6).map(|n| (format!("user{n}"), balancer.connect())).collect();
            for (name, client) in &mut clients {
                assert_eq!(ask(client, "").0, 401, "{protocol:?} {mode:?}");
                assert_eq!(ask(client, "Authorization: NTLM negotiate\r\n").0, 401);
                let login = ask(client, &format!("Authorization: NTLM {name}\r\n"));
                assert_eq!(login, (200, name.clone()), "{protocol:?} {mode:?}");
            }
            for _ in 0..3 {
                for (name, client) in &mut clients {
                    assert_eq!(ask(client, ""), (200, name.clone()), "{protocol:?} {mode:?}");
                }
                let mut stranger = balancer.connect();
                assert_eq!(ask(&mut stranger, "").0, 401, "{protocol:?} {mode:?}: a stranger is somebody else");
            }
            drop(clients);
            wait_until("their connections close with them", || one.open() + two.open() <= 4);
            assert_eq!(ask(&mut balancer.connect(), "").0, 401, "{protocol:?} {mode:?}");
        }
    }
}

#[test]
fn other_credentials_bind_no_connection_over_any_protocol() {
    for protocol in PROTOCOLS {
        let backend = Backend::named("plain");
        let way = Way::to(&backend, protocol);
        let balancer = Balancer::start(Mode::Sp, &way.args());
        for _ in 0..5 {
            let mut client = balancer.connect();
            assert_eq!(ask(&mut client, "Authorization: Basic TlRMTQ==\r\n").0, 200, "{protocol:?}");
        }
        assert_eq!(balancer.metric("zzz_lb_connects_total", ""), 1, "{protocol:?}");
    }
}

#[test]
fn a_tunnel_begins_behind_the_content_of_its_request() {
    for protocol in [Protocol::H1, Protocol::H1Tls] {
        for mode in modes() {
            for early in [false, true] {
                let backend = Backend::serve(move |mut peer| {
                    let Some(head) = peer.request_head() else { return };
                    assert_eq!((head.value("Upgrade"), head.value("Content-Length")), (Some("tcp"), Some("100000")));
                    let switching = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
                    if early {
                        peer.send(switching);
                    }
                    let content = peer.exactly(100_000).expect("the content");
                    assert!(content.iter().all(|&byte| byte == b'c'));
                    if !early {
                        peer.send(switching);
                    }
                    let ping = peer.exactly(4).expect("what follows it");
                    peer.send(ping);
                    peer.rest();
                });
                let way = Way::to(&backend, protocol);
                let balancer = Balancer::start(mode, &way.args());
                let mut client = balancer.connect();
                client.send(
                    "POST /exec/1/start HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
                     Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n",
                );
                client.send(vec![b'c'; 100_000]);
                assert_eq!(client.response("GET").status(), 101, "{protocol:?} {mode:?} {early}");
                client.send("ping");
                assert_eq!(client.exactly(4).expect("an echo"), b"ping", "{protocol:?} {mode:?} {early}");
            }
        }
    }
}
