//! The ways of a client to the balancer: plain TCP, TLS with a full handshake each time, and TLS that resumes.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::super::DEADLINE;
use super::super::certificate::Issued;
use super::super::wire::{Socket, Wire};

/// The reason for a lost request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The connection could not be established.
    Connect(String),
    /// The connection ended before a complete response.
    Unanswered(String),
    /// The response was wrong.
    Wrong(String),
}

/// The way of a client to the balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// TCP.
    Plain,
    /// TLS with a full handshake for each connection.
    Fresh,
    /// TLS 1.3 that resumes the session of the connection before.
    Resumed,
    /// TLS 1.2 that resumes the session of the connection before.
    Resumed12,
}

/// The addresses of the balancer.
#[derive(Clone)]
pub struct Target {
    /// The listener without TLS.
    pub plain: SocketAddr,
    /// The listener with TLS, if there is one.
    pub secure: Option<SocketAddr>,
    /// The CA of the balancer's certificates.
    pub roots: RootCertStore,
    /// The clients' own certificate.
    pub own: Option<Issued>,
}

impl Target {
    /// A listener without TLS.
    pub fn plain(address: SocketAddr) -> Target {
        Target { plain: address, secure: None, roots: RootCertStore::empty(), own: None }
    }
}

/// Connects again and again.
pub struct Dial {
    target: Arc<Target>,
    link: Link,
    config: Option<Arc<ClientConfig>>,
    /// True if a session may be resumed.
    has_session: bool,
    /// The client's port of the last connection; `None` if it could not connect.
    pub port: Option<u16>,
    /// Handshakes that resumed a session.
    pub resumed: u64,
    /// The balancer's certificate on the last connection.
    pub certificate: Vec<u8>,
    /// Full handshakes although there was a session to resume.
    pub unresumed: u64,
}

impl Dial {
    /// Prepares connections that offer one protocol by ALPN.
    pub fn new(target: Arc<Target>, link: Link, protocol: &[u8]) -> Dial {
        let config = (link != Link::Plain).then(|| Arc::new(config(&target, link, protocol)));
        Dial { target, link, config, has_session: false, port: None, resumed: 0, certificate: Vec::new(), unresumed: 0 }
    }

    /// Connects to another balancer from now on, and keeps the session.
    pub fn turn_to(&mut self, target: Arc<Target>) {
        self.target = target;
    }

    /// True if connections are over TLS.
    pub fn is_secure(&self) -> bool {
        self.config.is_some()
    }

    /// Connects, and completes the handshake.
    pub fn connect(&mut self) -> Result<Wire, Why> {
        self.port = None;
        let address = self.config.as_ref().map_or(Some(self.target.plain), |_| self.target.secure);
        let address = address.expect("a client over TLS has a listener with TLS");
        let socket = TcpStream::connect_timeout(&address, Duration::from_secs(10));
        let socket = socket.map_err(|error| Why::Connect(error.to_string()))?;
        self.port = socket.local_addr().ok().map(|address| address.port());
        let Some(config) = &self.config else { return Ok(Wire::new(Socket::Tcp(socket))) };
        socket.set_read_timeout(Some(DEADLINE)).expect("not zero");
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(config.clone(), name).expect("a session");
        let mut stream = StreamOwned::new(session, socket);
        while stream.conn.is_handshaking() {
            let done = stream.conn.complete_io(&mut stream.sock);
            done.map_err(|error| Why::Unanswered(format!("{error} in the handshake")))?;
        }
        match stream.conn.handshake_kind() {
            Some(HandshakeKind::Resumed) => self.resumed += 1,
            _ => self.unresumed += u64::from(self.has_session),
        }
        self.has_session = self.link != Link::Fresh;
        let chain = stream.conn.peer_certificates().unwrap_or_default();
        self.certificate = chain.first().map(|der| der.to_vec()).unwrap_or_default();
        Ok(Wire::new(Socket::tls(stream)))
    }
}

fn config(target: &Target, link: Link, protocol: &[u8]) -> ClientConfig {
    let versions: &[&SupportedProtocolVersion] = match link {
        Link::Resumed => &[&TLS13],
        Link::Resumed12 => &[&TLS12],
        Link::Fresh | Link::Plain => &[&TLS13, &TLS12],
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
    let builder = builder.with_root_certificates(target.roots.clone());
    let mut config = match &target.own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let key = PrivatePkcs8KeyDer::from(own.key.clone()).into();
            builder.with_client_auth_cert(vec![own.der.clone().into()], key).expect("a certificate and its key")
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = if link == Link::Fresh { Resumption::disabled() } else { Resumption::in_memory_sessions(8) };
    config
}
