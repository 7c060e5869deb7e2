//! Clients of every kind that run continuously, each request after the previous response, and count every
//! request without a complete and correct response. Also a backend with predictable responses.
//!
//! A loss is a failure that a correct client could not avoid: a connection that was refused, or that was reset
//! or ended before a complete response, or a wrong response. A connection may end after a response that
//! announced it, or before anything was written to it. A stream above the last one of a GOAWAY is no loss,
//! because its client sends the request again.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{DEADLINE, Random};

mod dial;
mod http1;
mod http2;
mod server;
mod session;

pub use dial::{Dial, Link, Target, Why};
pub use server::backend;
pub use session::{Session, State, Stream};

use http1::Http1;
use http2::Http2;

/// The requests of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
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
    /// Several streams of HTTP/2 at once.
    Streams,
    /// Unary gRPC calls.
    Calls,
    /// A gRPC stream in both directions.
    Conversation,
    /// A WebSocket over a stream of HTTP/2.
    StreamSocket,
}

impl Work {
    /// The protocol in the TLS handshake.
    fn protocol(self) -> &'static [u8] {
        match self {
            Work::Streams | Work::Calls | Work::Conversation | Work::StreamSocket => b"h2",
            _ => b"http/1.1",
        }
    }
}

/// The behaviour of a client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its requests.
    pub work: Work,
    /// Its way to the balancer.
    pub link: Link,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} over {:?}", self.work, self.link)
    }
}

const fn plain(work: Work) -> Kind {
    Kind { work, link: Link::Plain }
}

/// All kinds over HTTP/1.1 without TLS.
pub const KINDS: [Kind; 7] = [
    plain(Work::KeepAlive),
    plain(Work::PerRequest),
    plain(Work::Upload),
    plain(Work::Slow),
    plain(Work::Pipelined),
    plain(Work::WebSocket),
    plain(Work::HalfClosed),
];

/// Kinds over HTTP/2, and over TLS.
pub const FRONT: [Kind; 18] = [
    plain(Work::Streams),
    plain(Work::Calls),
    plain(Work::Conversation),
    plain(Work::StreamSocket),
    Kind { work: Work::PerRequest, link: Link::Fresh },
    Kind { work: Work::Upload, link: Link::Fresh },
    Kind { work: Work::HalfClosed, link: Link::Fresh },
    Kind { work: Work::Streams, link: Link::Fresh },
    Kind { work: Work::Conversation, link: Link::Fresh },
    Kind { work: Work::KeepAlive, link: Link::Resumed },
    Kind { work: Work::PerRequest, link: Link::Resumed },
    Kind { work: Work::WebSocket, link: Link::Resumed },
    Kind { work: Work::Streams, link: Link::Resumed },
    Kind { work: Work::Calls, link: Link::Resumed },
    Kind { work: Work::StreamSocket, link: Link::Resumed },
    Kind { work: Work::PerRequest, link: Link::Resumed12 },
    Kind { work: Work::Slow, link: Link::Resumed12 },
    Kind { work: Work::Streams, link: Link::Resumed12 },
];

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
        write!(f, "{:?} after {:.3} s, port {:?}: {:?}", self.kind, self.at.as_secs_f64(), self.port, self.why)
    }
}

/// The clients' results.
#[derive(Debug)]
pub struct Tally {
    /// Requests with complete and correct responses, in the order of the kinds.
    pub completed: Vec<u64>,
    /// Requests without.
    pub lost: Vec<Loss>,
    /// The longest wait for a response.
    pub longest: Duration,
    /// Requests over HTTP/2 that were sent again because they were not processed.
    pub again: u64,
    /// Handshakes that resumed a session.
    pub resumed: u64,
    /// Full handshakes of clients with a session to resume.
    pub unresumed: u64,
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

/// The state that all clients share.
struct Common {
    begun: Instant,
    stop: AtomicBool,
    completed: Vec<AtomicU64>,
    longest_us: AtomicU64,
    again: AtomicU64,
    resumed: AtomicU64,
    unresumed: AtomicU64,
    lost: Mutex<Vec<Loss>>,
}

/// Clients that run until they are stopped.
pub struct Traffic {
    common: Arc<Common>,
    clients: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Starts `each` clients of each kind.
    pub fn start(target: Target, kinds: &[Kind], each: usize, seed: u64) -> Traffic {
        let common = Arc::new(Common {
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            completed: kinds.iter().map(|_| AtomicU64::new(0)).collect(),
            longest_us: AtomicU64::new(0),
            again: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            unresumed: AtomicU64::new(0),
            lost: Mutex::new(Vec::new()),
        });
        let target = Arc::new(target);
        let client = |(n, (nth, kind)): (usize, (usize, Kind))| {
            let random = Random::new(seed.wrapping_add(n as u64));
            let client = Client::new(kind, Dial::new(target.clone(), kind.link, kind.work.protocol()), random);
            let common = common.clone();
            thread::spawn(move || common.run(nth, client))
        };
        let all = (0..each).flat_map(|_| kinds.iter().copied().enumerate());
        let clients = all.enumerate().map(client).collect();
        Traffic { common, clients }
    }

    /// The number of requests answered so far, in the order of the kinds.
    pub fn completed(&self) -> Vec<u64> {
        self.common.completed()
    }

    /// Waits until a client of each kind has had a response.
    #[track_caller]
    pub fn wait_for_each_kind(&self) {
        let begun = Instant::now();
        while self.completed().contains(&0) {
            let lost = self.common.lost.lock().unwrap();
            assert!(begun.elapsed() < DEADLINE, "a kind of client never begins: {:?}: {lost:?}", self.completed());
            drop(lost);
            thread::sleep(Duration::from_millis(3));
        }
    }

    /// Lets every client finish its current request.
    pub fn stop(self) -> Tally {
        self.common.stop.store(true, SeqCst);
        let Traffic { common, clients } = self;
        for client in clients {
            client.join().expect("clients do not panic");
        }
        let lost = std::mem::take(&mut *common.lost.lock().unwrap());
        let longest = Duration::from_micros(common.longest_us.load(SeqCst));
        let [again, resumed, unresumed] =
            [&common.again, &common.resumed, &common.unresumed].map(|count| count.load(SeqCst));
        Tally { completed: common.completed(), lost, longest, again, resumed, unresumed }
    }
}

/// A client of either version.
enum Version {
    Http1(Http1),
    Http2(Box<Http2>),
}

struct Client {
    kind: Kind,
    version: Version,
}

impl Client {
    fn new(kind: Kind, dial: Dial, random: Random) -> Client {
        let version = match kind.work.protocol() {
            b"h2" => Version::Http2(Box::new(Http2::new(dial, random))),
            _ => Version::Http1(Http1::new(dial, random)),
        };
        Client { kind, version }
    }

    fn request(&mut self) -> Result<u64, Why> {
        match (&mut self.version, self.kind.work) {
            (Version::Http1(client), Work::KeepAlive) => client.keep_alive(),
            (Version::Http1(client), Work::PerRequest) => client.per_request(),
            (Version::Http1(client), Work::Upload) => client.upload(),
            (Version::Http1(client), Work::Slow) => client.slow(),
            (Version::Http1(client), Work::Pipelined) => client.pipelined(),
            (Version::Http1(client), Work::WebSocket) => client.tunnel(),
            (Version::Http1(client), Work::HalfClosed) => client.half_closed(),
            (Version::Http2(client), Work::Streams) => client.streams(),
            (Version::Http2(client), Work::Calls) => client.calls(),
            (Version::Http2(client), Work::Conversation) => client.conversation(),
            (Version::Http2(client), Work::StreamSocket) => client.socket(),
            (_, work) => unreachable!("{work:?} over its own version"),
        }
    }

    fn dial(&self) -> &Dial {
        match &self.version {
            Version::Http1(client) => &client.dial,
            Version::Http2(client) => &client.dial,
        }
    }
}

impl Common {
    fn completed(&self) -> Vec<u64> {
        self.completed.iter().map(|answers| answers.load(SeqCst)).collect()
    }

    fn run(&self, nth: usize, mut client: Client) {
        while !self.stop.load(SeqCst) {
            let begun = Instant::now();
            match client.request() {
                Ok(requests) => {
                    self.completed[nth].fetch_add(requests, SeqCst);
                    self.longest_us.fetch_max(begun.elapsed().as_micros() as u64, SeqCst);
                }
                Err(why) => {
                    let port = client.dial().port;
                    let loss = Loss { kind: client.kind, port, at: self.begun.elapsed(), why };
                    self.lost.lock().unwrap().push(loss);
                    // A closed port is not tried thousands of times per second.
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
        self.resumed.fetch_add(client.dial().resumed, SeqCst);
        self.unresumed.fetch_add(client.dial().unresumed, SeqCst);
        if let Version::Http2(client) = &client.version {
            self.again.fetch_add(client.again, SeqCst);
        }
    }
}
