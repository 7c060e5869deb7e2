//! Scripted backends: each connection is a thread that runs the script.

use super::message::{BodyReader, Framing, Message, response};
use super::wire::{Fault, Socket, Wire};
use super::{DEADLINE, wait_until};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::JoinHandle;

/// The observations of a backend, shared with its connections.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    open: AtomicUsize,
    cut: AtomicUsize,
    requests: Mutex<Vec<Message>>,
    faults: Mutex<Vec<String>>,
    sockets: Mutex<Vec<Weak<Socket>>>,
    stopping: AtomicBool,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// A backend on a free loopback port, or on a Unix socket.
///
/// Dropping it closes its connections, and fails the test if it received something malformed.
pub struct Backend {
    seen: Arc<Seen>,
    spec: String,
    address: Option<SocketAddr>,
    path: Option<PathBuf>,
    accepting: Option<JoinHandle<()>>,
}

/// One connection of a backend, for its script.
pub struct Peer {
    wire: Wire,
    /// The number of this connection, from 0.
    pub nth: usize,
    seen: Arc<Seen>,
}

impl Deref for Peer {
    type Target = Wire;
    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl DerefMut for Peer {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}

impl Peer {
    /// The next request's head, recorded as a request; `None` at the end.
    pub fn request_head(&mut self) -> Option<Message> {
        let head = self.read_head()?;
        self.seen.requests.lock().unwrap().push(head.clone());
        Some(head)
    }

    /// The next complete request, recorded; `None` at the end or if one was cut short.
    pub fn request(&mut self) -> Option<Message> {
        let mut message = self.read_head()?;
        let framing = self.framing(&message)?;
        match self.wire.body(framing) {
            Ok(body) => message.body = body,
            Err((fault, _)) => return self.cut(fault),
        }
        self.seen.requests.lock().unwrap().push(message.clone());
        Some(message)
    }

    fn read_head(&mut self) -> Option<Message> {
        match self.wire.head() {
            Ok(head) if head.start.ends_with(" HTTP/1.1") && head.start.split(' ').count() == 3 => Some(head),
            Ok(head) => self.cut(Fault::Malformed(format!("request line {:?}", head.start))),
            Err(Fault::Fin | Fault::Reset | Fault::Late) => None,
            Err(fault) => self.cut(fault),
        }
    }

    /// The framing of the request's body.
    pub fn framing(&mut self, head: &Message) -> Option<Framing> {
        head.request_framing().map_or_else(|fault| self.cut(fault), Some)
    }

    fn cut<T>(&self, fault: Fault) -> Option<T> {
        self.seen.cut.fetch_add(1, SeqCst);
        if let Fault::Malformed(what) = fault {
            self.seen.faults.lock().unwrap().push(what);
        }
        None
    }

    /// Closes the connection with RST.
    pub fn reset(self) {
        self.wire.reset();
    }

    /// Sends a request's body back as it arrives, with the same framing and trailers. Returns false at the end.
    fn echo(&mut self) -> bool {
        let Some(head) = self.request_head() else { return false };
        let Some(framing) = self.framing(&head) else { return false };
        let told = match framing {
            Framing::Chunked => "Transfer-Encoding: chunked".to_string(),
            Framing::Length(length) => format!("Content-Length: {length}"),
            _ => "Content-Length: 0".to_string(),
        };
        let mut sent = self.try_send(format!("HTTP/1.1 200 OK\r\nEcho-Target: {}\r\n{told}\r\n\r\n", head.target()));
        let mut reader = BodyReader::new(framing);
        loop {
            match reader.piece(&mut self.wire) {
                Ok(Some(piece)) if framing == Framing::Chunked => {
                    let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
                    sent = sent.and_then(|()| self.try_send(chunk));
                }
                Ok(Some(piece)) => sent = sent.and_then(|()| self.try_send(piece)),
                Ok(None) => break,
                Err(fault) => return self.cut::<()>(fault).is_some(),
            }
        }
        if framing == Framing::Chunked {
            let lines: String = reader.trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            sent = sent.and_then(|()| self.try_send(format!("0\r\n{lines}\r\n")));
        }
        sent.is_ok()
    }
}

impl Backend {
    /// A backend that runs `script` for every connection and closes it afterwards.
    pub fn serve(script: impl Fn(Peer) + Send + Sync + 'static) -> Backend {
        Backend::serve_on("127.0.0.1:0", script).expect("loopback has a free port")
    }

    /// Like `serve`, on the given address; `None` if this machine does not have it.
    pub fn serve_on(address: &str, script: impl Fn(Peer) + Send + Sync + 'static) -> Option<Backend> {
        let listener = TcpListener::bind(address).ok()?;
        let address = listener.local_addr().expect("a bound listener has an address");
        Some(Backend::start(Listener::Tcp(listener), address.to_string(), Some(address), None, script))
    }

    /// Like `serve`, on a Unix socket.
    pub fn serve_unix(path: &Path, script: impl Fn(Peer) + Send + Sync + 'static) -> Backend {
        let listener = UnixListener::bind(path).expect("the path is free");
        let spec = format!("unix:{}", path.display());
        Backend::start(Listener::Unix(listener, path.into()), spec, None, Some(path.into()), script)
    }

    /// Answers each request with `done`, and one for `/held` once the gate is open.
    pub fn gated(gate: &Gate) -> Backend {
        let gate = gate.clone();
        Backend::serve(move |mut peer| {
            while let Some(request) = peer.request() {
                if request.target() == "/held" {
                    gate.pass();
                }
                if peer.try_send(response("", b"done")).is_err() {
                    return;
                }
            }
        })
    }

    /// Answers every complete request with these bytes.
    pub fn replying(bytes: impl Into<Vec<u8>>) -> Backend {
        Backend::serve(reply(bytes.into()))
    }

    /// Answers every request with its name.
    pub fn named(name: &str) -> Backend {
        Backend::replying(response("", name.as_bytes()))
    }

    /// Like `named`, on the given loopback address.
    pub fn named_on(address: &str, name: &str) -> Backend {
        Backend::serve_on(address, reply(response("", name.as_bytes()))).expect("all of 127.0.0.0/8 is loopback")
    }

    /// Sends every body back as it arrives, with the same framing.
    pub fn echo() -> Backend {
        Backend::serve(|mut peer| while peer.echo() {})
    }

    fn start(
        listener: Listener,
        spec: String,
        address: Option<SocketAddr>,
        path: Option<PathBuf>,
        script: impl Fn(Peer) + Send + Sync + 'static,
    ) -> Backend {
        let seen = Arc::new(Seen::default());
        let for_thread = seen.clone();
        let accepting = std::thread::spawn(move || accept(&listener, &for_thread, Arc::new(script)));
        Backend { seen, spec, address, path, accepting: Some(accepting) }
    }

    /// The `-b` argument.
    pub fn spec(&self) -> String {
        self.spec.clone()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(SeqCst)
    }

    /// Connections whose script has not returned.
    pub fn open(&self) -> usize {
        self.seen.open.load(SeqCst)
    }

    /// Requests that ended before they were complete.
    pub fn cut(&self) -> usize {
        self.seen.cut.load(SeqCst)
    }

    /// The requests recorded so far.
    pub fn requests(&self) -> Vec<Message> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// The number of recorded requests.
    pub fn count(&self) -> usize {
        self.seen.requests.lock().unwrap().len()
    }

    /// The last recorded request.
    #[track_caller]
    pub fn last(&self) -> Message {
        self.requests().pop().expect("the backend has had a request")
    }

    /// Waits until `count` requests are recorded.
    #[track_caller]
    pub fn wait_for_requests(&self, count: usize) {
        wait_until("requests reach the backend", || self.count() >= count);
    }

    /// Waits until every connection has ended.
    #[track_caller]
    pub fn wait_until_idle(&self) {
        wait_until("the backend's connections end", || self.open() == 0);
    }

    /// Stops listening and closes every connection. New connections are then refused.
    pub fn stop(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        self.seen.stopping.store(true, SeqCst);
        match (&self.address, &self.path) {
            (Some(address), _) => _ = TcpStream::connect_timeout(address, DEADLINE),
            (_, Some(path)) => _ = UnixStream::connect(path),
            _ => {}
        }
        let _ = accepting.join();
        for socket in self.seen.sockets.lock().unwrap().drain(..) {
            if let Some(socket) = socket.upgrade() {
                socket.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop();
        let faults = std::mem::take(&mut *self.seen.faults.lock().unwrap());
        if !faults.is_empty() && !std::thread::panicking() {
            panic!("a backend was sent malformed messages: {faults:?}");
        }
    }
}

/// A script that answers every complete request with these bytes.
fn reply(bytes: Vec<u8>) -> impl Fn(Peer) + Send + Sync + 'static {
    move |mut peer| {
        while peer.request().is_some() {
            if peer.try_send(&bytes).is_err() {
                break;
            }
        }
    }
}

fn accept(listener: &Listener, seen: &Arc<Seen>, script: Arc<impl Fn(Peer) + Send + Sync + 'static>) {
    loop {
        let socket = match listener {
            Listener::Tcp(listener) => listener.accept().map(|(socket, _)| Socket::Tcp(socket)),
            Listener::Unix(listener, _) => listener.accept().map(|(socket, _)| Socket::Unix(socket)),
        };
        if seen.stopping.load(SeqCst) {
            break;
        }
        let Ok(socket) = socket else { continue };
        let wire = Wire::new(socket);
        let mut sockets = seen.sockets.lock().unwrap();
        sockets.retain(|socket| socket.strong_count() > 0);
        sockets.push(Arc::downgrade(wire.socket()));
        drop(sockets);
        let nth = seen.connections.fetch_add(1, SeqCst);
        seen.open.fetch_add(1, SeqCst);
        let (script, seen) = (script.clone(), seen.clone());
        std::thread::spawn(move || {
            let _open = Open(seen.clone());
            script(Peer { wire, nth, seen });
        });
    }
    if let Listener::Unix(_, path) = listener {
        let _ = std::fs::remove_file(path);
    }
}

/// Counts a connection as open until its script returns or panics.
struct Open(Arc<Seen>);

impl Drop for Open {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.faults.lock().unwrap().push("a backend's script panicked".into());
        }
        self.0.open.fetch_sub(1, SeqCst);
    }
}

/// A condition for other threads: shut until opened, then open forever.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A shut gate.
    pub fn shut() -> Gate {
        Gate::default()
    }

    /// Opens the gate.
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits for the gate. Returns false if it did not open in time.
    pub fn pass(&self) -> bool {
        let guard = self.0.0.lock().unwrap();
        *self.0.1.wait_timeout_while(guard, DEADLINE, |open| !*open).unwrap().0
    }
}
