//! The virtual network. Its links have two directions that delay, split and coalesce bytes, with bounded buffers,
//! ends and resets. The virtual clock, the dice and the ledger of exchanges are here too, because all parts of a
//! scenario share them.
//!
//! After a reset the proxy can still read the bytes that had arrived, as on Linux. For everyone else a reset may
//! destroy them, as on other systems.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use zzz_lb::collections::random::Random;

/// The two ends of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// The end of the client or the backend.
    Remote,
    /// The end of the proxy.
    Proxy,
}

impl End {
    fn other(self) -> End {
        if self == End::Remote { End::Proxy } else { End::Remote }
    }
}

/// An event at a certain time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// The first bytes on their way on a link arrive at an end.
    Arrive(usize, End),
    /// An end that found no room may send again.
    Space(usize, End),
    /// A client or backend asked to be called.
    Tick(usize),
    /// A connection is established, or refused.
    Connect(usize),
    /// A client begins.
    Begin(usize),
}

/// A planted fault that the checks must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sabotage {
    Nothing,
    /// One byte from a backend is changed on its way.
    FlippedByte,
    /// The shell does not read again when the proxy says so.
    LostReceive,
    /// A reset by the proxy reaches its client as a proper end.
    ResetAsEnd,
    /// The shell does not give the proxy a new plan.
    LostPlan,
    /// The proxy gets a WINDOW_UPDATE that the backend or the client does not know of.
    StrayCredit,
    /// A POST is delivered to its backend a second time.
    SecondDelivery,
    /// A client gets its response a second time.
    SecondResponse,
    /// A tunnel that a backend cuts ends properly.
    CutAsEnd,
    /// A backend proves the handshake of a WebSocket for another key.
    WrongProof,
}

impl Sabotage {
    /// True for a whole message that is to be sent twice.
    fn is_repeated(self, bytes: &[u8]) -> bool {
        let start: &[u8] = match self {
            Sabotage::SecondDelivery => b"POST ",
            Sabotage::SecondResponse => b"HTTP/1.1 200 ",
            _ => return false,
        };
        let text = String::from_utf8_lossy(bytes);
        let head = text.find("\r\n\r\n").map(|end| &text[..end]).filter(|_| bytes.starts_with(start));
        let length = head.and_then(|head| head.split("\r\n").find_map(|line| line.strip_prefix("Content-Length: ")));
        let length = length.and_then(|length| length.parse::<usize>().ok());
        head.zip(length).is_some_and(|(head, length)| head.len() + 4 + length == bytes.len())
    }
}

enum Flight {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

/// One end of a link: the bytes that have arrived, and the state of both directions.
#[derive(Default)]
pub(super) struct Half {
    flying: VecDeque<Flight>,
    flying_bytes: usize,
    last_arrival_us: u64,
    inbox: Vec<u8>,
    /// The other end has ended its direction.
    pub(super) fin: bool,
    /// The connection was reset.
    pub(super) reset: bool,
    /// This end has ended its direction.
    finished: bool,
    pub(super) closed: bool,
    blocked: bool,
    capacity: usize,
}

/// A connection.
pub(super) struct Link {
    halves: [Half; 2],
    latency_us: u64,
    jitter_us: u64,
    segment: usize,
}

/// The facts about one exchange.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) method: &'static str,
    /// The number of bytes of the request content.
    pub(super) size: usize,
    /// The client's number, with which its address ends.
    pub(super) client: usize,
    pub(super) old: bool,
    pub(super) upgrade: bool,
    /// The upgrade is to WebSocket, so a backend over HTTP/2 may accept it.
    pub(super) websocket: bool,
    /// The client asks for the WebSocket by an extended CONNECT (RFC 8441).
    pub(super) connect: bool,
    /// The numbers of the deliveries that became tunnels, and of those whose handshake proves nothing.
    pub(super) switched: Vec<usize>,
    pub(super) unproved: Vec<usize>,
    pub(super) expects: bool,
    /// Trailers follow the content. They are sent only once.
    pub(super) trailers: bool,
    /// The Connection field names a further field.
    pub(super) named: bool,
    /// The request has two Cookie fields, which reach the backend as one (RFC 9113, 8.2.3).
    pub(super) crumbs: bool,
    /// The numbers of the deliveries whose response has trailers that must reach the client.
    pub(super) trailed: Vec<usize>,
    /// The client has begun to send the request.
    pub(super) begun: bool,
    /// The number of times a backend has read the head.
    pub(super) deliveries: usize,
    /// A backend has given a reason for a failure.
    pub(super) excused: bool,
    /// A backend has responded before the request was complete.
    pub(super) early: bool,
    /// The numbers of the deliveries whose response was truncated.
    pub(super) cut: Vec<usize>,
    /// The number of final responses that a client has begun to read.
    pub(super) answers: usize,
}

impl Entry {
    /// True if the method has content.
    pub(super) fn sends(&self) -> bool {
        matches!(self.method, "POST" | "PUT" | "PATCH")
    }

    /// True if the request may be served twice.
    pub(super) fn is_idempotent(&self) -> bool {
        !matches!(self.method, "POST" | "PATCH") && !self.connect
    }

    /// Returns the tag of the request's trailers, or of the trailers of the response to a delivery.
    pub(super) fn tag(id: usize, delivery: Option<usize>) -> String {
        delivery.map_or(format!("up-{id}"), |delivery| format!("down-{id}-{delivery}"))
    }

    /// True if the request may be sent again after a backend's connection broke.
    pub(super) fn is_replayable(&self) -> bool {
        self.size == 0 && !self.trailers && self.is_idempotent()
    }
}

/// The state that the parts of a scenario share.
pub(super) struct Net {
    pub(super) now_us: u64,
    pub(super) dice: Dice,
    pub(super) events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    links: Vec<Link>,
    pub(super) ledger: Vec<Entry>,
    pub(super) failure: Option<String>,
    pub(super) verbose: bool,
    pub(super) sabotage: Sabotage,
    /// Many requests ask for a WebSocket.
    pub(super) websockets: bool,
    /// Some backend over HTTP/2 accepts no extended CONNECT.
    pub(super) no_connect: bool,
    /// The scenario has no faults, so everything must succeed.
    pub(super) clean: bool,
    /// Much of the content is large.
    pub(super) bulky: bool,
    /// Some backend accepts every connection.
    pub(super) connectable: bool,
    /// Some backend accepts connections and drops them at once.
    pub(super) dropping: bool,
    /// Some backend closes idle connections soon.
    pub(super) idle_closers: bool,
    /// A connection broke that carried several requests. None of them may be tried forever.
    pub(super) broke: bool,
    pub(super) draining: bool,
    /// Every client was cut off.
    pub(super) cut: bool,
    /// Some backend has a limit of requests in flight, so other requests may wait too long.
    pub(super) limited: bool,
    /// Retries have a budget, so a due retry may be refused.
    pub(super) rationed: bool,
    /// The number of probes of each backend since the plan changed.
    pub(super) probes: Vec<usize>,
}

/// Random choices from a seed.
pub(super) struct Dice(pub(super) Random);

impl Dice {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound as u64) as usize
    }

    pub(super) fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    pub(super) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

macro_rules! say {
    ($net:expr, $($text:tt)*) => {
        if $net.verbose {
            eprintln!("{:>12.6} {}", $net.now_us as f64 / 1e6, format_args!($($text)*));
        }
    };
}
pub(super) use say;

impl Net {
    pub(super) fn new(seed: u64, sabotage: Sabotage, verbose: bool) -> Net {
        Net {
            now_us: 1_000_000,
            dice: Dice(Random::new(seed)),
            events: BinaryHeap::new(),
            sequence: 0,
            links: Vec::new(),
            ledger: Vec::new(),
            failure: None,
            verbose,
            sabotage,
            websockets: false,
            no_connect: false,
            clean: false,
            bulky: false,
            connectable: true,
            dropping: false,
            idle_closers: false,
            broke: false,
            draining: false,
            cut: false,
            limited: false,
            rationed: false,
            probes: Vec::new(),
        }
    }

    /// Notes a failure. The first one counts.
    pub(super) fn fail(&mut self, text: String) {
        say!(self, "FAILED: {text}");
        if self.failure.is_none() {
            self.failure = Some(format!("at {:.6} s: {text}", self.now_us as f64 / 1e6));
        }
    }

    pub(super) fn at(&mut self, time_us: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((time_us.max(self.now_us), self.sequence, event)));
    }

    /// Schedules a call of the remote end of a link. It is never immediate, so that time passes.
    pub(super) fn tick(&mut self, link: usize, after_us: u64) {
        self.at(self.now_us + after_us.max(1), Event::Tick(link));
    }

    /// Schedules the pause after `n` bytes of a sender with this pace: so many bytes, then a pause of so many
    /// microseconds. Returns when the sender may go on; `None` if there is no pause.
    pub(super) fn pause(&mut self, link: usize, pace: Option<(usize, u64)>, n: usize) -> Option<u64> {
        let (bytes, pause_us) = pace.filter(|_| n > 0)?;
        let pause_us = pause_us * n as u64 / bytes as u64;
        self.tick(link, pause_us);
        Some(self.now_us + pause_us)
    }

    /// Adds a link with the qualities of some network.
    pub(super) fn link(&mut self) -> usize {
        let capacity = |dice: &mut Dice| dice.pick(&[2_000, 16_000, 65_536, 65_536, 200_000]);
        let near = self.dice.percent(50);
        let link = Link {
            halves: [
                Half { capacity: capacity(&mut self.dice), ..Half::default() },
                Half { capacity: capacity(&mut self.dice), ..Half::default() },
            ],
            latency_us: if near { 10 } else { self.dice.between(50, 10_000) as u64 },
            jitter_us: if near { 10 } else { self.dice.pick(&[0, 1_000, 5_000]) },
            segment: self.dice.pick(&[40, 1_460, 9_000, 1_000_000, 1_000_000]),
        };
        self.links.push(link);
        self.links.len() - 1
    }

    pub(super) fn half(&self, link: usize, end: End) -> &Half {
        &self.links[link].halves[end as usize]
    }

    fn half_mut(&mut self, link: usize, end: End) -> &mut Half {
        &mut self.links[link].halves[end as usize]
    }

    pub(super) fn available(&self, link: usize, end: End) -> usize {
        self.half(link, end).inbox.len()
    }

    /// Returns how many bytes an end can send now.
    pub(super) fn space(&self, link: usize, from: End) -> usize {
        let target = self.half(link, from.other());
        target.capacity.saturating_sub(target.inbox.len() + target.flying_bytes)
    }

    fn fly(&mut self, link: usize, to: End, flight: Flight) {
        let now_us = self.now_us;
        let Link { latency_us, jitter_us, .. } = self.links[link];
        let jitter_us = self.dice.below(jitter_us as usize + 1) as u64;
        let half = self.half_mut(link, to);
        let arrival_us = half.last_arrival_us.max(now_us + latency_us + jitter_us);
        half.last_arrival_us = arrival_us;
        if let Flight::Bytes(bytes) = &flight {
            half.flying_bytes += bytes.len();
        }
        half.flying.push_back(flight);
        self.at(arrival_us, Event::Arrive(link, to));
    }

    /// Sends as much as fits. Returns the number of bytes, or `None` if the connection is dead.
    pub(super) fn send(&mut self, link: usize, from: End, mut bytes: &[u8]) -> Option<usize> {
        let half = self.half(link, from);
        assert!(!half.closed, "sent on a closed connection");
        if half.reset {
            return None;
        }
        if half.finished {
            self.fail(format!("link {link}: {from:?} sends after its end"));
            return None;
        }
        let n = self.space(link, from).min(bytes.len());
        if n < bytes.len() {
            self.half_mut(link, from).blocked = true;
        }
        bytes = &bytes[..n];
        let again = bytes;
        let segment = self.links[link].segment;
        while !bytes.is_empty() {
            // Small segments are sent for a while, then the rest in one segment, because many segments only cost
            // time.
            let few = self.half(link, from.other()).flying.len() < 8;
            let most = if few { segment.min(bytes.len()) } else { bytes.len() };
            let size = if few && self.dice.percent(20) { self.dice.between(1, most) } else { most };
            self.fly(link, from.other(), Flight::Bytes(bytes[..size].to_vec()));
            bytes = &bytes[size..];
        }
        if from == End::Proxy && self.sabotage.is_repeated(again) {
            self.fly(link, from.other(), Flight::Bytes(again.to_vec()));
        }
        Some(n)
    }

    /// Sends all `bytes` in one segment, even without room.
    pub(super) fn send_at_once(&mut self, link: usize, from: End, bytes: &[u8]) {
        if !self.half(link, from).reset {
            self.fly(link, from.other(), Flight::Bytes(bytes.to_vec()));
        }
    }

    /// Takes up to `most` of the bytes that have arrived.
    pub(super) fn read(&mut self, link: usize, end: End, most: usize) -> Vec<u8> {
        let inbox = &mut self.half_mut(link, end).inbox;
        let n = inbox.len().min(most);
        let rest = inbox.split_off(n);
        let bytes = std::mem::replace(inbox, rest);
        let other = self.half_mut(link, end.other());
        if n > 0 && std::mem::take(&mut other.blocked) {
            let at_us = self.now_us + self.links[link].latency_us;
            self.at(at_us, Event::Space(link, end.other()));
        }
        bytes
    }

    /// Ends this end's direction.
    pub(super) fn finish(&mut self, link: usize, end: End) {
        let half = self.half_mut(link, end);
        if !half.finished && !half.closed && !half.reset {
            half.finished = true;
            self.fly(link, end.other(), Flight::Fin);
        }
    }

    /// Closes an end. Unread bytes turn this into a reset.
    pub(super) fn close(&mut self, link: usize, end: End) {
        if self.half(link, end).closed {
            return;
        }
        if !self.half(link, end).inbox.is_empty() {
            return self.reset(link, end);
        }
        self.finish(link, end);
        self.half_mut(link, end).closed = true;
    }

    /// Closes an end with a reset.
    pub(super) fn reset(&mut self, link: usize, end: End) {
        let half = self.half_mut(link, end);
        half.inbox.clear();
        if !std::mem::replace(&mut half.closed, true) && !half.reset {
            let ends = self.sabotage == Sabotage::ResetAsEnd && end == End::Proxy;
            self.fly(link, end.other(), if ends { Flight::Fin } else { Flight::Reset });
        }
    }

    /// Returns the number of bytes on their way to an end.
    pub(super) fn in_flight(&mut self, link: usize, end: End) -> usize {
        self.half_mut(link, end).flying_bytes
    }

    /// Delivers the first bytes on their way. Returns true if the end has something to notice.
    pub(super) fn arrive(&mut self, link: usize, end: End) -> bool {
        let Some(mut flight) = self.half_mut(link, end).flying.pop_front() else { return false };
        if let Flight::Bytes(bytes) = &mut flight {
            let length = bytes.len();
            self.half_mut(link, end).flying_bytes -= length;
            if self.sabotage == Sabotage::FlippedByte && end == End::Remote && length > 100 && self.dice.percent(10) {
                bytes[length - 10] ^= 0x10;
            }
        }
        let destroys = end == End::Remote && self.dice.percent(50);
        let half = self.half_mut(link, end);
        if half.closed || half.reset {
            if matches!(flight, Flight::Bytes(_)) && !half.reset {
                half.reset = true;
                self.fly(link, end.other(), Flight::Reset);
            }
            return false;
        }
        match flight {
            Flight::Bytes(bytes) if half.inbox.is_empty() => half.inbox = bytes,
            Flight::Bytes(bytes) => half.inbox.extend_from_slice(&bytes),
            Flight::Fin => half.fin = true,
            Flight::Reset => {
                half.reset = true;
                if destroys {
                    half.inbox.clear();
                }
            }
        }
        true
    }
}
