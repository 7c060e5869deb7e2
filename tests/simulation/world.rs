//! The shell of a scenario, like `worker` in the program: it moves bytes between the virtual network and the proxy,
//! edge-triggered, and decides nothing. The loop of virtual time is here too, with the rules that hold at rest.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::net::SocketAddr;

use zzz_lb::collections::slab::Key;
use zzz_lb::limits::{BLOCK_BYTES, H2_WINDOW_MAX_BYTES, QUEUE_HIGH_BYTES, READS_PER_TURN};
use zzz_lb::log::{Level, Log};
use zzz_lb::proxy::{Failure, Output, Proxy, Shared};

use super::backend::Conversation;
use super::client::Client;
use super::h2_client::Http2Client;
use super::h2_plan::{self, Http2Plan};
use super::network::{End, Event, Net, Sabotage, say};
use super::phases::{SLOTS, followed};
use super::plan::{BackendPlan, ClientPlan, Connect, Plan, SECOND_US, Speaks, draw};
use super::streams::Streams;

/// The first seed whose scenario has clients over HTTP/2. The scenarios of smaller seeds have clients over HTTP/1 only.
pub(super) const HTTP2_SEEDS: u64 = 10_000_000_000;
/// The first seed whose scenario has many WebSockets, with clients over both versions.
pub(super) const TUNNEL_SEEDS: u64 = 30_000_000_000;
/// A number of events that no scenario needs.
const STEPS: usize = 400_000;
/// A number of turns without progress of time that is too large.
const TURNS_AT_ONCE: usize = 2_000;
/// A time at which everything is long over.
const END_US: u64 = 40_000 * SECOND_US;
const REFUSED: i32 = 111;
const RESET: i32 = 104;

struct Socket {
    key: Key,
    link: usize,
    connecting: bool,
    readable: bool,
    writable: bool,
    ended: bool,
}

enum Actor {
    Client(Box<Client>),
    Http2Client(Box<Http2Client>),
    Backend(Box<Conversation>),
    Multiplexed(Box<Streams>),
}

/// A connection to a backend that is being established.
struct Dial {
    backend: usize,
    refused: bool,
}

pub(super) struct World {
    pub(super) net: Net,
    pub(super) plan: Plan,
    pub(super) proxy: Proxy,
    /// The phase of the plan, and its begin.
    pub(super) phase: usize,
    pub(super) phase_us: u64,
    sockets: Vec<Option<Socket>>,
    /// The proxy's key and the actor at the other end, by link.
    keys: Vec<Option<Key>>,
    actors: Vec<Option<Actor>>,
    dials: Vec<Option<Dial>>,
    /// Links with something for the proxy to notice.
    pending: Vec<usize>,
    ready: VecDeque<Key>,
    turn_us: u64,
    flaky: usize,
    unlucky: usize,
}

thread_local! {
    /// The cells that a proxy shares, used again for each scenario.
    static SHARED: Shared = Shared::private(SLOTS);
}

/// Plays one scenario. Returns the first failure.
pub(super) fn play(seed: u64, sabotage: Sabotage, verbose: bool) -> Result<(), String> {
    let mut net = Net::new(seed, sabotage, verbose);
    net.websockets = seed >= TUNNEL_SEEDS;
    let mut plan = draw(&mut net);
    let shared = SHARED.with(|shared| *shared);
    shared.wipe();
    let proxy = Proxy::new(&followed(&plan, &plan.phases[0]), shared, 0, seed, net.now_us, Log::new(Level::Err));
    let clients = std::mem::take(&mut plan.clients);
    let mut world = World {
        net,
        plan,
        proxy,
        phase: 0,
        phase_us: SECOND_US,
        sockets: Vec::new(),
        keys: Vec::new(),
        actors: Vec::new(),
        dials: Vec::new(),
        pending: Vec::new(),
        ready: VecDeque::new(),
        turn_us: u64::MAX,
        flaky: 0,
        unlucky: 0,
    };
    for backend in &world.plan.backends {
        say!(world.net, "{backend:?}");
    }
    for (number, client) in clients.into_iter().enumerate() {
        match seed >= HTTP2_SEEDS && world.net.dice.percent(67) {
            true => {
                let plan = h2_plan::convert(&mut world.net, client);
                world.add_http2_client(number, plan);
            }
            false => world.add_client(number, client),
        }
    }
    world.run();
    if world.net.failure.is_none() {
        world.check_rest();
    }
    world.net.failure.map_or(Ok(()), Err)
}

impl World {
    fn new_link(&mut self) -> usize {
        let link = self.net.link();
        self.keys.push(None);
        self.actors.push(None);
        self.dials.push(None);
        link
    }

    fn add_client(&mut self, number: usize, plan: ClientPlan) {
        say!(
            self.net,
            "client {number}: {:?}, depth {}, {:?}, {:?}, write {:?}, read {:?}",
            plan.requests
                .iter()
                .map(|one| (one.id, self.net.ledger[one.id].method, one.wire.len()))
                .collect::<Vec<_>>(),
            plan.depth,
            plan.ending,
            plan.misdeed,
            plan.write_pace,
            plan.read_pace
        );
        let link = self.new_link();
        let begin_us = self.net.now_us + plan.begin_us;
        self.actors[link] = Some(Actor::Client(Box::new(Client::new(link, number, plan, self.plan.timeouts.idle_us))));
        self.net.at(begin_us, Event::Begin(link));
    }

    fn add_http2_client(&mut self, number: usize, plan: Http2Plan) {
        let net = &self.net;
        let text = |one: &h2_plan::Request| {
            let entry = &net.ledger[one.id];
            format!("{} ({} {}, {:?})", one.id, entry.method, entry.size, one.cancel)
        };
        say!(
            net,
            "client {number} over HTTP/2: {:?}, {} at once, {:?}, {:?}, {:?}, write {:?}, read {:?}, window {} + {}, {:?}",
            plan.requests.iter().map(text).collect::<Vec<_>>(),
            plan.most,
            plan.ending,
            plan.goodbye,
            plan.misdeed,
            plan.write_pace,
            plan.read_pace,
            plan.window,
            plan.growth,
            plan.habits
        );
        let link = self.new_link();
        let begin_us = self.net.now_us + plan.begin_us;
        let client = Http2Client::new(link, number, plan, self.plan.timeouts.idle_us);
        self.actors[link] = Some(Actor::Http2Client(Box::new(client)));
        self.net.at(begin_us, Event::Begin(link));
    }

    fn run(&mut self) {
        let (mut steps, mut turns) = (0, 0);
        while self.net.failure.is_none() {
            let event_us = self.net.events.peek().map_or(u64::MAX, |Reverse((time_us, ..))| *time_us);
            let deadline_us = self.proxy.next_deadline_us();
            let change_us = self.change_us();
            let next_us = event_us.min(deadline_us).min(self.turn_us).min(change_us);
            if next_us == u64::MAX {
                return;
            }
            turns = if next_us > self.net.now_us { 0 } else { turns + 1 };
            steps += 1;
            if steps > STEPS || turns > TURNS_AT_ONCE || next_us > END_US {
                let state = self.state();
                return self.net.fail(format!("no rest after {steps} steps, {turns} of them at once: {state}"));
            }
            self.net.now_us = self.net.now_us.max(next_us);
            self.proxy.set_clock(self.net.now_us, self.net.now_us);
            if change_us <= self.net.now_us {
                self.change();
            }
            self.end_probes();
            self.happen();
            if self.turn_us <= self.net.now_us || deadline_us <= self.net.now_us {
                self.turn();
            }
        }
    }

    /// Handles all due events of the network and the actors.
    fn happen(&mut self) {
        while let Some(Reverse((time_us, ..))) = self.net.events.peek()
            && *time_us <= self.net.now_us
            && let Some(Reverse((_, _, event))) = self.net.events.pop()
        {
            match event {
                Event::Arrive(link, End::Remote) => {
                    if self.net.arrive(link, End::Remote) {
                        self.act(link);
                    }
                }
                Event::Arrive(link, End::Proxy) => {
                    if self.net.arrive(link, End::Proxy) {
                        self.notice(link);
                    }
                }
                Event::Space(link, End::Remote) | Event::Tick(link) => self.act(link),
                Event::Space(link, End::Proxy) | Event::Connect(link) => self.notice(link),
                Event::Begin(link) => self.accept(link),
            }
        }
    }

    fn act(&mut self, link: usize) {
        let Some(mut actor) = self.actors[link].take() else { return };
        match &mut actor {
            Actor::Client(client) => client.poll(&mut self.net),
            Actor::Http2Client(client) => client.poll(&mut self.net),
            Actor::Backend(conversation) => conversation.poll(&mut self.net),
            Actor::Multiplexed(streams) => streams.poll(&mut self.net),
        }
        self.actors[link] = Some(actor);
    }

    fn accept(&mut self, link: usize) {
        if self.net.cut {
            match &mut self.actors[link] {
                Some(Actor::Client(client)) => client.over = true,
                Some(Actor::Http2Client(client)) => client.over = true,
                _ => {}
            }
            return;
        }
        // Clients have the first links, so a link's number is its client's.
        let key = self.proxy.accept(SocketAddr::from(([10, 0, 0, link as u8], 50_000)));
        self.insert(key, link, false);
        self.carry_out();
        self.act(link);
    }

    fn insert(&mut self, key: Key, link: usize, connecting: bool) {
        let index = key.index();
        if index >= self.sockets.len() {
            self.sockets.resize_with(index + 1, || None);
        }
        assert!(self.sockets[index].is_none(), "two sockets in one slot");
        self.keys[link] = Some(key);
        self.sockets[index] =
            Some(Socket { key, link, connecting, readable: false, writable: !connecting, ended: false });
    }

    fn notice(&mut self, link: usize) {
        if self.keys[link].is_some() && !self.pending.contains(&link) {
            self.pending.push(link);
            self.turn_at(self.plan.busy_us);
        }
    }

    fn turn_at(&mut self, busy_us: usize) {
        if self.turn_us == u64::MAX {
            self.turn_us = self.net.now_us + self.net.dice.below(busy_us + 1) as u64;
        }
    }

    /// Plays one turn of the shell's loop.
    fn turn(&mut self) {
        self.turn_us = u64::MAX;
        let mut pending = std::mem::take(&mut self.pending);
        while !pending.is_empty() {
            let link = pending.swap_remove(self.net.dice.below(pending.len()));
            self.handle(link);
        }
        for _ in 0..self.ready.len() {
            if let Some(key) = self.ready.pop_front() {
                self.read(key);
                self.carry_out();
            }
        }
        if self.proxy.next_deadline_us() <= self.net.now_us {
            self.proxy.expire();
            self.carry_out();
        }
        if !self.ready.is_empty() {
            self.turn_at(0);
        }
        if self.plan.phases.len() == 1 {
            let (cells, backends) = (SHARED.with(|shared| shared.cells), self.plan.backends.iter().enumerate());
            let over = |(slot, backend): &(usize, &BackendPlan)| {
                backend.max > 0 && cells.in_flight(*slot) > u64::from(backend.max)
            };
            if let Some((slot, _)) = backends.clone().find(over) {
                self.net.fail(format!("more than its limit is in flight in slot {slot}"));
            }
        }
        if let Err(text) = self.proxy.check() {
            self.net.fail(text);
        }
        for socket in self.sockets.iter().flatten() {
            let queued = self.proxy.queued(socket.key).map_or(0, |queue| queue.len());
            if queued > QUEUE_HIGH_BYTES + 2 * BLOCK_BYTES + H2_WINDOW_MAX_BYTES as usize {
                self.net.fail(format!("{queued} bytes are queued on link {}", socket.link));
            }
        }
    }

    fn socket(&mut self, key: Key) -> Option<&mut Socket> {
        self.sockets.get_mut(key.index())?.as_mut().filter(|socket| socket.key == key)
    }

    fn handle(&mut self, link: usize) {
        let Some(key) = self.keys[link] else { return };
        let half = self.net.half(link, End::Proxy);
        let (fin, reset) = (half.fin, half.reset);
        let readable = fin || reset || self.net.available(link, End::Proxy) > 0;
        let space = reset || self.net.space(link, End::Proxy) > 0;
        let Some(socket) = self.socket(key) else { return };
        socket.ended |= fin || reset;
        socket.readable |= readable;
        if fin || reset {
            self.proxy.closing(key);
        }
        let Some(socket) = self.socket(key) else { return };
        if socket.connecting {
            socket.connecting = false;
            socket.writable = true;
            self.established(key, link);
        } else if space && !socket.writable {
            socket.writable = true;
            self.send(key);
        }
        if readable {
            self.read(key);
        }
        if reset && self.socket(key).is_some_and(|socket| socket.readable) {
            self.proxy.broken(key);
        }
        self.carry_out();
    }

    /// Ends a dial with success or failure.
    fn established(&mut self, key: Key, link: usize) {
        let Some(dial) = self.dials[link].take() else { return };
        if dial.refused {
            self.unlucky += 1;
            self.proxy.failed(key, Failure::Connect(REFUSED));
        } else {
            let plan = self.plan.backends[dial.backend].clone();
            let http2 = match plan.speaks {
                Speaks::Http1 | Speaks::Http1Chosen => false,
                Speaks::Http2 => true,
                Speaks::Http2Offered => self.proxy.offers_http2(key),
                Speaks::Either => self.proxy.offers_http2(key) && self.net.dice.percent(50),
            };
            if plan.connect != Connect::Dropped {
                self.actors[link] = Some(match http2 {
                    true => Actor::Multiplexed(Box::new(Streams::new(&mut self.net, link, dial.backend, plan))),
                    false => Actor::Backend(Box::new(Conversation::new(link, dial.backend, plan))),
                });
            }
            self.proxy.connected(key, http2);
        }
        self.carry_out();
    }

    /// Reads once if there may be something to read and the proxy has room.
    fn read(&mut self, key: Key) {
        let Some(socket) = self.socket(key) else { return };
        if !socket.readable || socket.connecting {
            return;
        }
        let (link, ended) = (socket.link, socket.ended);
        let Some(room) = self.proxy.room(key) else { return };
        let wanted = room.len();
        let bytes = self.net.read(link, End::Proxy, wanted);
        let n = bytes.len();
        room[..n].copy_from_slice(&bytes);
        if wanted == 0 {
            return self.net.fail(format!("no room on link {link}"));
        }
        let half = self.net.half(link, End::Proxy);
        let (fin, reset) = (half.fin, half.reset);
        let drained = n == 0 || n < wanted && !ended;
        if drained {
            self.socket(key).expect("it was there").readable = false;
        }
        match n {
            0 if reset => self.proxy.failed(key, Failure::Broken(RESET)),
            0 if fin => self.proxy.ended(key),
            0 => self.proxy.nothing(key),
            n => {
                if !drained {
                    self.ready.push_back(key);
                }
                self.proxy.received(key, n);
            }
        }
    }

    /// Sends the queue until the socket takes no more.
    fn send(&mut self, key: Key) {
        loop {
            let Some(socket) = self.sockets.get(key.index()).and_then(Option::as_ref) else { return };
            if socket.key != key || !socket.writable || socket.connecting {
                return;
            }
            let link = socket.link;
            let Some(queue) = self.proxy.queued(key).filter(|queue| !queue.is_empty()) else { return };
            // A call takes some of the pieces, and a part of the last one.
            let pieces = self.net.dice.between(1, 8);
            let mut bytes = Vec::new();
            queue.slices().take(pieces).for_each(|piece| bytes.extend_from_slice(piece));
            if self.net.dice.percent(10) {
                bytes.truncate(self.net.dice.between(1, bytes.len()));
            }
            match self.net.send(link, End::Proxy, &bytes) {
                Some(0) => self.socket(key).expect("it was there").writable = false,
                Some(n) => self.proxy.sent(key, n),
                None => {
                    let socket = self.socket(key).expect("it was there");
                    socket.writable = false;
                    socket.readable = true;
                    self.ready.push_back(key);
                    self.turn_at(0);
                    self.proxy.unsendable(key);
                }
            }
            if self.net.failure.is_some() {
                return;
            }
        }
    }

    /// Carries out all outputs of the proxy.
    pub(super) fn carry_out(&mut self) {
        let mut reads = 0;
        while let Some(output) = self.proxy.next_output() {
            match output {
                Output::Connect(key, slot) => self.connect(key, slot),
                Output::Send(key) | Output::SendLater(key) => self.send(key),
                Output::Receive(_) if self.net.sabotage == Sabotage::LostReceive && self.net.dice.percent(20) => {}
                Output::Receive(key) if reads < READS_PER_TURN => {
                    reads += 1;
                    self.read(key);
                }
                Output::Receive(key) => self.ready.push_back(key),
                Output::Check(key) => {
                    if let Some(socket) = self.socket(key) {
                        socket.readable = true;
                    }
                    self.read(key);
                }
                Output::Measure(key, socket) => {
                    let link = self.socket(socket).map(|socket| socket.link);
                    let bytes = link.map(|link| self.net.in_flight(link, End::Remote));
                    self.proxy.measured(key, bytes);
                }
                Output::Finish(key) => {
                    let Some(link) = self.socket(key).map(|socket| socket.link) else { continue };
                    self.net.finish(link, End::Proxy);
                }
                Output::Close(key) => self.remove(key, false),
                Output::Reset(key) => self.remove(key, true),
            }
        }
        if !self.ready.is_empty() {
            self.turn_at(0);
        }
    }

    fn remove(&mut self, key: Key, reset: bool) {
        let Some(link) = self.socket(key).map(|socket| socket.link) else { return };
        self.sockets[key.index()] = None;
        self.keys[link] = None;
        say!(self.net, "link {link} is closed by the proxy, reset: {reset}");
        if reset {
            self.net.reset(link, End::Proxy);
        } else {
            self.net.close(link, End::Proxy);
        }
    }

    fn connect(&mut self, key: Key, slot: usize) {
        let link = self.new_link();
        say!(self.net, "the proxy dials backend {slot}: link {link}");
        let Some(backend) = self.plan.phases[self.phase].backend(slot) else {
            return self.net.fail(format!("the proxy dials slot {slot}, which is nobody's"));
        };
        let kind = self.plan.backends[backend].connect;
        self.flaky += 1;
        let refused = match kind {
            Connect::RefusedAtOnce => {
                self.unlucky += 1;
                return self.proxy.failed(key, Failure::Connect(REFUSED));
            }
            Connect::NeverAnswered => true,
            Connect::Flaky => self.flaky.is_multiple_of(2),
            Connect::Refused => true,
            Connect::Taken | Connect::Dropped => false,
        };
        self.insert(key, link, true);
        self.dials[link] = Some(Dial { backend, refused });
        if kind != Connect::NeverAnswered {
            let after_us = self.net.dice.pick(&[0, 100, 30_000]);
            self.net.at(self.net.now_us + after_us, Event::Connect(link));
            match self.net.dice.below(3) {
                _ if kind != Connect::Dropped => {}
                0 => self.net.close(link, End::Remote),
                _ => self.net.reset(link, End::Remote),
            }
        }
    }

    pub(super) fn state(&self) -> String {
        let client = |actor: &Actor| match actor {
            Actor::Client(client) if !client.over => Some(client.state()),
            Actor::Http2Client(client) if !client.over => Some(client.state()),
            _ => None,
        };
        let clients: Vec<String> = self.actors.iter().flatten().filter_map(client).collect();
        clients.join("; ")
    }

    /// True if some client speaks HTTP/2.
    pub(super) fn has_http2_clients(&self) -> bool {
        self.actors.iter().flatten().any(|actor| matches!(actor, Actor::Http2Client(_)))
    }

    /// Checks the rules that hold at rest.
    fn check_rest(&mut self) {
        let unfinished = self.state();
        if !unfinished.is_empty() {
            self.net.fail(format!("nothing happens any more, and not all is done: {unfinished}"));
        }
        let (clients, requests) = (self.proxy.clients(), self.proxy.requests());
        if clients + requests + self.proxy.connections() > 0 {
            let connections = self.proxy.connections();
            self.net.fail(format!("{clients} clients, {requests} requests and {connections} connections are left"));
        }
        if let Err(text) = self.proxy.check_rest() {
            self.net.fail(text);
        }
        let cells = SHARED.with(|shared| shared.cells);
        if let Some(slot) = (0..cells.slots()).find(|&slot| cells.in_flight(slot) > 0) {
            self.net.fail(format!("slot {slot} has something in flight forever"));
        }
        if let Some(socket) = self.sockets.iter().flatten().next() {
            let link = socket.link;
            self.net.fail(format!("link {link} is left open"));
        }
        let unanswered = self
            .net
            .ledger
            .iter()
            .position(|entry| entry.answers > 1 || self.net.clean && entry.begun && entry.answers == 0);
        if let Some(id) = unanswered.filter(|_| !self.net.draining) {
            let answers = self.net.ledger[id].answers;
            self.net.fail(format!("request {id} was answered {answers} times"));
        }
    }
}
