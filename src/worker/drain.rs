//! The end of a worker: it drains on a signal to stop, or when others have replaced it. Also the handover of
//! its connections to a copy, when its process becomes another program.
//!
//! ```text
//! Serving ──▶ Delayed ──▶ Closing ──▶ Draining ──▶ Drained ──▶ the outcome
//! └───────────┴──────────────────────▲     each also ends at the deadline, or at an immediate stop
//! ```
//!
//! Listeners that other workers accept from go on without this one from the first moment. Only those that close are kept
//! for a while (`Closing`), because nobody else has their clients.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use super::Worker;
use super::accept::set_deferral;
use super::listener::Listener;
use super::token::SIGNALS;
use crate::limits::{ADMIN_DRAIN_US, DRAIN_DELAY_SLACK_US, LISTEN_BACKLOG, LISTENERS_LEAVE_US};
use crate::log::Level;
use crate::metrics::Count;
use crate::reactor::Reactor;
use crate::sys;

/// The log line about a drain. Times are in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Draining {
    /// Until it begins.
    pub delay_us: u64,
    /// The time that it may take.
    pub drain_us: u64,
    /// The time that a client may be idle meanwhile.
    pub idle_us: u64,
    /// Connections from clients.
    pub clients: u64,
    /// Requests under way.
    pub busy: u64,
}

impl fmt::Display for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [delay, drain, idle] = [self.delay_us, self.drain_us, self.idle_us].map(Duration::from_micros);
        match self.delay_us {
            0 => write!(f, "draining, for at most {drain:?}")?,
            _ => write!(f, "draining begins in {delay:?}, for at most {drain:?}")?,
        }
        let busy = self.busy.min(self.clients);
        let plural = if self.clients == 1 { "" } else { "s" };
        write!(
            f,
            ": {} client connection{plural}, {} idle (closed after {idle:?} without a request) and {busy} busy; \
             a second TERM or Ctrl-C stops at once",
            self.clients,
            self.clients - busy
        )
    }
}

/// The end of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every request was answered.
    Drained,
    /// This many requests were cut, by the drain deadline or a second signal.
    Cut(usize),
}

/// An order to a worker. A later one is stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Order {
    /// No order to end.
    Serve,
    /// Other workers have taken its place.
    GivePlace,
    /// The whole program ends.
    Stop,
    /// The whole program ends at once.
    StopAtOnce,
}

/// The progress of a drain. Times are microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    /// It has not begun.
    Serving,
    /// The worker continues normally, and begins to drain at this time.
    Delayed { at_us: u64 },
    /// No handshake begins any more on the listeners that close. They are left when those under way have had their time.
    Closing { leave_us: u64, deadline_us: u64 },
    /// The listeners for clients are left. Clients have until the deadline.
    Draining { deadline_us: u64 },
    /// The last client has gone, and the admin port is left. Its connections are answered for a while.
    Drained { admin_until_us: u64, deadline_us: u64 },
}

impl Drain {
    /// The time at which the worker ends, once it drains.
    fn deadline_us(self) -> Option<u64> {
        match self {
            Drain::Serving | Drain::Delayed { .. } => None,
            Drain::Closing { deadline_us, .. }
            | Drain::Draining { deadline_us }
            | Drain::Drained { deadline_us, .. } => Some(deadline_us),
        }
    }

    /// The time of the next step; `u64::MAX` if there is none. A time that has passed does not count: after its
    /// deadline a worker waits for its companion.
    pub(super) fn next_us(self, now_us: u64) -> u64 {
        let step_us = match self {
            Drain::Serving | Drain::Draining { .. } => u64::MAX,
            Drain::Delayed { at_us } => at_us,
            Drain::Closing { leave_us, .. } => leave_us,
            Drain::Drained { admin_until_us, .. } => admin_until_us,
        };
        let times_us = [step_us, self.deadline_us().unwrap_or(u64::MAX)];
        times_us.into_iter().filter(|&us| us > now_us).min().unwrap_or(u64::MAX)
    }
}

fn numbers<'a>(listeners: impl IntoIterator<Item = (usize, &'a Listener)>) -> Vec<usize> {
    listeners.into_iter().map(|(at, _)| at).collect()
}

impl Worker<'_> {
    /// Begins to end; the second time, stops at once.
    pub(super) fn terminate(&mut self) {
        self.proxy.set_unready();
        let again = self.order == Order::Stop || self.drain.deadline_us().is_some();
        self.order = if again { Order::StopAtOnce } else { Order::Stop };
        if let Some(companion) = &mut self.companion {
            if again { companion.stop_at_once() } else { companion.stopping() }
        }
        if !again && self.drain_delay_us > 0 {
            // In mp the master gives the order to drain. The slack is for a master that does not.
            let slack_us = if self.companion.is_some() { 0 } else { DRAIN_DELAY_SLACK_US };
            let at_us = self.now_us.saturating_add(self.drain_delay_us).saturating_add(slack_us);
            self.drain = Drain::Delayed { at_us };
            self.say_draining(self.drain_delay_us);
        } else {
            self.begin_drain();
        }
    }

    /// Takes the next step of a drain if its time has come.
    pub(super) fn advance_drain(&mut self) {
        match self.drain {
            Drain::Delayed { at_us } if at_us <= self.now_us => self.begin_drain(),
            Drain::Closing { leave_us, .. } if leave_us <= self.now_us => self.leave_listeners(),
            _ => {}
        }
    }

    /// Stops accepting, once no client can connect any more, and announces to each client with its next response that
    /// its connection ends. Does nothing if the worker drains already.
    fn begin_drain(&mut self) {
        if self.drain.deadline_us().is_some() {
            return;
        }
        self.say_draining(0);
        let deadline_us = self.now_us.saturating_add(self.drain_us);
        // A client that connects before its port closes is served: its request may be on its way.
        let public = || self.all_listeners().filter(|(_, listener)| listener.listen.is_public());
        // Clients that have connected and not sent yet come to the listener before it closes.
        let (closing, kept): (Vec<_>, Vec<_>) = public().partition(|(_, listener)| self.is_closing(listener));
        let (closing, kept) = (closing.into_iter().map(|(_, listener)| listener), numbers(kept));
        set_deferral(closing.clone(), false);
        let is_closed = |listener: &Listener| sys::socket::take_no_more(listener.socket.as_fd()).is_ok();
        if closing.len() > 0 && closing.clone().all(is_closed) {
            self.drain = Drain::Closing { leave_us: self.now_us + LISTENERS_LEAVE_US, deadline_us };
            self.leave(&kept);
        } else {
            self.drain = Drain::Draining { deadline_us };
            self.leave_listeners();
        }
        self.proxy.drain();
        if self.order >= Order::Stop {
            self.proxy.close_idle(self.drain_idle_us);
        }
        // The GOAWAY of each mux must not wait for the next event.
        self.carry_out();
        self.send_late();
    }

    /// True if this port is closed by the drain: the program ends, or its successor does not use the listener.
    /// In that case the successor ends the deferral, because nothing else does while a worker accepts.
    fn is_closing(&self, listener: &Listener) -> bool {
        let is_given_up = || !sys::listen::is_deferred(listener.socket.as_fd());
        !listener.is_activated && (self.order >= Order::Stop || is_given_up())
    }

    /// Says that draining begins, now or after a delay. In mp the master says so, for all workers.
    fn say_draining(&mut self, delay_us: u64) {
        if self.companion.is_some() {
            let (clients, busy) = (self.proxy.clients() as u64, self.proxy.requests() as u64);
            let (drain_us, idle_us) = (self.drain_us, self.drain_idle_us);
            let text = Draining { delay_us, drain_us, idle_us, clients, busy };
            self.proxy.log().line(Level::Info, "process", format_args!("{text}"));
        }
    }

    /// Takes in the clients that have come to the listeners until now, and none after them.
    fn leave_listeners(&mut self) {
        if let Drain::Closing { deadline_us, .. } = self.drain {
            self.drain = Drain::Draining { deadline_us };
        }
        self.leave(&numbers(self.all_listeners().filter(|(_, listener)| listener.listen.is_public())));
    }

    /// Takes in the connections that have come until now to the listeners of these numbers, and none after them. This
    /// process may be the last one that has a listener of another worker.
    fn leave(&mut self, numbers: &[usize]) {
        for &at in numbers {
            if let Some(listener) = self.take_listener(at) {
                self.accept_queued(&listener, at);
            }
        }
        self.accepting_changed();
    }

    /// The numbers of the listeners that are not for clients.
    fn admin_listeners(&self) -> Vec<usize> {
        numbers(self.all_listeners().filter(|(_, listener)| !listener.listen.is_public()))
    }

    /// Accepts the connections that are queued on a listener, at most its queue's length, because more clients
    /// may keep coming.
    fn accept_queued(&mut self, listener: &Listener, at: usize) {
        for _ in 0..=LISTEN_BACKLOG {
            match sys::socket::accept(listener.socket.as_fd()) {
                Ok((fd, address)) => self.admit(fd, address, listener.listen, at),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if sys::socket::is_exhausted(&error) && !self.make_room() => return,
                // This connection is gone already, or there is room for it now.
                Err(_) => {}
            }
        }
    }

    /// Drains, because others have taken its place, or because the delay of a stop has passed. The second time, the
    /// whole program ends: idle clients, which could stay until then, are closed.
    pub(super) fn retire(&mut self) {
        let again = self.drain.deadline_us().is_some();
        if self.order < Order::Stop {
            self.order = Order::GivePlace;
            // The workers in its place accept from the admin port.
            for at in self.admin_listeners() {
                drop(self.take_listener(at));
            }
        }
        self.begin_drain();
        if again {
            self.proxy.set_unready();
            self.proxy.close_idle(self.drain_idle_us);
        }
    }

    /// Returns how the worker ends, once it does.
    pub(super) fn outcome(&mut self) -> Option<Outcome> {
        let deadline_us = self.drain.deadline_us()?;
        let is_late = self.now_us >= deadline_us || self.order == Order::StopAtOnce;
        if matches!(self.drain, Drain::Closing { .. }) && !is_late {
            return None;
        }
        if self.proxy.clients() == 0 && matches!(self.drain, Drain::Draining { .. }) {
            self.leave(&self.admin_listeners());
            self.drain = Drain::Drained { admin_until_us: self.now_us + ADMIN_DRAIN_US, deadline_us };
        }
        let is_served = match self.drain {
            Drain::Drained { admin_until_us, .. } => self.proxy.admins() == 0 || self.now_us >= admin_until_us,
            _ => false,
        };
        let is_over = is_late || is_served && self.proxy.clients() == 0 && self.tls.leaving.len() == 0;
        // The companion's processes have the same time, and a grace.
        if !is_over || self.companion.as_ref().is_some_and(|companion| !companion.is_done()) {
            return None;
        }
        let cut = self.proxy.stop();
        self.carry_out();
        // The ends of the streams of clients.
        self.send_late();
        // The clients of these sessions have not taken the end of their last response.
        let cut = cut + self.tls.leaving.len();
        self.block.add(Count::Cut, cut as u64);
        Some(if cut == 0 { Outcome::Drained } else { Outcome::Cut(cut) })
    }

    /// Makes this process another program, while a copy of it keeps serving all connections.
    pub(super) fn hand_over(&mut self) -> io::Result<()> {
        let Some(companion) = &mut self.companion else { return Ok(()) };
        let sockets = self.listeners.iter().flatten().map(|own| own.listener.socket.as_fd()).collect::<Vec<_>>();
        let Some(signals) = companion.hand_over(&sockets) else { return Ok(()) };
        // A poller would be shared with the process that was left, and is not inherited everywhere.
        self.reactor = Reactor::new()?;
        self.signals = signals;
        self.companion = None;
        self.reactor.watch(self.signals.fd(), SIGNALS)?;
        self.watch_again()?;
        for (key, fd) in self.sockets.iter().chain(self.tls.leaving.iter()) {
            self.reactor.register(fd, key.to_token())?;
        }
        Ok(())
    }
}
