//! The setup of a worker, and its first steps.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use super::accept::set_deferral;
use super::drain::{Drain, Order};
use super::listener::Listener;
use super::listener::Own;
use super::secure::Tls;
use super::socket::Sockets;
use super::spares::{self, Spare};
use super::token::{COMPANION, SIGNALS};
use super::{Worker, beat_us};
use crate::config::{Config, Listen, Plan};
use crate::log::Log;
use crate::proxy::{Proxy, Shared};
use crate::reactor::Reactor;
use crate::shared::Region;
use crate::sys::clock;
use crate::sys::signal::Signals;
use crate::tls;

/// The other duties of an sp process, which are the master's in mp.
pub trait Companion {
    /// The descriptor to poll for readability.
    fn fd(&self) -> BorrowedFd<'_>;
    /// When it has to have a turn, in microseconds; `u64::MAX` for never.
    fn next_us(&self) -> u64;
    /// Does everything that is due. Errors are those of the poller.
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
    /// Requests an immediate end.
    fn stop_at_once(&mut self);
    /// True if this process may end.
    fn is_done(&self) -> bool;
    /// True if this process is to become another program now.
    fn wants_handover(&self) -> bool;
    /// Becomes another program, and leaves the connections to a copy of this process: `Some` in that copy, with
    /// its signals. `None` on failure; then nothing has changed.
    fn hand_over(&mut self, sockets: &[BorrowedFd<'_>]) -> Option<Signals>;
}

/// The setup of a worker.
pub struct Setup<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The shared memory. The plan is in it.
    pub region: Region,
    /// Its own listeners.
    pub listeners: Vec<Listener>,
    /// Those of the other workers, to accept from while a worker is absent.
    pub spares: Vec<Spare>,
    /// The other work of this process.
    pub companion: Option<&'a mut dyn Companion>,
    /// The process ends, and draining is delayed.
    pub stopping: bool,
    /// The worker's number, from 0.
    pub index: u32,
    /// Its worker record in the region.
    pub record: usize,
    /// Clients held at once; past it accepting pauses.
    pub max_connections: usize,
    /// Idle connections to backends kept at once; past it the oldest is closed.
    pub max_idle: usize,
    /// The configuration of sessions with backends, if some speak TLS.
    pub tls: Option<tls::client::Config>,
    /// The process's signals.
    pub signals: Signals,
    /// The log.
    pub log: Log,
}

impl<'a> Worker<'a> {
    /// A worker that does nothing yet. Errors are those of the poller, or of a malformed plan.
    pub(super) fn new(setup: Setup<'a>) -> io::Result<Worker<'a>> {
        let now_us = clock::monotonic_us();
        let seed = clock::unix_us() ^ u64::from(setup.index) << 48 ^ u64::from(std::process::id()) << 32;
        let (edition, plan) = setup.region.table().read();
        let plan = plan.and_then(|bytes| Plan::decode(&bytes)).ok_or(io::ErrorKind::InvalidData)?;
        let (region, record) = (setup.region, setup.record);
        let blocks = region.blocks();
        let before = blocks.len() - region.records();
        let shared = Shared {
            cells: region.balance(),
            in_flight: region.in_flight(record),
            block: region.block(record),
            // A worker lives as long as its process.
            workers: Vec::leak(blocks),
            before,
            used: region.used(),
            globals: region.globals(),
        };
        let mut worker = Worker {
            reactor: Reactor::new()?,
            proxy: Proxy::new(&plan, shared, setup.index, seed, now_us, setup.log),
            sockets: Sockets::default(),
            region,
            edition,
            record: region.record(record),
            listeners: setup.listeners.into_iter().map(|listener| Some(Own::new(listener))).collect(),
            spares: spares::held(setup.spares, region),
            companion: setup.companion,
            accept_streak: 0,
            max_connections: setup.max_connections,
            signals: setup.signals,
            ready: VecDeque::new(),
            drain_us: plan.timeouts.drain_us,
            drain_idle_us: plan.timeouts.drain_idle_us,
            drain_delay_us: plan.drain_delay_us,
            beat_us: beat_us(&plan),
            order: Order::Serve,
            drain: Drain::Serving,
            pauses: None,
            tls: Tls::new(setup.tls, setup.config),
            late: Vec::new(),
            index: setup.index,
            block: shared.block,
            usage_us: (0, 0),
            now_us,
        };
        let listens: Vec<Listen> = worker.all_listeners().map(|(_, listener)| listener.listen).collect();
        worker.proxy.set_listeners(&listens);
        worker.proxy.limit_idle(setup.max_idle);
        worker.tls.leaving.limit(plan.timeouts.response_us);
        worker.prepare_tls(plan.authorities);
        worker.follow_secrets(Some(plan.tls));
        Ok(worker)
    }

    /// Begins to accept.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        self.reactor.watch(self.signals.fd(), SIGNALS)?;
        if let Some(companion) = &self.companion {
            self.reactor.watch(companion.fd(), COMPANION)?;
        }
        if self.own_listeners().any(|own| !own.is_public()) {
            self.proxy.hide_metrics();
        }
        // The deferral of a service manager's listener is its own matter.
        let own = self.own_listeners().filter(|own| own.is_public()).map(|own| &own.listener);
        set_deferral(own.filter(|listener| !listener.is_activated), true);
        self.update_clock();
        self.resume_accepting()?;
        self.record.beat(self.now_us);
        self.record.set_ready();
        if let Some(companion) = &mut self.companion {
            companion.serving();
        }
        Ok(())
    }
}
