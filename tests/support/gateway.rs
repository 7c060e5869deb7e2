//! Gateways before a scripted backend that speak another protocol: HTTP/2, TLS, or both. Each HTTP/2 stream
//! becomes an HTTP/1.1 connection to the backend. TLS is removed byte by byte.
//!
//! The HTTP/2 code is the program's own (`zzz_lb::http2`), so an error on both ends is not visible here. The
//! interop checks `http2-nginx`, `http2-goaway`, `http2-peers` and `hpack` have other implementations at the
//! other end.

use super::certificate::{Authority, Spec};
use super::message::{BodyReader, Framing, Message, read_head};
use super::relay::{listen, relay};
use super::streams::{Shared, block, bytes, id_of, key_of, lines_of, text};
use super::wire::{Fault, Wire};
use super::{Backend, Directory};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection};
use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use zzz_lb::http::head::{Head, HeadRef, Start};
use zzz_lb::http::part::Role;
use zzz_lb::http2::ErrorCode;
use zzz_lb::http2::connection::Event;

/// The protocol of a backend, or of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2 without TLS.
    H2c,
    /// HTTP/1.1 over TLS.
    H1Tls,
    /// HTTP/2 over TLS.
    H2Tls,
}

/// All protocols.
pub const PROTOCOLS: [Protocol; 4] = [Protocol::H1, Protocol::H2c, Protocol::H1Tls, Protocol::H2Tls];

/// The address of a backend over a protocol. It must outlive the balancer.
pub struct Way {
    spec: String,
    roots: Option<PathBuf>,
    _directory: Option<Directory>,
}

impl Way {
    /// Creates the gateway to a backend.
    pub fn to(backend: &Backend, protocol: Protocol) -> Way {
        let target = backend.spec().parse().expect("a TCP backend");
        let plain = |spec| Way { spec, roots: None, _directory: None };
        match protocol {
            Protocol::H1 => plain(backend.spec()),
            Protocol::H2c => plain(format!("h2c://{}", listen(move |socket| serve_http2(socket, target)))),
            Protocol::H1Tls => Way::secure(b"http/1.1", target),
            Protocol::H2Tls => Way::secure(b"h2", listen(move |socket| serve_http2(socket, target))),
        }
    }

    fn secure(alpn: &[u8], target: SocketAddr) -> Way {
        let authority = Authority::new("root");
        let directory = Directory::new();
        let roots = directory.put("ca.pem", &authority.pem());
        let issued = authority.issue(&Spec { names: &["localhost"], ..Spec::new("backend") });
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let key = PrivatePkcs8KeyDer::from(issued.key).into();
        let config = config.expect("versions").with_no_client_auth().with_single_cert(vec![issued.der.into()], key);
        let mut config = config.expect("a certificate and its key");
        config.alpn_protocols = vec![alpn.to_vec()];
        let config = Arc::new(config);
        let address = listen(move |outside| {
            let Ok(inside) = TcpStream::connect(target) else { return };
            relay(inside, outside, ServerConnection::new(config.clone()).expect("a session").into());
        });
        let spec = format!("https://localhost:{}", address.port());
        Way { spec, roots: Some(roots), _directory: Some(directory) }
    }

    /// The `-b` argument.
    pub fn spec(&self) -> &str {
        &self.spec
    }

    /// The arguments for a balancer that uses it.
    pub fn args(&self) -> Vec<&str> {
        let roots = self.roots.iter().flat_map(|path| ["--ca-file", path.to_str().expect("text")]);
        ["-b", &self.spec].into_iter().chain(roots).collect()
    }
}

/// A part of a request, for the thread that forwards it.
enum Part {
    Data(Vec<u8>),
    Trailers(String),
    End,
}

/// A stream's thread, and the backend connection of its request.
type Request = (Sender<Part>, Arc<super::wire::Socket>);

/// Serves HTTP/2. Each stream gets a connection of its own to the target.
pub fn serve_http2(mut socket: TcpStream, target: SocketAddr) {
    let shared: Shared<Request> = Shared::new(Role::Server, &socket);
    let (mut held, mut block) = (Vec::new(), vec![0; 64 * 1024]);
    while let Ok(n @ 1..) = socket.read(&mut block) {
        held.extend_from_slice(&block[..n]);
        if !take_in(&shared, &mut held, target) {
            break;
        }
    }
    // Pending backend requests are cancelled.
    shared.end().values().for_each(|(_, backend)| backend.shutdown(Shutdown::Both));
}

/// Handles received bytes. Returns false at the end.
fn take_in(shared: &Shared<Request>, held: &mut Vec<u8>, target: SocketAddr) -> bool {
    let (mut head, mut arena, mut out) = (Head::default(), Vec::new(), Vec::new());
    let mut streams = shared.lock();
    loop {
        let Ok((skip, event)) = streams.h2.decode(held, &mut head, &mut arena, &mut out) else { return false };
        held.drain(..skip);
        let view = HeadRef { bytes: &arena, head: &head };
        match event {
            Event::NeedMore => break,
            Event::Opened(id) => {
                streams.h2.own(id, key_of(id));
                let request = request_of(view);
                let (sender, receiver) = channel();
                let wire = Wire::tcp(target);
                streams.owners.insert(id, (sender, wire.socket().clone()));
                let shared = shared.clone();
                std::thread::spawn(move || pass_on(&shared, id, wire, &request, &receiver));
            }
            Event::Data(owner, n) => {
                let bytes: Vec<u8> = held.drain(..n).collect();
                if let Some((sender, _)) = owner.and_then(|key| streams.owners.get(&id_of(key))) {
                    let _ = sender.send(Part::Data(bytes));
                }
            }
            Event::Trailers(key) => {
                if let Some((sender, _)) = streams.owners.get(&id_of(key)) {
                    let _ = sender.send(Part::Trailers(lines_of(view)));
                }
            }
            Event::End(key) => {
                if let Some((sender, _)) = streams.owners.get(&id_of(key)) {
                    let _ = sender.send(Part::End);
                }
            }
            Event::Reset(key, _) => {
                if let Some((_, backend)) = streams.forget(id_of(key)) {
                    backend.shutdown(Shutdown::Both);
                }
            }
            Event::Malformed(..) | Event::Unheard(..) => panic!("the balancer sent what is malformed: {event:?}"),
            _ => {}
        }
    }
    streams.write(&out);
    streams.flush();
    shared.notify();
    true
}

/// A request in HTTP/1.1 form, true if it is chunked there, and its method.
fn request_of(head: HeadRef<'_>) -> (Vec<u8>, bool, String) {
    let Start::Request { method, path, .. } = head.head.start else { panic!("a request") };
    let method = text(head.get(method));
    let host = text(head.authority().unwrap_or_default());
    let framed = head.head.ended || head.fields().any(|(_, name, _)| name == b"content-length");
    let start = format!("{method} {} HTTP/1.1\r\nHost: {host}\r\n", text(head.get(path)));
    let framing = if framed { "" } else { "Transfer-Encoding: chunked\r\n" };
    (bytes(&format!("{start}{}{framing}\r\n", lines_of(head))), !framed, method)
}

/// Forwards one request to the backend, and the response back.
fn pass_on(shared: &Shared<Request>, id: u32, wire: Wire, request: &(Vec<u8>, bool, String), parts: &Receiver<Part>) {
    let (head, chunked, method) = request;
    let back = Wire::shared(wire.socket().clone());
    std::thread::scope(|scope| {
        scope.spawn(|| pass_back(shared, id, back, method));
        let _ = wire.try_send(head);
        let mut trailers = String::new();
        while let Ok(part) = parts.recv() {
            match part {
                Part::Data(bytes) => {
                    let framed = match chunked {
                        true => [format!("{:x}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"].concat(),
                        false => bytes.clone(),
                    };
                    let _ = wire.try_send(framed);
                    shared.lock().delivered(id, bytes.len());
                }
                Part::Trailers(lines) => trailers = lines,
                Part::End => {
                    if *chunked {
                        let _ = wire.try_send(format!("0\r\n{trailers}\r\n"));
                    }
                    break;
                }
            }
        }
    });
    wire.socket().shutdown(Shutdown::Both);
    shared.lock().owners.remove(&id);
}

fn pass_back(shared: &Shared<Request>, id: u32, mut wire: Wire, method: &str) {
    // The rest of a request may follow a complete response.
    if response(shared, id, &mut wire, method).is_err() {
        wire.socket().shutdown(Shutdown::Both);
        // This also ends the wait of the request's thread.
        shared.lock().reset(id, ErrorCode::INTERNAL_ERROR);
    }
}

fn response(shared: &Shared<Request>, id: u32, wire: &mut Wire, method: &str) -> Result<(), Fault> {
    let head = loop {
        let head = read_head(wire)?;
        let last = head.status() >= 200;
        let framing = head.response_framing(method)?;
        let ended = last && matches!(framing, Framing::None | Framing::Length(0));
        shared.lock().fields(id, &fields_of(&head), ended);
        if ended {
            return Ok(());
        }
        if last {
            break head;
        }
    };
    let mut reader = BodyReader::new(head.response_framing(method)?);
    while let Some(piece) = reader.piece(wire)? {
        if !shared.send(id, &piece) {
            return Err(Fault::Fin);
        }
    }
    shared.finish(id, &reader.trailers);
    // The connection's reader sends it as the windows allow.
    shared.wait_until_sent(id);
    Ok(())
}

fn fields_of(head: &Message) -> Vec<u8> {
    let is_sent = |name: &str| {
        !["connection", "keep-alive", "transfer-encoding", "upgrade"].iter().any(|hop| name.eq_ignore_ascii_case(hop))
    };
    let status = [(":status".to_string(), head.status().to_string())];
    let fields = head.fields.iter().filter(|(name, _)| is_sent(name)).cloned();
    block(&status.into_iter().chain(fields).collect::<Vec<_>>())
}
