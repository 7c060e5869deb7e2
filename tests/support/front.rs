//! Gateways between clients over HTTP/1.1 and the balancer, so that one test serves all protocols of clients. A
//! request becomes an HTTP/2 stream, or its bytes are encrypted. The end of a client resets its streams.
//!
//! An HTTP/1.1 connection has an HTTP/2 connection of its own, or all of them share one.

use super::certificate::{Authority, Spec};
use super::gateway::{PROTOCOLS, Protocol};
use super::message::{BodyReader, Framing, Message, read_head};
use super::relay::{listen, relay};
use super::streams::{Shared, Streams, block, bytes, id_of, key_of, lines_of};
use super::wire::{Fault, Socket, Wire};
use super::{DEADLINE, Directory, Mode, modes};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use zzz_lb::collections::slab::Key;
use zzz_lb::http::head::{Head, HeadRef, Start};
use zzz_lb::http::part::Role;
use zzz_lb::http2::ErrorCode;
use zzz_lb::http2::connection::Event;

/// The protocols of clients.
pub const FRONTS: [Protocol; 4] = PROTOCOLS;

/// A protocol of clients, one of backends, and a mode.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    pub front: Protocol,
    pub back: Protocol,
    pub mode: Mode,
}

/// All pairs of protocols. HTTP/1.1 without TLS is in both modes, and each other front is in one, because the modes
/// serve a client with the same code.
pub fn pairs() -> Vec<Pair> {
    let mut pairs = Vec::new();
    for (nth, front) in FRONTS.into_iter().enumerate() {
        for (backs, back) in PROTOCOLS.into_iter().enumerate() {
            let modes = modes().into_iter().enumerate();
            let modes = modes.filter(|(at, _)| front == Protocol::H1 || (nth + backs + at) % 2 == 0);
            pairs.extend(modes.map(|(_, mode)| Pair { front, back, mode }));
        }
    }
    pairs
}

/// The certificate of a balancer, and the client's configuration for it.
struct Secure {
    certificate: PathBuf,
    key: PathBuf,
    config: Arc<ClientConfig>,
    _directory: Directory,
}

impl Secure {
    fn new(alpn: &[u8]) -> Secure {
        let authority = Authority::new("root");
        let issued = authority.issue(&Spec { names: &["localhost", "127.0.0.1"], ..Spec::new("balancer") });
        let directory = Directory::new();
        let certificate = directory.put("balancer.pem", &issued.pem());
        let key = directory.put("balancer.key", &issued.key_pem());
        let mut roots = RootCertStore::empty();
        roots.add(authority.der.clone().into()).expect("a CA");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        Secure { certificate, key, config: Arc::new(config), _directory: directory }
    }
}

/// The way of clients to a balancer.
pub struct Front {
    protocol: Protocol,
    secure: Option<Secure>,
}

impl Front {
    /// A way over a protocol.
    pub fn new(protocol: Protocol) -> Front {
        let secure = match protocol {
            Protocol::H1 | Protocol::H2c => None,
            Protocol::H1Tls => Some(Secure::new(b"http/1.1")),
            Protocol::H2Tls => Some(Secure::new(b"h2")),
        };
        Front { protocol, secure }
    }

    /// The arguments that the balancer needs.
    pub fn args(&self) -> Vec<&str> {
        let Some(secure) = &self.secure else { return Vec::new() };
        let (certificate, key) = (secure.certificate.to_str(), secure.key.to_str());
        vec!["--tls-cert", certificate.expect("text"), "--tls-key", key.expect("text")]
    }

    /// The configuration of a client; `None` without TLS.
    pub fn client_config(&self) -> Option<Arc<ClientConfig>> {
        self.secure.as_ref().map(|secure| secure.config.clone())
    }

    /// The address where clients over HTTP/1.1 reach the balancer at `target`. `shared`: all of them share one
    /// HTTP/2 connection.
    pub fn open(&self, target: SocketAddr, shared: bool) -> SocketAddr {
        let scheme = if self.secure.is_some() { "https" } else { "http" };
        let target = self.secure.as_ref().map_or(target, |secure| {
            let config = secure.config.clone();
            listen(move |inside| {
                let Ok(outside) = TcpStream::connect(target) else { return };
                let name = ServerName::try_from("localhost").expect("a name");
                relay(inside, outside, ClientConnection::new(config.clone(), name).expect("a session").into());
            })
        });
        match self.protocol {
            Protocol::H1 | Protocol::H1Tls => target,
            Protocol::H2c | Protocol::H2Tls if shared => listen(share(target, scheme)),
            Protocol::H2c | Protocol::H2Tls => listen(move |socket| {
                let (sender, turns) = channel();
                let Some(link) = connect(target, Some(sender.clone())) else { return };
                Client { socket: Arc::new(Socket::Tcp(socket)), link, scheme, is_only: true }.serve(sender, turns);
            }),
        }
    }
}

/// Serves clients over one connection, and over another one when that accepts no more streams.
fn share(target: SocketAddr, scheme: &'static str) -> impl Fn(TcpStream) {
    let current: Mutex<Option<Link>> = Mutex::new(None);
    move |socket| {
        let link = {
            let mut current = current.lock().unwrap();
            let usable = current.take().filter(|link| {
                let streams = link.lock();
                streams.open && !streams.h2.is_spent()
            });
            *current = usable.or_else(|| connect(target, None));
            current.clone()
        };
        let Some(link) = link else { return };
        let (sender, turns) = channel();
        Client { socket: Arc::new(Socket::Tcp(socket)), link, scheme, is_only: false }.serve(sender, turns);
    }
}

/// A part of a response, for the thread that writes it.
enum Part {
    /// A head in HTTP/1.1 form; true if content follows in chunks.
    Head(Vec<u8>, bool),
    Data(Vec<u8>),
    Trailers(String),
    End,
}

/// The response's thread, and true if the request has the method HEAD.
type Response = (Sender<Part>, bool);

type Link = Shared<Response>;

/// The next work of the thread that writes responses.
enum Turn {
    /// To write the response of this stream.
    Response(u32, Receiver<Part>),
    /// To end, because the connection to the balancer has ended.
    End,
}

/// Connects to the balancer; `None` if it does not listen. `client`: the only one, which ends with the connection.
fn connect(target: SocketAddr, client: Option<Sender<Turn>>) -> Option<Link> {
    let mut socket = TcpStream::connect_timeout(&target, DEADLINE).ok()?;
    socket.set_nodelay(true).expect("a TCP socket");
    let link: Link = Shared::new(Role::Client, &socket);
    let receiving = link.clone();
    std::thread::spawn(move || {
        let (mut held, mut block) = (Vec::new(), vec![0; 64 * 1024]);
        while let Ok(n @ 1..) = socket.read(&mut block) {
            held.extend_from_slice(&block[..n]);
            if !take_in(&receiving, &mut held) {
                break;
            }
        }
        // Each response that is not complete ends here, because its sender is dropped.
        receiving.end();
        client.map(|client| client.send(Turn::End))
    });
    Some(link)
}

/// Handles received bytes. Returns false at the end.
fn take_in(link: &Link, held: &mut Vec<u8>) -> bool {
    let (mut head, mut arena, mut out) = (Head::default(), Vec::new(), Vec::new());
    let mut streams = link.lock();
    loop {
        let decoded = streams.h2.decode(held, &mut head, &mut arena, &mut out);
        let (skip, event) = decoded.expect("the balancer follows the rules of HTTP/2");
        held.drain(..skip);
        let view = HeadRef { bytes: &arena, head: &head };
        let (key, part) = match event {
            Event::NeedMore => break,
            Event::Interim(key) => (key, Part::Head(head_of(view, true).0, false)),
            Event::Head(key) => {
                let is_head = streams.owners.get(&id_of(key)).is_some_and(|(_, is_head)| *is_head);
                let (bytes, chunked) = head_of(view, is_head);
                (key, Part::Head(bytes, chunked))
            }
            Event::Data(owner, n) => {
                let bytes: Vec<u8> = held.drain(..n).collect();
                let Some(key) = owner else { continue };
                (key, Part::Data(bytes))
            }
            Event::Trailers(key) => (key, Part::Trailers(lines_of(view))),
            Event::End(key) => (key, Part::End),
            Event::Reset(key, _) => {
                streams.forget(id_of(key));
                continue;
            }
            Event::Malformed(..) | Event::Unheard(..) => panic!("the balancer sent what is malformed: {event:?}"),
            _ => continue,
        };
        if let Some((sender, _)) = streams.owners.get(&id_of(key)) {
            let _ = sender.send(part);
        }
    }
    streams.write(&out);
    streams.flush();
    streams.forget_closed();
    drop(streams);
    link.notify();
    true
}

/// A response's head in HTTP/1.1 form, and true if it is chunked there.
fn head_of(head: HeadRef<'_>, bodiless: bool) -> (Vec<u8>, bool) {
    let Start::Response { status, .. } = head.head.start else { panic!("a response") };
    let framed = bodiless || matches!(status, 204 | 304) || head.fields().any(|(_, name, _)| name == b"content-length");
    let framing = match (framed, head.head.ended) {
        (true, _) => "",
        (false, true) => "content-length: 0\r\n",
        (false, false) => "transfer-encoding: chunked\r\n",
    };
    let text = format!("HTTP/1.1 {status} \r\n{}{framing}\r\n", lines_of(head));
    (bytes(&text), !framed && !head.head.ended)
}

/// One connection over HTTP/1.1.
struct Client {
    socket: Arc<Socket>,
    link: Link,
    scheme: &'static str,
    /// True if no other client uses the connection to the balancer.
    is_only: bool,
}

impl Client {
    fn serve(&self, sender: Sender<Turn>, turns: Receiver<Turn>) {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while let Ok(Turn::Response(id, parts)) = turns.recv() {
                    if !self.write_response(id, &parts) {
                        break;
                    }
                }
                self.socket.shutdown(Shutdown::Both);
            });
            let mut wire = Wire::shared(self.socket.clone());
            let mut opened = Vec::new();
            while self.read_request(&mut wire, &sender, &mut opened).is_some() {}
            // The client is gone, so nobody waits for its responses.
            opened.iter().for_each(|&id| self.link.lock().reset(id, ErrorCode::CANCEL));
            self.link.notify();
            if self.is_only {
                self.link.end();
            }
            self.socket.shutdown(Shutdown::Both);
            drop(sender);
        });
    }

    /// Passes one request on; `None` at the end.
    fn read_request(&self, wire: &mut Wire, turns: &Sender<Turn>, opened: &mut Vec<u32>) -> Option<()> {
        let head = loop {
            match read_head(wire) {
                Err(Fault::Late) => {}
                head => break head.ok()?,
            }
        };
        let framing = head.request_framing().ok()?;
        let ended = matches!(framing, Framing::None | Framing::Length(0));
        let (sender, parts) = channel();
        let is_full =
            |streams: &mut Streams<Response>| streams.open && !streams.h2.is_spent() && !streams.h2.can_open();
        let mut streams = self.link.wait_while(is_full);
        let id = if streams.open { streams.h2.open(Key::from_token(0))? } else { return None };
        streams.h2.own(id, key_of(id));
        streams.owners.insert(id, (sender, head.method() == "HEAD"));
        streams.fields(id, &block(&fields_of(&head, self.scheme)), ended);
        opened.retain(|id| streams.owners.contains_key(id));
        opened.push(id);
        drop(streams);
        turns.send(Turn::Response(id, parts)).ok()?;
        if !ended {
            let mut reader = BodyReader::new(framing);
            // Content for a stream that is gone is dropped.
            while let Some(piece) = reader.piece(wire).ok()? {
                self.link.send(id, &piece);
            }
            self.link.finish(id, &reader.trailers);
        }
        Some(())
    }

    /// Writes a response. Returns false if it was cut, or if the client is gone.
    fn write_response(&self, id: u32, parts: &Receiver<Part>) -> bool {
        let wire = Wire::shared(self.socket.clone());
        let (mut is_chunked, mut trailers) = (false, String::new());
        while let Ok(part) = parts.recv() {
            let sent = match part {
                Part::Head(bytes, chunks) => {
                    is_chunked = chunks;
                    wire.try_send(bytes)
                }
                Part::Data(bytes) if bytes.is_empty() => Ok(()),
                Part::Data(bytes) => {
                    let framed = match is_chunked {
                        true => [format!("{:x}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"].concat(),
                        false => bytes.clone(),
                    };
                    let sent = wire.try_send(framed);
                    self.link.lock().delivered(id, bytes.len());
                    sent
                }
                Part::Trailers(lines) => {
                    trailers = lines;
                    Ok(())
                }
                // The request may go on.
                Part::End if is_chunked => return wire.try_send(bytes(&format!("0\r\n{trailers}\r\n"))).is_ok(),
                Part::End => return true,
            };
            if sent.is_err() {
                return false;
            }
        }
        false
    }
}

/// The fields of a request over HTTP/2. Each cookie is a field of its own, as browsers send them.
fn fields_of(head: &Message, scheme: &str) -> Vec<(String, String)> {
    let pseudo = |name: &str, value: &str| (format!(":{name}"), value.to_string());
    let mut fields = vec![pseudo("method", head.method()), pseudo("scheme", scheme)];
    fields.extend(head.value("Host").map(|host| pseudo("authority", host)));
    fields.push(pseudo("path", head.target()));
    let of_hop = head.list("Connection");
    for (name, value) in &head.fields {
        let name = name.to_ascii_lowercase();
        let is_named = of_hop.iter().any(|option| option.eq_ignore_ascii_case(&name));
        let is_of_hop = ["connection", "keep-alive", "transfer-encoding", "upgrade", "host"].contains(&name.as_str());
        match name.as_str() {
            "cookie" => fields.extend(value.split("; ").map(|crumb| (name.clone(), crumb.to_string()))),
            "te" => fields.push((name, value.clone())),
            _ if is_named || is_of_hop => {}
            _ => fields.push((name, value.clone())),
        }
    }
    fields
}
