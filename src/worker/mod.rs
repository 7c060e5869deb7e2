//! The loop of a worker: readiness in, bytes moved, outputs carried out. It owns every
//! descriptor and decides nothing: what a byte means is the proxy's affair.
//!
//! Sockets are registered once and edge-triggered, so each remembers whether it can still be
//! read or written. A short read means that a socket is drained, unless its peer has ended.

mod accept;
mod drain;
mod secure;
mod socket;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use self::secure::Tls;
use self::socket::Sockets;
use crate::collections::slab::Key;
use crate::config::{Address, Config, Plan};
use crate::limits::{READS_PER_TURN, USAGE_US, WATCHDOG_PARTS, WORKER_DESCRIPTORS};
use crate::log::{Level, Log};
use crate::metrics::{Block, Count};
use crate::proxy::{Failure, Output, Proxy, Shared};
use crate::reactor::{Event, Reactor};
use crate::shared::Region;
use crate::shared::seat::{Doing, Seat};
use crate::sys::signal::{Signal, Signals};
use crate::sys::{self, clock};
use crate::tls;

/// Tokens that no key makes: a key's generation is never 0.
const SIGNALS: u64 = 1;
const COMPANION: u64 = 2;
const ADMIN: u64 = 3;
/// The first listener's; the others' follow.
const LISTENERS: u64 = 4;

/// What else a process of sp does: duties that in mp are the master's.
pub trait Companion {
    /// What to poll for readability.
    fn fd(&self) -> BorrowedFd<'_>;
    /// When it has to have a turn, in microseconds; `u64::MAX` for never.
    fn next_us(&self) -> u64;
    /// Does what is to be done now. Errors are those of the poller.
    fn turn(&mut self) -> io::Result<()>;
    /// HUP has come.
    fn hang_up(&mut self);
    /// USR2 has come.
    fn upgrade(&mut self);
    /// Connections are accepted from now on.
    fn serving(&mut self);
    /// Children of this process may have ended.
    fn child_ended(&mut self);
    /// This process has begun to end.
    fn stopping(&mut self);
    /// It is to end without delay.
    fn stop_at_once(&mut self);
    /// Whether nothing of it keeps this process from ending.
    fn is_done(&self) -> bool;
    /// Whether this process is to become another program now.
    fn wants_handover(&self) -> bool;
    /// Becomes another program, and leaves what is served to a copy of this process: `Some` in that
    /// copy, with its signals. `None` where it could not be done, and nothing has changed.
    fn hand_over(&mut self, listeners: &[OwnedFd], admin: Option<&OwnedFd>) -> Option<Signals>;
}

/// What a worker starts with.
pub struct Setup<'a> {
    /// What to do.
    pub config: &'a Config,
    /// What the workers share; the plan is in it.
    pub region: Region,
    /// Listening, non-blocking sockets; one at least.
    pub listeners: Vec<OwnedFd>,
    /// Another such socket, for those who see how things stand, where one is wanted.
    pub admin: Option<OwnedFd>,
    /// The listeners are a service manager's, who goes on to hold them.
    pub activated: bool,
    /// What else this process does.
    pub companion: Option<&'a mut dyn Companion>,
    /// The process ends, and draining is delayed.
    pub stopping: bool,
    /// The worker's number, from 0.
    pub index: u32,
    /// Its seat in the region.
    pub seat: usize,
    /// Clients held at once; past it accepting pauses.
    pub max_connections: usize,
    /// Idle connections to backends kept at once; past it the oldest is closed.
    pub max_idle: usize,
    /// What sessions with backends share, where some speak TLS.
    pub tls: Option<tls::config::Config>,
    /// The process's signals.
    pub signals: Signals,
    /// Where lines of log are gathered.
    pub log: Log,
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every request was answered.
    Drained,
    /// This many requests were cut, by the drain deadline or a second signal.
    Cut(usize),
}

/// Whether and when connections are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    /// As they come.
    Open,
    /// Not before this time, in microseconds, nor while there are too many.
    Paused(u64),
    /// No more.
    Closed,
}

struct Worker<'a> {
    reactor: Reactor,
    proxy: Proxy,
    sockets: Sockets,
    region: Region,
    /// The plan that is followed.
    edition: u64,
    seat: Seat,
    listeners: Vec<OwnedFd>,
    admin: Option<OwnedFd>,
    companion: Option<&'a mut dyn Companion>,
    accepting: Accepting,
    /// When the admin's listener is watched again, in microseconds, where that pauses.
    admin_from_us: Option<u64>,
    /// Turns in a row in which connections waited on the listener.
    accept_streak: usize,
    max_connections: usize,
    signals: Signals,
    /// Sockets that could be read on at once, and have to let others go first.
    ready: VecDeque<Key>,
    drain_us: u64,
    /// How long it goes on as before when it is told to stop.
    drain_delay_us: u64,
    /// When draining begins, in microseconds, where it is told to stop and goes on as before.
    drain_at_us: Option<u64>,
    /// How long nothing may happen for, in microseconds, without a turn of the loop.
    beat_us: u64,
    /// The listeners outlive this process.
    activated: bool,
    /// When they are left, in microseconds, where nobody can come to them any more.
    leave_us: Option<u64>,
    /// When draining ends, in microseconds, once it has begun.
    drain_deadline_us: Option<u64>,
    /// When those on the admin's port are left, in microseconds, once there is no other client.
    admin_until_us: Option<u64>,
    /// It was told to end, and not only that others have taken its place.
    stopping: bool,
    stopped: bool,
    /// When the system last had no room for a connection, in microseconds, unless it has had since.
    exhausted_us: Option<u64>,
    tls: Tls,
    /// Connections to be sent on at the turn's end.
    late: Vec<Key>,
    /// Its number, from 0.
    index: u32,
    block: Block,
    /// When what the process uses was last looked at, in microseconds, and its processor time then.
    usage_us: (u64, u64),
    now_us: u64,
}

/// Runs a worker until it has drained or is stopped. Errors are those of setting it up or of
/// the poller.
pub fn run(setup: Setup<'_>) -> io::Result<Outcome> {
    let now_us = clock::monotonic_us();
    let seed = clock::unix_us() ^ u64::from(setup.index) << 48 ^ u64::from(std::process::id()) << 32;
    let (edition, plan) = setup.region.table().read();
    let plan = plan.and_then(|bytes| Plan::decode(&bytes)).ok_or(io::ErrorKind::InvalidData)?;
    let (region, seat) = (setup.region, setup.seat);
    let shared = Shared {
        cells: region.balance(),
        in_flight: region.in_flight(seat),
        block: region.block(seat),
        // A worker lives as long as its process.
        workers: Vec::leak((0..region.seats()).map(|seat| region.block(seat)).collect()),
        used: region.used(),
        globals: region.globals(),
    };
    let mut worker = Worker {
        reactor: Reactor::new()?,
        proxy: Proxy::new(&plan, shared, setup.index, seed, now_us, setup.log),
        sockets: Sockets::default(),
        region,
        edition,
        seat: region.seat(seat),
        listeners: setup.listeners,
        admin: setup.admin,
        companion: setup.companion,
        accepting: Accepting::Paused(0),
        admin_from_us: None,
        accept_streak: 0,
        max_connections: setup.max_connections,
        signals: setup.signals,
        ready: VecDeque::new(),
        drain_us: plan.timeouts.drain_us,
        drain_delay_us: plan.drain_delay_us,
        drain_at_us: None,
        beat_us: beat_us(&plan),
        activated: setup.activated,
        leave_us: None,
        drain_deadline_us: None,
        admin_until_us: None,
        stopping: false,
        stopped: false,
        exhausted_us: None,
        tls: Tls::new(setup.tls, setup.config),
        late: Vec::new(),
        index: setup.index,
        block: shared.block,
        usage_us: (0, 0),
        now_us,
    };
    worker.proxy.limit_idle(setup.max_idle);
    worker.prepare_tls(plan.authorities);
    worker.begin()?;
    if setup.stopping {
        worker.terminate();
    }
    loop {
        worker.turn()?;
        if let Some(outcome) = worker.outcome() {
            worker.write_log();
            return Ok(outcome);
        }
    }
}

impl Worker<'_> {
    /// Begins to accept.
    fn begin(&mut self) -> io::Result<()> {
        self.reactor.watch(self.signals.fd(), SIGNALS)?;
        if let Some(companion) = &self.companion {
            self.reactor.watch(companion.fd(), COMPANION)?;
        }
        if self.admin.is_some() {
            self.watch_admin()?;
            self.proxy.hide_metrics();
        }
        self.update_clock();
        self.resume_accepting()?;
        self.tls.expire(self.now_us);
        self.seat.beat(self.now_us);
        self.seat.set_ready();
        if let Some(companion) = &mut self.companion {
            companion.serving();
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        let timeout_us = if self.ready.is_empty() { self.next_us().saturating_sub(self.now_us) } else { 0 };
        let timeout_us = if self.next_us() == u64::MAX && self.ready.is_empty() { u64::MAX } else { timeout_us };
        self.seat.begin(Doing::Waiting);
        self.reactor.poll(timeout_us.min(self.beat_us))?;
        self.update_clock();
        self.seat.beat(self.now_us);
        if self.region.table().edition() != self.edition {
            self.follow();
        }
        let companion = self.take_events()?;
        self.seat.begin(Doing::Reading);
        for _ in 0..self.ready.len() {
            if let Some(key) = self.ready.pop_front() {
                self.read(key);
                self.carry_out();
            }
        }
        if self.proxy.next_deadline_us() <= self.now_us {
            self.seat.begin(Doing::Expiring);
            self.proxy.expire();
            self.carry_out();
        }
        self.seat.begin(Doing::Sending);
        while let Some(key) = self.late.pop() {
            self.send(key);
            self.carry_out();
        }
        self.resume_accepting()?;
        if let Some(duties) = &mut self.companion
            && (companion || duties.next_us() <= self.now_us)
        {
            duties.turn()?;
        }
        if self.drain_at_us.is_some_and(|at_us| at_us <= self.now_us) {
            self.begin_drain();
        }
        if self.leave_us.is_some_and(|at_us| at_us <= self.now_us) {
            self.leave_listeners();
        }
        if self.now_us >= self.usage_us.0 + USAGE_US {
            self.note_usage();
        }
        self.seat.begin(Doing::Logging);
        self.write_log();
        if self.companion.as_ref().is_some_and(|companion| companion.wants_handover()) {
            self.hand_over()?;
        }
        Ok(())
    }

    /// Sees to the events of the last poll; whether there are some for the companion.
    fn take_events(&mut self) -> io::Result<bool> {
        let streak = self.accept_streak;
        let mut companion = false;
        let mut at = 0;
        while let Some(event) = self.reactor.event(at) {
            at += 1;
            match event.token {
                SIGNALS => self.take_signals(),
                ADMIN => drop(self.accept_admin()?),
                // It has its turn below.
                COMPANION => companion = true,
                // Tokens of keys are larger than any number of listeners.
                token if token < LISTENERS + self.listeners.len() as u64 => {
                    self.seat.begin(Doing::Accepting);
                    self.accept((token - LISTENERS) as usize)?;
                }
                token => {
                    self.seat.begin(Doing::Serving);
                    self.handle(Key::from_token(token), event);
                }
            }
        }
        if self.accept_streak == streak {
            self.accept_streak = 0;
        }
        Ok(companion)
    }

    /// When something is to be done though nothing has happened.
    fn next_us(&self) -> u64 {
        let mut next = self.proxy.next_deadline_us();
        if let Accepting::Paused(until) = self.accepting
            && self.proxy.clients() < self.max_connections
        {
            next = next.min(until);
        }
        next = next.min(self.admin_from_us.unwrap_or(u64::MAX)).min(self.tls.next_us());
        let companion = self.companion.as_ref().map_or(u64::MAX, |companion| companion.next_us());
        // Past its own deadline it may wait for its companion's.
        let ends =
            [self.drain_deadline_us.or(self.drain_at_us), self.leave_us, self.admin_until_us].into_iter().flatten();
        let ends_us = ends.filter(|&us| us > self.now_us).min().unwrap_or(u64::MAX);
        next.min(ends_us).min(companion)
    }

    /// Notes what the process uses, for the metrics.
    fn note_usage(&mut self) {
        let cpu_us = clock::process_us();
        self.block.add(Count::CpuTime, cpu_us.saturating_sub(self.usage_us.1));
        self.usage_us = (self.now_us, cpu_us);
        let (addresses, resident) = sys::limit::memory_bytes();
        self.block.set(Count::Virtual, addresses);
        self.block.set(Count::Resident, resident);
        self.block.set(Count::Descriptors, (self.sockets.len() + self.tls.leaving().len() + WORKER_DESCRIPTORS) as u64);
    }

    /// Follows the plan that holds now.
    fn follow(&mut self) {
        self.seat.begin(Doing::Following);
        let (edition, plan) = self.region.table().read();
        self.edition = edition;
        match plan.and_then(|bytes| Plan::decode(&bytes)) {
            Some(plan) => {
                self.drain_us = plan.timeouts.drain_us;
                self.drain_delay_us = plan.drain_delay_us;
                self.beat_us = beat_us(&plan);
                self.proxy.follow(&plan);
                self.prepare_tls(plan.authorities);
                self.carry_out();
            }
            None => self.proxy.log().line(Level::Err, "worker", format_args!("plan {edition} is malformed")),
        }
    }

    fn update_clock(&mut self) {
        self.now_us = clock::monotonic_us();
        self.proxy.set_clock(self.now_us, clock::unix_us());
    }

    fn write_log(&mut self) {
        let log = self.proxy.log();
        if !log.is_empty() {
            sys::write_stderr(log.text());
            log.clear();
        }
    }

    fn handle(&mut self, key: Key, event: Event) {
        let Some(socket) = self.sockets.get_mut(key) else { return self.tls.flush(key) };
        socket.ended |= event.ended;
        socket.readable |= event.readable;
        if event.ended {
            self.proxy.closing(key);
        }
        // That it can be read may have been told before it was known to be connected.
        let readable = event.readable || socket.connecting;
        if socket.connecting {
            if !event.writable {
                return;
            }
            socket.connecting = false;
            socket.writable = true;
            let (code, server_name) = (sys::socket::take_error(socket.fd.as_fd()), socket.server_name.take());
            match (code, server_name) {
                (0, Some(name)) => self.begin_session(key, &name),
                (0, None) => self.proxy.connected(key, false),
                (code, _) => {
                    self.trace_session(key, |trace, _, now_us| {
                        trace.connect_failed(&io::Error::from_raw_os_error(code), now_us);
                    });
                    self.proxy.failed(key, Failure::Connect(code));
                }
            }
            self.carry_out();
        } else if event.writable && !socket.writable {
            socket.writable = true;
            self.send(key);
        }
        if readable {
            self.read(key);
        }
        if event.broken && self.sockets.get_mut(key).is_some_and(|socket| socket.readable) {
            self.proxy.broken(key);
        }
        self.carry_out();
    }

    /// Reads once, where there may be something and the proxy has room.
    fn read(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.secure.is_some() {
            return self.read_secure(key);
        }
        if !socket.readable || socket.connecting {
            return;
        }
        let Some(room) = self.proxy.room(key) else { return };
        let wanted = room.len();
        match sys::socket::receive(socket.fd.as_fd(), room) {
            Ok(0) => {
                socket.readable = false;
                match socket.error {
                    0 => self.proxy.ended(key),
                    code => self.proxy.failed(key, Failure::Broken(code)),
                }
            }
            Ok(n) => {
                if n < wanted && !socket.ended {
                    socket.readable = false;
                } else {
                    self.ready.push_back(key);
                }
                self.proxy.received(key, n);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.readable = false;
                self.proxy.nothing(key);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.ready.push_back(key);
                self.proxy.nothing(key);
            }
            Err(error) => {
                socket.readable = false;
                self.proxy.failed(key, Failure::Broken(error.raw_os_error().unwrap_or(0)));
            }
        }
    }

    /// Sends what is queued, until the socket takes no more.
    fn send(&mut self, key: Key) {
        loop {
            let Some(socket) = self.sockets.get_mut(key) else { return };
            if socket.secure.is_some() {
                return self.send_secure(key);
            }
            if !socket.writable || socket.connecting {
                return;
            }
            let Some(queue) = self.proxy.queued(key).filter(|queue| !queue.is_empty()) else { return };
            // The end then travels with the last bytes instead of in a packet of its own.
            let more = self.proxy.is_ending(key);
            match sys::socket::send(socket.fd.as_fd(), queue.slices(), more) {
                Ok(n) => self.proxy.sent(key, n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // What the peer sent before it went can still be read. EPIPE follows an end of its direction;
                    // any other error is told once, and a read would take what it left for such an end.
                    let code = error.raw_os_error().unwrap_or(0);
                    if code != libc::EPIPE {
                        socket.error = code;
                    }
                    socket.writable = false;
                    socket.readable = true;
                    self.ready.push_back(key);
                    self.proxy.unsendable(key);
                }
            }
        }
    }

    /// Does all that the proxy asks for.
    fn carry_out(&mut self) {
        let mut reads = 0;
        while let Some(output) = self.proxy.next_output() {
            match output {
                Output::Connect(key, slot) => self.connect(key, slot),
                Output::Send(key) => self.send(key),
                Output::SendLater(key) => self.late.push(key),
                Output::Receive(key) if reads < READS_PER_TURN => {
                    reads += 1;
                    self.read(key);
                }
                Output::Receive(key) => self.ready.push_back(key),
                Output::Finish(key) => self.finish(key),
                Output::Close(key) => self.close(key),
                Output::Reset(key) => {
                    if let Some(socket) = self.sockets.remove(key) {
                        sys::socket::reset_on_close(socket.fd.as_fd());
                    }
                }
            }
        }
    }

    fn connect(&mut self, key: Key, slot: usize) {
        let begun = match self.proxy.address(slot) {
            Some(Address::Tcp(address)) => sys::socket::connect_tcp(*address),
            Some(Address::Unix(path)) => sys::socket::connect_unix(path),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let registered = begun.and_then(|fd| self.reactor.register(fd.as_fd(), key.to_token()).map(|()| fd));
        match registered {
            Ok(fd) => {
                self.sockets.insert(key, fd, true);
                let name = self.proxy.server_name(slot).map(str::to_owned);
                let trace = name.as_ref().filter(|_| self.tls.trace).map(|_| self.begin_trace(key, slot));
                if let Some(socket) = self.sockets.get_mut(key) {
                    (socket.server_name, socket.trace) = (name, trace);
                }
                self.write_trace(key);
            }
            Err(error) => {
                let code = error.raw_os_error().unwrap_or(0);
                let failure = match code {
                    _ if sys::socket::is_exhausted(&error) => Failure::Exhausted(code),
                    libc::EAGAIN => Failure::Busy,
                    _ => Failure::Connect(code),
                };
                self.proxy.failed(key, failure);
            }
        }
    }

    fn take_signals(&mut self) {
        while let Some(signal) = self.signals.take() {
            match signal {
                Signal::Terminate | Signal::Interrupt => self.terminate(),
                Signal::Retire => self.retire(),
                Signal::Child => match &mut self.companion {
                    Some(companion) => companion.child_ended(),
                    None => sys::fork::reap_all(),
                },
                // That it woke the loop is all there is to it.
                Signal::Look => {}
                Signal::Hangup => {
                    if let Some(companion) = &mut self.companion {
                        companion.hang_up();
                    }
                }
                Signal::Upgrade => {
                    if let Some(companion) = &mut self.companion {
                        companion.upgrade();
                    }
                }
                // Without effect: there is no file of log.
                Signal::Reopen => {}
            }
        }
    }
}

/// How long nothing may happen for without a turn of the loop, so that its standing still is told
/// from its having nothing to do.
fn beat_us(plan: &Plan) -> u64 {
    if plan.watchdog_us == 0 { u64::MAX } else { plan.watchdog_us / WATCHDOG_PARTS }
}
