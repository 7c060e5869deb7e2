//! The script of a client that speaks HTTP/2. It is made of a script for HTTP/1, so a scenario differs only in that
//! client, and adds the events that only HTTP/2 has.

use super::h2_frames::MOST;
use super::message::{Trailers, trailers};
use super::network::{Entry, Net};
use super::plan::{self, ClientPlan, Ending, Misdeed};

/// The moment at which a client gives a stream up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// After so many bytes of content were sent.
    Sent(usize),
    /// After so many bytes of content have arrived.
    Got(usize),
    /// After this time, in microseconds.
    After(u64),
}

/// The frame that ends a stream which a client gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Reset,
    /// A WINDOW_UPDATE of 0, which makes the proxy reset the stream.
    NoUpdate,
    /// WINDOW_UPDATEs beyond the greatest window, which do the same.
    Overflow,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) id: usize,
    pub(super) fields: Trailers,
    pub(super) trailers: Trailers,
    /// Nothing follows the head.
    pub(super) is_bare: bool,
    pub(super) pause_us: u64,
    pub(super) cancel: Option<(When, How)>,
    /// The request is invalid and must be refused, alone.
    pub(super) malformed: bool,
}

/// A behaviour that not every client has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    /// It pads its frames, and gives streams priorities.
    pub(super) pads: bool,
    /// It closes and opens the windows of streams at any time, and changes the size of the table.
    pub(super) resizes: bool,
    /// It opens streams after the first GOAWAY.
    pub(super) insists: bool,
    /// The percentage of its turns in which it sends a PING, a PRIORITY or an unknown frame.
    pub(super) chatter: usize,
    /// The largest number of pieces of a block.
    pub(super) pieces: usize,
}

/// The time of the client's GOAWAY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goodbye {
    None,
    /// After its last request.
    AfterRequests,
    /// After the last response.
    AfterResponses,
}

/// One client.
#[derive(Clone, Debug)]
pub(super) struct Http2Plan {
    pub(super) begin_us: u64,
    pub(super) requests: Vec<Request>,
    /// The number of streams that may be open while another is opened.
    pub(super) most: usize,
    pub(super) ending: Ending,
    pub(super) misdeed: Misdeed,
    pub(super) write_pace: Option<(usize, u64)>,
    pub(super) read_pace: Option<(usize, u64)>,
    /// The first window of streams.
    pub(super) window: u32,
    /// The bytes by which the window of the connection grows at the begin.
    pub(super) growth: u32,
    pub(super) habits: Habits,
    pub(super) goodbye: Goodbye,
}

/// Makes a script for HTTP/2 of a script for HTTP/1.
pub(super) fn convert(net: &mut Net, plan: ClientPlan) -> Http2Plan {
    let requests: Vec<Request> = plan.requests.into_iter().map(|one| request(net, one)).collect();
    // Content takes many round trips through a small window, and a clean scenario limits the time.
    let small = if net.clean { 16_384 } else { 100 };
    let dice = &mut net.dice;
    // A client that has ended its direction can give no more credit.
    let ends = plan.ending == Ending::HalfClose;
    Http2Plan {
        begin_us: plan.begin_us,
        requests,
        most: dice.pick(&[1, 2, 10, 10]),
        ending: plan.ending,
        misdeed: plan.misdeed,
        write_pace: plan.write_pace,
        read_pace: plan.read_pace,
        window: if ends { 1 << 20 } else { dice.pick(&[small, 2_000, 16_384, 65_535, 65_535, 1 << 20, MOST]) },
        growth: if ends { 1 << 24 } else { dice.pick(&[0, 0, 1, 100_000, 1 << 24]) },
        habits: Habits {
            pads: dice.percent(25),
            resizes: !ends && dice.percent(25),
            insists: dice.percent(50),
            chatter: dice.pick(&[0, 0, 5, 20]),
            pieces: dice.pick(&[1, 1, 2, 5]),
        },
        goodbye: dice.pick(&[Goodbye::None, Goodbye::None, Goodbye::AfterRequests, Goodbye::AfterResponses]),
    }
}

fn field(name: &str, value: impl ToString) -> (String, String) {
    (name.into(), value.to_string())
}

fn request(net: &mut Net, plan: plan::Request) -> Request {
    let (id, pause_us) = (plan.id, plan.pause_us);
    let entry = &mut net.ledger[id];
    let websocket = net.websockets && entry.method == "GET" && net.dice.percent(60);
    (entry.old, entry.upgrade, entry.websocket, entry.connect) = (false, websocket, websocket, websocket);
    if plan.malformed {
        return malformed(net, id);
    }
    let dice = &mut net.dice;
    let (method, size, sends) = (entry.method, entry.size, entry.sends());
    entry.named = dice.percent(15);
    entry.crumbs = dice.percent(15);
    let mut fields = vec![
        field(":method", method),
        field(":scheme", "http"),
        field(":authority", "sim.example"),
        field(":path", format!("/r/{id}")),
        field("x-id", id),
        field("x-size", size),
    ];
    if websocket {
        fields[0].1 = "CONNECT".into();
        fields.insert(1, field(":protocol", "websocket"));
        fields.push(field("sec-websocket-version", 13));
    }
    if entry.named {
        fields.push(field("te", "trailers"));
    }
    if entry.crumbs {
        fields.extend([field("cookie", "a=1"), field("x-between", "x"), field("cookie", "b=2")]);
    }
    if dice.percent(15) {
        fields.push(field("host", "sim.example"));
    }
    if entry.expects {
        fields.push(field("expect", "100-continue"));
    }
    if dice.percent(4) {
        fields.push(field("x-filler", "f".repeat(dice.between(100, 40_000))));
    }
    if sends && !entry.trailers && dice.percent(60) {
        fields.push(field("content-length", size));
    }
    // The end of an empty request that may be sent again is known at once, as over HTTP/1.
    let is_bare = !websocket && size == 0 && !entry.trailers && (!sends || entry.is_idempotent() || dice.percent(70));
    let mut section = if entry.trailers { trailers(&Entry::tag(id, None)) } else { Trailers::new() };
    section.iter_mut().for_each(|field| field.0.make_ascii_lowercase());
    if entry.trailers && dice.percent(30) {
        section.extend([field("content-type", "evil"), field("x-forwarded-for", "6.6.6.6")]);
    }
    let when = match dice.below(3) {
        0 => When::Sent(dice.below(size + 1)),
        1 => When::Got(dice.below(20_000)),
        _ => When::After(dice.below(300_000) as u64),
    };
    let how = dice.pick(&[How::Reset, How::Reset, How::Reset, How::NoUpdate, How::Overflow]);
    let cancel = dice.percent(12).then_some((when, how));
    Request { id, fields, trailers: section, is_bare, pause_us, cancel, malformed: false }
}

/// Returns a request that is malformed. It has no field by which a backend could know it.
fn malformed(net: &mut Net, id: usize) -> Request {
    let mut fields = vec![
        field(":method", "GET"),
        field(":scheme", "http"),
        field(":authority", "sim.example"),
        field(":path", "/"),
        field("x-a", "b"),
    ];
    match net.dice.below(10) {
        0 => fields.push(field("Upper", "x")),
        1 => fields.push(field("connection", "close")),
        2 => fields.push(field("te", "gzip")),
        3 => drop(fields.remove(3)),
        4 => fields.push(field(":path", "/")),
        5 => fields.push(field("host", "other.example")),
        6 => fields[3].1.clear(),
        7 => fields.push(field("x-b", "c\0d")),
        8 => fields.push(field("transfer-encoding", "chunked")),
        _ => fields.push(field("content-length", "1, 2")),
    }
    Request {
        id,
        fields,
        trailers: Trailers::new(),
        is_bare: net.dice.percent(50),
        pause_us: 0,
        cancel: None,
        malformed: true,
    }
}
