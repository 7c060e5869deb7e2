//! Gateways before a scripted backend that speak another protocol: HTTP/2, TLS, or both. Each HTTP/2 stream
//! becomes an HTTP/1.1 connection to the backend. TLS is removed byte by byte.
//!
//! The HTTP/2 code is the program's own (`zzz_lb::http2`), so an error on both ends is not visible here. The
//! interop checks `http2-nginx`, `http2-goaway`, `http2-peers` and `hpack` have other implementations at the
//! other end.

use super::certificate::{Authority, Spec};
use super::message::{BodyReader, Framing, Message, read_head};
use super::wire::{Fault, Wire};
use super::{Backend, Directory};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use zzz_lb::collections::slab::Key;
use zzz_lb::http::head::{Head, HeadRef, Start};
use zzz_lb::http::part::Role;
use zzz_lb::http2::ErrorCode;
use zzz_lb::http2::connection::{Connection, Event};

/// The protocol of a backend.
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
            Protocol::H1Tls => Way::secure(&[b"http/1.1"], target),
            Protocol::H2Tls => Way::secure(&[b"h2"], listen(move |socket| serve_http2(socket, target))),
        }
    }

    fn secure(alpn: &[&[u8]], target: SocketAddr) -> Way {
        let authority = Authority::new("root");
        let directory = Directory::new();
        let roots = directory.put("ca.pem", &authority.pem());
        let issued = authority.issue(&Spec { names: &["localhost"], ..Spec::new("backend") });
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let key = PrivatePkcs8KeyDer::from(issued.key).into();
        let config = config.expect("versions").with_no_client_auth().with_single_cert(vec![issued.der.into()], key);
        let mut config = config.expect("a certificate and its key");
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let config = Arc::new(config);
        let address = listen(move |socket| serve_tls(socket, &config, target));
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

/// Runs `serve` for each connection to a free loopback port.
pub fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("bound");
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let serve = serve.clone();
            socket.set_nodelay(true).expect("a TCP socket");
            std::thread::spawn(move || serve(socket));
        }
    });
    address
}

/// A session and the socket of its ciphertext. Writes happen under the lock, so that they stay in order.
struct Secured {
    session: ServerConnection,
    outside: TcpStream,
}

impl Secured {
    fn flush(&mut self) -> bool {
        while self.session.wants_write() {
            if self.session.write_tls(&mut self.outside).is_err() {
                return false;
            }
        }
        true
    }
}

fn serve_tls(socket: TcpStream, config: &Arc<ServerConfig>, target: SocketAddr) {
    let Ok(mut inside) = TcpStream::connect(target) else { return };
    let session = ServerConnection::new(config.clone()).expect("a session");
    let (mut reading, outside) = (socket.try_clone().expect("a second handle"), socket);
    let secured = Arc::new(Mutex::new(Secured { session, outside }));
    let (mut back, for_back) = (inside.try_clone().expect("a second handle"), secured.clone());
    std::thread::spawn(move || {
        let mut block = vec![0; 16 * 1024];
        loop {
            let n = back.read(&mut block);
            let mut secured = for_back.lock().unwrap();
            match n {
                Ok(n) if n > 0 => {
                    let written = secured.session.writer().write_all(&block[..n]).is_ok();
                    if !written || !secured.flush() {
                        return;
                    }
                }
                Ok(_) => {
                    secured.session.send_close_notify();
                    secured.flush();
                    let _ = secured.outside.shutdown(Shutdown::Both);
                    return;
                }
                // A break on the inside becomes a break on the outside.
                Err(_) => return drop(secured.outside.shutdown(Shutdown::Both)),
            }
        }
    });
    let (mut block, mut plain) = (vec![0; 16 * 1024], Vec::new());
    while let Ok(n) = reading.read(&mut block) {
        if n == 0 {
            break;
        }
        let mut rest = &block[..n];
        while !rest.is_empty() {
            plain.clear();
            let mut secured = secured.lock().unwrap();
            let taken = secured.session.read_tls(&mut rest).is_ok() && secured.session.process_new_packets().is_ok();
            let _ = secured.session.reader().read_to_end(&mut plain);
            if !secured.flush() || !taken {
                let _ = inside.shutdown(Shutdown::Both);
                return;
            }
            drop(secured);
            if inside.write_all(&plain).is_err() {
                return;
            }
        }
    }
    let _ = inside.shutdown(Shutdown::Both);
}

/// A part of a request, for the thread that forwards it.
enum Part {
    Data(Vec<u8>),
    Trailers(String),
    End,
}

/// Data to be sent on a stream.
#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    trailers: Option<Vec<u8>>,
    ended: bool,
}

struct Http2 {
    h2: Connection,
    socket: TcpStream,
    requests: BTreeMap<u32, (Sender<Part>, Arc<super::wire::Socket>)>,
    waiting: BTreeMap<u32, Waiting>,
}

impl Http2 {
    fn write(&mut self, bytes: &[u8]) {
        // If the other side is gone, the reader notices.
        let _ = self.socket.write_all(bytes);
    }

    /// Sends as much as the windows allow.
    fn flush(&mut self) {
        let ids: Vec<u32> = self.waiting.keys().copied().collect();
        ids.into_iter().for_each(|id| self.h2.line_up(id));
        let mut out = Vec::new();
        while let Some((id, _, room)) = self.h2.next_in_line() {
            let Some(waiting) = self.waiting.get_mut(&id) else { continue };
            let n = room.min(waiting.bytes.len());
            let last = waiting.ended && n == waiting.bytes.len();
            if n == 0 && !last {
                continue;
            }
            let trailers = if last { waiting.trailers.take() } else { None };
            if let Some(header) = self.h2.data(id, n, last && trailers.is_none()) {
                out.extend_from_slice(&header);
                out.extend(waiting.bytes.drain(..n));
            }
            if let Some(trailers) = trailers {
                self.h2.write_fields(id, &trailers, true, &mut out);
            }
            if last {
                self.waiting.remove(&id);
            } else {
                self.h2.line_up(id);
            }
        }
        self.write(&out);
    }
}

type Shared = Arc<(Mutex<Http2>, Condvar)>;

/// Serves HTTP/2. Each stream gets a connection of its own to the target.
pub fn serve_http2(mut socket: TcpStream, target: SocketAddr) {
    let h2 = Connection::new(Role::Server);
    let mut greeting = Vec::new();
    h2.greet(&mut greeting);
    let writing = socket.try_clone().expect("a second handle");
    let http2 = Http2 { h2, socket: writing, requests: BTreeMap::new(), waiting: BTreeMap::new() };
    let shared: Shared = Arc::new((Mutex::new(http2), Condvar::new()));
    shared.0.lock().unwrap().write(&greeting);
    let (mut held, mut block) = (Vec::new(), vec![0; 64 * 1024]);
    while let Ok(n @ 1..) = socket.read(&mut block) {
        held.extend_from_slice(&block[..n]);
        if !take_in(&shared, &mut held, target) {
            break;
        }
    }
    // Pending backend requests are cancelled.
    let mut http2 = shared.0.lock().unwrap();
    std::mem::take(&mut http2.requests).values().for_each(|(_, backend)| backend.shutdown(Shutdown::Both));
    let _ = http2.socket.shutdown(Shutdown::Both);
    shared.1.notify_all();
}

/// Handles received bytes. Returns false at the end.
fn take_in(shared: &Shared, held: &mut Vec<u8>, target: SocketAddr) -> bool {
    let (mut head, mut arena, mut out) = (Head::default(), Vec::new(), Vec::new());
    let mut http2 = shared.0.lock().unwrap();
    loop {
        let Ok((skip, event)) = http2.h2.decode(held, &mut head, &mut arena, &mut out) else { return false };
        held.drain(..skip);
        let view = HeadRef { bytes: &arena, head: &head };
        match event {
            Event::NeedMore => break,
            Event::Opened(id) => {
                http2.h2.own(id, Key::from_token(id.into()));
                let request = request_of(view);
                let (sender, receiver) = channel();
                let wire = Wire::tcp(target);
                http2.requests.insert(id, (sender, wire.socket().clone()));
                let shared = shared.clone();
                std::thread::spawn(move || pass_on(&shared, id, wire, &request, &receiver));
            }
            Event::Data(owner, n) => {
                let bytes: Vec<u8> = held.drain(..n).collect();
                if let Some((sender, _)) = owner.and_then(|key| http2.requests.get(&id_of(key))) {
                    let _ = sender.send(Part::Data(bytes));
                }
            }
            Event::Trailers(key) => {
                let lines = view.fields().map(|(_, name, value)| format!("{}: {}\r\n", text(name), text(value)));
                if let Some((sender, _)) = http2.requests.get(&id_of(key)) {
                    let _ = sender.send(Part::Trailers(lines.collect()));
                }
            }
            Event::End(key) => {
                if let Some((sender, _)) = http2.requests.get(&id_of(key)) {
                    let _ = sender.send(Part::End);
                }
            }
            Event::Reset(key, _) => {
                http2.waiting.remove(&id_of(key));
                if let Some((_, backend)) = http2.requests.remove(&id_of(key)) {
                    backend.shutdown(Shutdown::Both);
                }
            }
            Event::Malformed(..) | Event::Unheard(..) => panic!("the balancer sent what is malformed: {event:?}"),
            _ => {}
        }
    }
    http2.write(&out);
    http2.flush();
    shared.1.notify_all();
    true
}

/// The stream's number in its key.
fn id_of(key: Key) -> u32 {
    key.index() as u32
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| byte as char).collect()
}

/// A request in HTTP/1.1 form, true if it is chunked there, and its method.
fn request_of(head: HeadRef<'_>) -> (Vec<u8>, bool, String) {
    let Start::Request { method, path, .. } = head.head.start else { panic!("a request") };
    let method = text(head.get(method));
    let host = text(head.authority().unwrap_or_default());
    let mut lines = format!("{method} {} HTTP/1.1\r\nHost: {host}\r\n", text(head.get(path)));
    let mut framed = head.head.ended;
    for (_, name, value) in head.fields() {
        framed |= name == b"content-length";
        lines.push_str(&format!("{}: {}\r\n", text(name), text(value)));
    }
    if !framed {
        lines.push_str("Transfer-Encoding: chunked\r\n");
    }
    let bytes = format!("{lines}\r\n").chars().map(|one| one as u8).collect();
    (bytes, !framed, method)
}

/// Forwards one request to the backend, and the response back.
fn pass_on(shared: &Shared, id: u32, wire: Wire, request: &(Vec<u8>, bool, String), parts: &Receiver<Part>) {
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
                    let (mut out, mut http2) = (Vec::new(), shared.0.lock().unwrap());
                    http2.h2.delivered(id, bytes.len(), Some(u32::MAX), &mut out);
                    http2.write(&out);
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
    shared.0.lock().unwrap().requests.remove(&id);
}

fn pass_back(shared: &Shared, id: u32, mut wire: Wire, method: &str) {
    // The rest of a request may follow a complete response.
    if response(shared, id, &mut wire, method).is_err() {
        wire.socket().shutdown(Shutdown::Both);
        let (mut out, mut http2) = (Vec::new(), shared.0.lock().unwrap());
        http2.waiting.remove(&id);
        http2.h2.forget(id, ErrorCode::INTERNAL_ERROR, &mut out);
        http2.write(&out);
        // The request's thread must not wait any longer.
        http2.requests.remove(&id);
    }
}

fn response(shared: &Shared, id: u32, wire: &mut Wire, method: &str) -> Result<(), Fault> {
    let head = loop {
        let head = read_head(wire)?;
        let last = head.status() >= 200;
        let framing = head.response_framing(method)?;
        let ended = last && matches!(framing, Framing::None | Framing::Length(0));
        let (mut out, mut http2) = (Vec::new(), shared.0.lock().unwrap());
        http2.h2.write_fields(id, &fields_of(&head), ended, &mut out);
        http2.write(&out);
        if ended {
            return Ok(());
        }
        if last {
            break head;
        }
    };
    let mut reader = BodyReader::new(head.response_framing(method)?);
    while let Some(piece) = reader.piece(wire)? {
        let mut http2 = shared.0.lock().unwrap();
        while http2.waiting.get(&id).is_some_and(|waiting| waiting.bytes.len() > 256 * 1024) {
            http2 = shared.1.wait_timeout(http2, super::DEADLINE).unwrap().0;
        }
        if !http2.requests.contains_key(&id) {
            return Err(Fault::Fin);
        }
        http2.waiting.entry(id).or_default().bytes.extend(piece);
        http2.flush();
    }
    let mut http2 = shared.0.lock().unwrap();
    let waiting = http2.waiting.entry(id).or_default();
    waiting.ended = true;
    if !reader.trailers.is_empty() {
        let mut block = Vec::new();
        reader.trailers.iter().for_each(|(name, value)| {
            zzz_lb::hpack::encode(&mut block, name.as_bytes(), value.as_bytes());
        });
        waiting.trailers = Some(block);
    }
    http2.flush();
    // The connection's reader sends it as the windows allow.
    while http2.waiting.contains_key(&id) && http2.requests.contains_key(&id) {
        http2 = shared.1.wait_timeout(http2, super::DEADLINE).unwrap().0;
    }
    Ok(())
}

fn fields_of(head: &Message) -> Vec<u8> {
    let mut block = Vec::new();
    zzz_lb::hpack::encode(&mut block, b":status", head.status().to_string().as_bytes());
    for (name, value) in &head.fields {
        let bare = name.to_ascii_lowercase();
        if !["connection", "keep-alive", "transfer-encoding", "upgrade"].contains(&bare.as_str()) {
            let value: Vec<u8> = value.chars().map(|one| one as u8).collect();
            zzz_lb::hpack::encode(&mut block, name.as_bytes(), &value);
        }
    }
    block
}
