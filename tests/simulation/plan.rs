//! The events of a scenario, all drawn from the seed: the limits, the backends with their faults, and the clients
//! with their scripts.

use zzz_lb::balance::strategy::Strategy;
use zzz_lb::config::Timeouts;
use zzz_lb::limits::REPEATS;

use super::message::{HOP_FIELDS, trailer_section};
use super::network::{Dice, End, Entry, Net};
use super::pattern::{Way, content};
use super::phases::{self, Phase};
use super::tunnel;

/// The status of the part of a client's script that is no request.
pub(super) const SECOND_US: u64 = 1_000_000;

/// The reaction of a backend to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connect {
    Taken,
    Refused,
    /// Refused before the call returns.
    RefusedAtOnce,
    NeverAnswered,
    /// Accepted, and closed or reset at once.
    Dropped,
    /// Refused every other time.
    Flaky,
}

/// A fault of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    CloseInstead,
    ResetInstead,
    CutResponse,
    ResetResponse,
    Garbage,
    MalformedHead,
    /// It never sends anything.
    Silence,
    /// It sends only a part.
    Stall,
    /// Bytes follow a response.
    LeftOver,
    /// It responds before the request is complete, and reads the rest or not.
    Early,
    /// It sends a 101 without a request for it.
    Switch,
    /// It ends its direction without a response, and the connection stays.
    HalfClose,
}

const FAULTS: [Fault; 12] = [
    Fault::CloseInstead,
    Fault::ResetInstead,
    Fault::CutResponse,
    Fault::ResetResponse,
    Fault::Garbage,
    Fault::MalformedHead,
    Fault::Silence,
    Fault::Stall,
    Fault::LeftOver,
    Fault::Early,
    Fault::Switch,
    Fault::HalfClose,
];

/// The protocol of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    /// HTTP/2, which the proxy knows.
    Http2,
    /// HTTP/2, as each TLS session selects.
    Http2Offered,
    /// HTTP/1.1, as each TLS session selects.
    Http1Chosen,
    /// One of both, by chance.
    Either,
}

/// One backend.
#[derive(Clone, Debug)]
pub(super) struct BackendPlan {
    pub(super) connect: Connect,
    pub(super) speaks: Speaks,
    pub(super) faults: Vec<Fault>,
    /// The percentage of requests that meet a fault.
    pub(super) fault_percent: usize,
    /// The time for which it keeps an idle connection.
    pub(super) idle_us: Option<u64>,
    /// The most that it reads and writes before a pause.
    pub(super) pace: Option<(usize, u64)>,
    pub(super) think_us: u64,
    /// The limit of requests in flight; 0 for none.
    pub(super) max: u32,
    /// Over HTTP/2, it accepts extended CONNECT.
    pub(super) takes_connect: bool,
}

/// The end of a client's connection after its script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Close,
    HalfClose,
    /// It waits until the proxy closes.
    Wait,
}

/// A mistake of a client, and the number of sent bytes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misdeed {
    None,
    Reset(usize),
    Close(usize),
    /// It ends its direction in the middle.
    Finish(usize),
    /// It sends nothing more.
    Stall(usize),
    /// It reads nothing more, after this many bytes.
    Deaf(usize),
}

impl Misdeed {
    /// True if it is due after `total` sent bytes. Otherwise limits the bytes to send next, so that they end there.
    pub(super) fn is_due(self, total: usize, most: &mut usize) -> bool {
        let (Misdeed::Reset(after) | Misdeed::Close(after) | Misdeed::Finish(after) | Misdeed::Stall(after)) = self
        else {
            return false;
        };
        *most = (*most).min(after.saturating_sub(total));
        total >= after
    }

    /// Commits it. Returns true if the client has left.
    pub(super) fn commit(self, net: &mut Net, link: usize) -> bool {
        match self {
            Misdeed::Reset(_) => net.reset(link, End::Remote),
            Misdeed::Close(_) => net.close(link, End::Remote),
            Misdeed::Finish(_) => net.finish(link, End::Remote),
            _ => {}
        }
        matches!(self, Misdeed::Reset(_) | Misdeed::Close(_))
    }
}

/// One request of a script.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) id: usize,
    pub(super) wire: Vec<u8>,
    /// The begin of the content that waits for 100 (Continue).
    pub(super) hold: Option<usize>,
    pub(super) pause_us: u64,
    /// The request is invalid and must be refused.
    pub(super) malformed: bool,
    /// The connection does not go on after the request.
    pub(super) last: bool,
}

/// One client.
#[derive(Clone, Debug)]
pub(super) struct ClientPlan {
    pub(super) begin_us: u64,
    pub(super) requests: Vec<Request>,
    /// The number of requests that may be unanswered while another is sent.
    pub(super) depth: usize,
    pub(super) ending: Ending,
    pub(super) misdeed: Misdeed,
    pub(super) write_pace: Option<(usize, u64)>,
    pub(super) read_pace: Option<(usize, u64)>,
}

/// The whole scenario.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) timeouts: Timeouts,
    pub(super) strategy: Strategy,
    pub(super) backends: Vec<BackendPlan>,
    pub(super) clients: Vec<ClientPlan>,
    pub(super) drain_us: Option<u64>,
    /// The time at which the remaining clients are cut off.
    pub(super) cut_us: Option<u64>,
    /// The phases and their times.
    pub(super) phases: Vec<Phase>,
    /// The number of retries for each hundred requests.
    pub(super) retry_percent: u32,
    /// The limit for a probe.
    pub(super) probe_us: u64,
    pub(super) slow_start_us: u64,
    /// The time for which the shell may be busy before it notices an event.
    pub(super) busy_us: usize,
}

/// Returns a length that is mostly small, except in a bulky scenario.
pub(super) fn size(dice: &mut Dice, bulky: bool) -> usize {
    match dice.below(100) {
        _ if bulky && dice.percent(40) => dice.between(60_000, 200_000),
        0..25 => 0,
        25..60 => dice.between(1, 300),
        60..88 => dice.between(300, 6_000),
        88..97 => dice.between(6_000, 70_000),
        _ => dice.between(60_000, 200_000),
    }
}

/// The time for which a request goes on after its client has ended its direction.
pub(super) const HALF_CLOSE_US: u64 = 2 * SECOND_US;

/// The largest number of backends in a scenario.
pub(super) const BACKENDS: usize = 4;

/// Draws a scenario. Facts that the parts must know of each other go into `net`.
pub(super) fn draw(net: &mut Net) -> Plan {
    let clean = net.dice.percent(30);
    net.clean = clean;
    net.bulky = net.dice.percent(7);
    let dice = &mut net.dice;
    let timeouts = Timeouts {
        connect_us: 2 * SECOND_US,
        request_us: dice.pick(&[3, 10]) * SECOND_US,
        response_us: dice.pick(&[4, 20]) * SECOND_US,
        idle_us: dice.pick(&[15, 75]) * SECOND_US,
        half_close_us: HALF_CLOSE_US,
        drain_us: 25 * SECOND_US,
        drain_idle_us: 2 * SECOND_US,
    };
    let strategy = dice.pick(&Strategy::NAMES).1;
    let mut backends: Vec<BackendPlan> = (0..dice.between(1, BACKENDS)).map(|_| backend(dice, clean)).collect();
    if net.websockets {
        backends.iter_mut().for_each(|backend| backend.takes_connect = dice.percent(70));
    }
    let is_over_http1 = |backend: &BackendPlan| matches!(backend.speaks, Speaks::Http1 | Speaks::Http1Chosen);
    net.no_connect = backends.iter().any(|backend| !backend.takes_connect && !is_over_http1(backend));
    let limited = dice.percent(20);
    if limited {
        backends.iter_mut().for_each(|backend| backend.max = dice.between(0, 3) as u32);
    }
    net.limited = limited;
    // A backend that accepts a connection and drops it may have been sent a request, so repeats are bounded.
    let dropping = backends.iter().filter(|backend| backend.connect == Connect::Dropped).count();
    net.dropping = dropping > 0;
    net.connectable = backends.iter().any(|backend| backend.connect == Connect::Taken) && dropping <= REPEATS;
    net.idle_closers = backends.iter().any(|backend| backend.idle_us.is_some() || backend.connect == Connect::Dropped);
    let clients = net.dice.between(1, 6);
    let clients = (0..clients).map(|number| client(net, number, clean)).collect();
    let drain_us = net.dice.percent(15).then(|| net.dice.below(3_000_000) as u64);
    let busy_us = net.dice.pick(&[0, 0, 100, 5_000, 50_000]);
    let cut_us = drain_us.filter(|_| net.dice.percent(50)).map(|us| us + net.dice.below(3_000_000) as u64);
    let retry_percent = net.dice.pick(&[1000, 1000, 20, 0]);
    net.rationed = retry_percent < 1000;
    let probe_us = net.dice.pick(&[100_000, 1_000_000]);
    let slow_start_us = net.dice.pick(&[0, 0, 5_000_000]);
    let phases = phases::draw(net, &backends);
    net.probes = vec![0; backends.len()];
    Plan {
        timeouts,
        strategy,
        backends,
        clients,
        drain_us,
        cut_us,
        phases,
        retry_percent,
        probe_us,
        slow_start_us,
        busy_us,
    }
}

fn backend(dice: &mut Dice, clean: bool) -> BackendPlan {
    let connect = match dice.below(100) {
        _ if clean => Connect::Taken,
        0..80 => Connect::Taken,
        80..86 => Connect::Refused,
        86..92 => Connect::RefusedAtOnce,
        92..95 => Connect::NeverAnswered,
        95..98 => Connect::Dropped,
        _ => Connect::Flaky,
    };
    let faulty = !clean && dice.percent(50);
    use Speaks::{Either, Http1, Http1Chosen, Http2, Http2Offered};
    let speaks = dice.pick(&[Http1, Http1, Http1, Http2, Http2, Http2Offered, Http1Chosen, Either]);
    BackendPlan {
        connect,
        speaks,
        faults: (0..dice.between(1, 4)).map(|_| dice.pick(&FAULTS)).collect(),
        fault_percent: if faulty { dice.pick(&[10, 30, 100]) } else { 0 },
        idle_us: (!clean && dice.percent(25)).then(|| dice.between(0, 2_000_000) as u64),
        pace: dice.percent(20).then(|| shared_pace(pace(dice), speaks)),
        think_us: dice.pick(&[0, 1_000, 100_000]),
        max: 0,
        takes_connect: false,
    }
}

/// Returns a pace for a shared connection. It is faster, because others wait while one is slow.
fn shared_pace((bytes, pause_us): (usize, u64), speaks: Speaks) -> (usize, u64) {
    (bytes, if speaks == Speaks::Http1 { pause_us } else { pause_us.min(20_000) })
}

/// Returns a pace that is slow, but within every limit.
fn pace(dice: &mut Dice) -> (usize, u64) {
    let bytes = dice.pick(&[500, 4_000, 20_000]);
    // The largest content takes at most a second or two.
    (bytes, dice.between(100, bytes * 10) as u64)
}

fn client(net: &mut Net, number: usize, clean: bool) -> ClientPlan {
    let count = net.dice.between(1, 6);
    let mut requests: Vec<Request> = Vec::new();
    while requests.len() < count && !requests.last().is_some_and(|request| request.last) {
        requests.push(request(net, number));
    }
    let dice = &mut net.dice;
    let total: usize = requests.iter().map(|request| request.wire.len()).sum();
    let mut misdeed = Misdeed::None;
    if !clean && dice.percent(30) {
        let at = dice.below(total + 1);
        misdeed = match dice.below(5) {
            0 => Misdeed::Reset(at),
            1 => Misdeed::Close(at),
            2 => Misdeed::Finish(at),
            3 => Misdeed::Stall(at),
            _ => Misdeed::Deaf(dice.below(3_000)),
        };
    } else if !clean && dice.percent(10) && !requests.last().is_some_and(|request| request.last) {
        requests.push(malformed(net, number));
    }
    let dice = &mut net.dice;
    ClientPlan {
        begin_us: dice.below(2_000_000) as u64,
        requests,
        depth: dice.pick(&[1, 1, 2, 10]),
        ending: dice.pick(&[Ending::Close, Ending::HalfClose, Ending::HalfClose, Ending::Wait]),
        misdeed,
        write_pace: dice.percent(25).then(|| pace(dice)),
        read_pace: dice.percent(25).then(|| pace(dice)),
    }
}

fn request(net: &mut Net, client: usize) -> Request {
    let id = net.ledger.len();
    let dice = &mut net.dice;
    let method = dice.pick(&["GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);
    let upgrade = method == "GET" && dice.percent(if net.websockets { 40 } else { 8 });
    let websocket = upgrade && net.websockets && !id.is_multiple_of(5);
    let old = !upgrade && dice.percent(10);
    let last = upgrade || dice.percent(8) || old && dice.percent(50);
    let sends = matches!(method, "POST" | "PUT" | "PATCH");
    let size = if sends { size(dice, net.bulky) } else { 0 };
    let chunked = sends && !old && dice.percent(40);
    let expects = sends && !old && size > 0 && dice.percent(20);
    let mut head =
        format!("{method} /r/{id} HTTP/1.{}\r\nHost: sim.example\r\nX-Id: {id}\r\nX-Size: {size}\r\n", u8::from(!old));
    match (old, last) {
        _ if websocket => head.push_str(&tunnel::handshake(id)),
        _ if upgrade => head.push_str("Connection: Upgrade\r\nUpgrade: sim\r\n"),
        (true, false) => head.push_str("Connection: keep-alive\r\n"),
        (false, true) => head.push_str("Connection: close\r\n"),
        _ => {}
    }
    let named = !old && dice.percent(15);
    if named {
        head.push_str(HOP_FIELDS);
        head.push_str(dice.pick(&["TE: trailers\r\n", "TE: trailers, deflate;q=0.5\r\nConnection: TE\r\n", ""]));
    }
    if expects {
        head.push_str("Expect: 100-continue\r\n");
    }
    if dice.percent(4) {
        let filler = dice.between(100, 40_000);
        head.push_str(&format!("X-Filler: {}\r\n", "f".repeat(filler)));
    }
    if chunked {
        head.push_str("Transfer-Encoding: chunked\r\n");
    } else if sends {
        head.push_str(&format!("Content-Length: {size}\r\n"));
    }
    head.push_str("\r\n");
    let mut wire = head.into_bytes();
    let hold = expects.then_some(wire.len());
    let body = content(id, Way::Up, size);
    let trailers = chunked && dice.percent(20);
    let section = trailer_section(&Entry::tag(id, None), named, dice.percent(30));
    wire.extend(if chunked { encode_chunked(dice, &body, trailers.then_some(&section)) } else { body });
    let pause_us = if dice.percent(30) { dice.below(1_500_000) as u64 } else { 0 };
    let entry = Entry { method, size, client, old, upgrade, websocket, expects, trailers, named, ..Entry::default() };
    net.ledger.push(entry);
    Request { id, wire, hold, pause_us, malformed: false, last }
}

/// Returns bytes that are no valid request.
fn malformed(net: &mut Net, client: usize) -> Request {
    let id = net.ledger.len();
    let texts = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "G\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nx",
        "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/3.0\r\nHost: a\r\n\r\n",
    ];
    let mut wire = net.dice.pick(&texts).as_bytes().to_vec();
    if net.dice.percent(20) {
        // This is more than a block.
        wire = vec![b'x'; net.dice.between(60_000, 150_000)];
    }
    net.ledger.push(Entry { method: "GET", client, excused: true, ..Entry::default() });
    Request { id, wire, hold: None, pause_us: 0, malformed: true, last: true }
}

/// Returns content in chunks of random sizes, sometimes with extensions, and a trailer section.
pub(super) fn encode_chunked(dice: &mut Dice, body: &[u8], section: Option<&String>) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + body.len() / 8 + 64);
    let least = body.len() / 30 + 1;
    let extended = dice.percent(20);
    let mut rest = body;
    while !rest.is_empty() {
        let most = if dice.percent(50) { least } else { rest.len().max(least) };
        let size = dice.between(least.min(most), most).min(rest.len());
        let extension = if extended { ";a=\"b\"" } else { "" };
        out.extend_from_slice(format!("{size:x}{extension}\r\n").as_bytes());
        out.extend_from_slice(&rest[..size]);
        out.extend_from_slice(b"\r\n");
        rest = &rest[size..];
    }
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(section.map_or("\r\n", String::as_str).as_bytes());
    out
}
