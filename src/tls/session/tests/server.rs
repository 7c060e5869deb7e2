//! The role of the server: clients that speak something else, that refuse, and that end early.

use rustls::ClientConfig;

use super::*;

#[test]
fn names_the_protocol_of_a_client_that_does_not_speak_tls() {
    let root = Authority::new("Root");
    let config = serve(&root.issue(&Spec::new("a.test")));
    let proxy_header = "not TLS: the bytes look like a PROXY header, which ,proxy on --listen reads";
    let cases: [(&[u8], Plain, &str); 8] = [
        (b"GET / HTTP/1.1\r\n\r\n", Plain::Request, "not TLS: the peer requested plain HTTP"),
        (b"OPTIONS * HTTP/1.1\r\n\r\n", Plain::Request, "not TLS: the peer requested plain HTTP"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Plain::Http2, "not TLS: the peer speaks plain HTTP/2"),
        (b"PROXY TCP4 10.0.0.1", Plain::ProxyHeader, proxy_header),
        (b"\r\n\r\n\0\r\nQUIT\n", Plain::ProxyHeader, proxy_header),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Plain::Unknown, "not TLS: the first bytes are no TLS record"),
        (b" GET / HTTP/1.1\r\n\r\n", Plain::Unknown, "not TLS: the first bytes are no TLS record"),
        (&[0x80, 0x2e, 1, 3, 1, 0], Plain::Unknown, "not TLS: the first bytes are no TLS record"),
    ];
    for (bytes, plain, text) in cases {
        for step in [1, 3, 100] {
            let mut session = Session::accept_with(&config);
            let failure = bytes.chunks(step).find_map(|bytes| session.received(bytes).err());
            assert_eq!(failure, Some(Failure::NotTls(plain)), "{}", bytes.escape_ascii());
            assert_eq!(failure.map(|failure| failure.to_string()).as_deref(), Some(text));
            assert!(!session.wants_send() && session.take_alerts().is_empty(), "the client would not understand it");
        }
    }
}

#[test]
fn a_client_that_refuses_the_certificate_tells_the_server() {
    let root = Authority::new("Root");
    let issued = root.issue(&Spec { names: &["b.test"], ..Spec::new("b.test") });
    for versions in [TLS12, TLS13] {
        let server = Arc::new(server_config(&[&issued.der], &issued.key, versions));
        let mut pair = Pair::new(&config(roots(&[&root]), false), &server, "a.test");
        assert_eq!(pair.run(), Err(Failure::Certificate(BadCertificate::OtherName)));
        let alert = drain(&mut pair.session);
        let refused = Failure::Refused(Alert(42), During::Handshake);
        assert_eq!(pair.server.received(&alert), Err(refused));
        let received = (Direction::Received, Alert(42));
        assert_eq!(pair.server.take_alerts(), [received]);
        assert_eq!(pair.server.certificates(), [], "a client sends none");
    }
}

#[test]
fn a_client_without_a_version_in_common_is_refused() {
    let root = Authority::new("Root");
    let config = serve(&root.issue(&Spec::new("a.test")));
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let client = client.with_protocol_versions(TLS12).unwrap();
    let client = client.with_root_certificates(roots(&[&root]).store).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from("a.test").unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let mut session = Session::accept_with(&config);
    assert_eq!(session.received(&hello), Err(Failure::Incompatible(Lacking::Version)));
    assert_eq!(session.take_alerts(), [(Direction::Sent, Alert(70))]);
}

/// Makes a ClientHello offer one signature algorithm alone.
fn offer_alone(hello: &mut [u8], scheme: [u8; 2]) {
    // The extension signature_algorithms, its length and that of the list (RFC 8446, 4.2.3).
    let at = (0..hello.len() - 6).find(|&at| {
        let number = |at: usize| u16::from_be_bytes([hello[at], hello[at + 1]]);
        number(at) == 13 && number(at + 2) == number(at + 4).wrapping_add(2)
    });
    let at = at.expect("a client offers some");
    let length = usize::from(hello[at + 5]);
    hello[at + 6..][..length].chunks_mut(2).for_each(|offered| offered.copy_from_slice(&scheme));
}

#[test]
fn a_client_without_an_algorithm_for_the_key_is_told_apart() {
    let root = Authority::new("Root");
    let config = serve(&root.issue(&Spec::new("a.test")));
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let client = client.with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots(&[&root]).store).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from("a.test").unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    // rsa_pss_rsae_sha256.
    offer_alone(&mut hello, [8, 4]);
    let mut session = Session::accept_with(&config);
    assert_eq!(session.received(&hello), Err(Failure::Incompatible(Lacking::Key)));
    assert!(session.wants_send(), "an alert is on its way");
}

#[test]
fn the_server_tells_the_end_of_the_socket_from_the_end_of_the_session() {
    let root = Authority::new("Root");
    let mut session = Session::accept_with(&serve(&root.issue(&Spec::new("a.test"))));
    assert_eq!(session.ended(), Err(Failure::Closed));
    let mut pair = pair();
    assert_eq!(pair.server.ended(), Ok(()));
    let mut trace = Trace::new("client");
    trace.connected(&session, 0);
    assert_eq!(trace.take_lines(), ["client: handshake begins"], "a server offers nothing");
}
