//! Clients of every kind that run continuously, each request after the previous response, and count every
//! request without a complete and correct response. Also a backend with predictable responses.
//!
//! A loss is a failure that a correct client could not avoid: a connection that was refused, or that was reset
//! or ended before a complete response, or a wrong response. A connection may end after a response that
//! announced it, or before anything was written to it.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::message::chunked;
use super::wire::{Fault, Socket, Wire};
use super::{Backend, Peer, Random, wait_until};

/// The behaviour of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Many requests on a connection, with pauses between them.
    KeepAlive,
    /// One connection per request.
    PerRequest,
    /// Content that must come back byte for byte.
    Upload,
    /// Responses and content in pieces, with pauses.
    Slow,
    /// Several requests at once.
    Pipelined,
    /// A tunnel by Upgrade.
    WebSocket,
    /// A request whose client has ended its direction before the response.
    HalfClosed,
}

/// All kinds.
pub const KINDS: [Kind; 7] =
    [Kind::KeepAlive, Kind::PerRequest, Kind::Upload, Kind::Slow, Kind::Pipelined, Kind::WebSocket, Kind::HalfClosed];

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

/// A lost request.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The kind of its client.
    pub kind: Kind,
    /// The client's port of the connection; `None` if there was none yet.
    pub port: Option<u16>,
    /// The time since the clients started.
    pub at: Duration,
    /// The reason.
    pub why: Why,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} after {:.3} s: {:?}", self.kind, self.at.as_secs_f64(), self.why)
    }
}

/// The number of complete and correct responses, in the order of `KINDS`.
pub type Completed = [u64; KINDS.len()];

/// The clients' results.
#[derive(Debug)]
pub struct Tally {
    /// Requests with complete and correct responses, by kind.
    pub completed: Completed,
    /// Requests without.
    pub lost: Vec<Loss>,
    /// The longest wait for a response.
    pub longest: Duration,
}

impl Tally {
    /// Fails the test if a request was lost.
    #[track_caller]
    pub fn assert_nothing_lost(&self, story: &str) {
        let shown: Vec<String> = self.lost.iter().take(20).map(Loss::to_string).collect();
        let (lost, completed) = (self.lost.len(), self.total());
        assert!(self.lost.is_empty(), "{story}: {lost} lost beside {completed}:\n{}", shown.join("\n"));
    }

    /// The number of requests with complete and correct responses.
    pub fn total(&self) -> u64 {
        self.completed.iter().sum()
    }

    /// The number of clients that could not connect.
    pub fn unconnected(&self) -> usize {
        self.lost.iter().filter(|loss| matches!(loss.why, Why::Connect(_))).count()
    }
}

/// A backend whose responses follow from the requests.
pub fn backend() -> Backend {
    Backend::serve(|mut peer| while serve(&mut peer).is_some() {})
}

/// Serves a request; `None` at the end.
fn serve(peer: &mut Peer) -> Option<()> {
    let head = peer.head().ok()?;
    let framing = head.request_framing().ok()?;
    let path = head.target().to_owned();
    if path == "/tunnel" {
        peer.try_send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").ok()?;
        while let Ok(bytes) = peer.some(64 * 1024) {
            peer.try_send(bytes).ok()?;
        }
        peer.shutdown_write();
        return None;
    }
    let content = peer.body(framing).ok()?.bytes;
    let body = if path.starts_with("/up") { content } else { expected(&path) };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    if !path.starts_with("/slow") {
        return peer.try_send([head.as_bytes(), &body].concat()).ok();
    }
    peer.try_send(head).ok()?;
    let pause: u64 = path.rsplit('/').next()?.parse().ok()?;
    for piece in body.chunks(body.len().div_ceil(5).max(1)) {
        thread::sleep(Duration::from_millis(pause / 5));
        peer.try_send(piece).ok()?;
    }
    Some(())
}

/// The content of a path.
fn expected(path: &str) -> Vec<u8> {
    let seed = path.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let mut random = Random::new(seed);
    let length = random.below(20_000);
    random.body(length)
}

/// The state that all clients share.
struct Common {
    address: SocketAddr,
    begun: Instant,
    stop: AtomicBool,
    completed: [AtomicU64; KINDS.len()],
    longest_us: AtomicU64,
    lost: Mutex<Vec<Loss>>,
}

impl Common {
    fn completed(&self) -> Completed {
        self.completed.each_ref().map(|answers| answers.load(SeqCst))
    }
}

/// Clients that run until they are stopped.
pub struct Traffic {
    common: Arc<Common>,
    clients: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Starts `each` clients of each kind.
    pub fn start(address: SocketAddr, kinds: &[Kind], each: usize, seed: u64) -> Traffic {
        let common = Arc::new(Common {
            address,
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            completed: Default::default(),
            longest_us: AtomicU64::new(0),
            lost: Mutex::new(Vec::new()),
        });
        let client = |(n, kind): (usize, Kind)| {
            let common = common.clone();
            let random = Random::new(seed.wrapping_add(n as u64));
            thread::spawn(move || Client { common, kind, random, wire: None, port: None }.run())
        };
        let all = (0..each).flat_map(|_| kinds.iter().copied());
        let clients = all.enumerate().map(client).collect();
        Traffic { common, clients }
    }

    /// The number of requests answered so far.
    pub fn completed(&self) -> Completed {
        self.common.completed()
    }

    /// Waits until a client of each kind has had a response.
    #[track_caller]
    pub fn wait_for_each_kind(&self) {
        wait_until("every kind of client has begun", || self.completed().iter().all(|&answers| answers > 0));
    }

    /// Lets every client finish its current request.
    pub fn stop(self) -> Tally {
        self.common.stop.store(true, SeqCst);
        for client in self.clients {
            client.join().expect("clients do not panic");
        }
        let lost = std::mem::take(&mut *self.common.lost.lock().unwrap());
        let longest = Duration::from_micros(self.common.longest_us.load(SeqCst));
        Tally { completed: self.common.completed(), lost, longest }
    }
}

struct Client {
    common: Arc<Common>,
    kind: Kind,
    random: Random,
    wire: Option<Wire>,
    /// The port of the last connection.
    port: Option<u16>,
}

impl Client {
    fn run(mut self) {
        while !self.common.stop.load(SeqCst) {
            let begun = Instant::now();
            let done = match self.kind {
                Kind::KeepAlive => self.keep_alive(),
                Kind::PerRequest => self.per_request(),
                Kind::Upload => self.upload(),
                Kind::Slow => self.slow(),
                Kind::Pipelined => self.pipelined(),
                Kind::WebSocket => self.tunnel(),
                Kind::HalfClosed => self.half_closed(),
            };
            match done {
                Ok(requests) => {
                    self.common.completed[self.kind as usize].fetch_add(requests, SeqCst);
                    self.common.longest_us.fetch_max(begun.elapsed().as_micros() as u64, SeqCst);
                }
                Err(why) => {
                    self.wire = None;
                    let loss = Loss { kind: self.kind, port: self.port, at: self.common.begun.elapsed(), why };
                    self.common.lost.lock().unwrap().push(loss);
                    // A closed port is not tried thousands of times per second.
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    fn pause(&mut self, most_ms: usize) {
        thread::sleep(Duration::from_millis(self.random.below(most_ms) as u64));
    }

    fn path(&mut self) -> String {
        format!("/a/{}", self.random.below(1_000_000))
    }

    fn connect(&mut self) -> Result<Wire, Why> {
        self.port = None;
        let socket = TcpStream::connect_timeout(&self.common.address, Duration::from_secs(10));
        let socket = socket.map_err(|error| Why::Connect(error.to_string()))?;
        self.port = socket.local_addr().ok().map(|address| address.port());
        Ok(Wire::new(Socket::Tcp(socket)))
    }

    /// The persistent connection, or a new one if it has ended.
    fn kept(&mut self) -> Result<Wire, Why> {
        let Some(mut wire) = self.wire.take() else { return self.connect() };
        if wire.silent_for(Duration::from_millis(1)) { Ok(wire) } else { self.connect() }
    }

    /// Reads a complete and correct response. Returns true if the connection persists.
    fn answer(&self, wire: &mut Wire, method: &str, body: &[u8]) -> Result<bool, Why> {
        match wire.try_response(method) {
            Ok(answer) if answer.status() == 200 && answer.body.bytes == body => Ok(!answer.connection_has("close")),
            Ok(answer) => Err(Why::Wrong(format!(
                "{} with {} bytes of {}: {}",
                answer.start,
                answer.body.bytes.len(),
                body.len(),
                super::shown(&answer.body.bytes[..answer.body.bytes.len().min(80)])
            ))),
            Err((fault, part)) => {
                let part = part.map(|part| format!(" after {} and {} bytes", part.start, part.body.bytes.len()));
                Err(Why::Unanswered(format!("{fault:?}{}", part.unwrap_or_default())))
            }
        }
    }

    fn keep_alive(&mut self) -> Result<u64, Why> {
        self.pause(150);
        let (mut wire, path) = (self.kept()?, self.path());
        send(&wire, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))?;
        if self.answer(&mut wire, "GET", &expected(&path))? {
            self.wire = Some(wire);
        }
        Ok(1)
    }

    fn per_request(&mut self) -> Result<u64, Why> {
        let (mut wire, path) = (self.connect()?, self.path());
        send(&wire, format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))?;
        self.answer(&mut wire, "GET", &expected(&path))?;
        Ok(1)
    }

    fn upload(&mut self) -> Result<u64, Why> {
        let mut wire = self.kept()?;
        let length = self.random.below(300_000);
        let body = self.random.body(length);
        let mut bytes = b"POST /up HTTP/1.1\r\nHost: a\r\n".to_vec();
        if self.random.below(2) == 0 {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            bytes.extend_from_slice(&body);
        } else {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            bytes.extend_from_slice(&chunked(&self.random.pieces(&body, 9_000), &[]));
        }
        send(&wire, bytes)?;
        if self.answer(&mut wire, "POST", &body)? {
            self.wire = Some(wire);
        }
        Ok(1)
    }

    fn slow(&mut self) -> Result<u64, Why> {
        let mut wire = self.kept()?;
        let goes_on = if self.random.below(2) == 0 {
            let path = format!("/slow/{}/{}", self.random.below(1000), 100 + self.random.below(700));
            send(&wire, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))?;
            self.answer(&mut wire, "GET", &expected(&path))?
        } else {
            let length = 1 + self.random.below(50_000);
            let body = self.random.body(length);
            send(&wire, format!("PUT /up HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"))?;
            for piece in body.chunks(length.div_ceil(5)) {
                self.pause(120);
                send(&wire, piece)?;
            }
            self.answer(&mut wire, "PUT", &body)?
        };
        if goes_on {
            self.wire = Some(wire);
        }
        Ok(1)
    }

    fn pipelined(&mut self) -> Result<u64, Why> {
        self.pause(20);
        let mut wire = self.kept()?;
        let paths: Vec<String> = (0..2 + self.random.below(5)).map(|_| self.path()).collect();
        let requests: String = paths.iter().map(|path| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        send(&wire, requests)?;
        let mut answered = 0;
        for path in &paths {
            let goes_on = self.answer(&mut wire, "GET", &expected(path))?;
            answered += 1;
            if !goes_on {
                // Requests after a response that ends the connection are ignored.
                return Ok(answered);
            }
        }
        self.wire = Some(wire);
        Ok(answered)
    }

    fn tunnel(&mut self) -> Result<u64, Why> {
        let mut wire = self.connect()?;
        send(&wire, "GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")?;
        let head = wire.head().map_err(|fault| Why::Unanswered(format!("{fault:?} before 101")))?;
        if head.status() != 101 {
            return Err(Why::Wrong(head.start));
        }
        for _ in 0..3 + self.random.below(6) {
            let length = 1 + self.random.below(20_000);
            let bytes = self.random.body(length);
            send(&wire, &bytes)?;
            match wire.exactly(length) {
                Ok(back) if back == bytes => {}
                Ok(_) => return Err(Why::Wrong("other bytes in a tunnel".to_owned())),
                Err(fault) => return Err(Why::Unanswered(format!("{fault:?} in a tunnel"))),
            }
            self.pause(100);
        }
        wire.shutdown_write();
        match wire.rest() {
            (rest, Fault::Fin) if rest.is_empty() => Ok(1),
            (rest, fault) => Err(Why::Wrong(format!("{fault:?} after {} bytes at a tunnel's end", rest.len()))),
        }
    }

    fn half_closed(&mut self) -> Result<u64, Why> {
        self.pause(50);
        let (mut wire, path) = (self.connect()?, self.path());
        send(&wire, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))?;
        wire.shutdown_write();
        self.answer(&mut wire, "GET", &expected(&path))?;
        Ok(1)
    }
}

fn send(wire: &Wire, bytes: impl AsRef<[u8]>) -> Result<(), Why> {
    wire.try_send(bytes).map_err(|error| Why::Unanswered(format!("sending: {error}")))
}
