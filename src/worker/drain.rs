//! How a worker ends: by draining, after it was told to stop or others took its place. And how what it
//! serves goes on where its process becomes another program.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::accept::set_deferral;
use super::{Accepting, LISTENERS, Outcome, SIGNALS, Worker};
use crate::limits::{ADMIN_DRAIN_US, DRAIN_DELAY_SLACK_US, LISTEN_BACKLOG, LISTENERS_LEAVE_US};
use crate::log::Level;
use crate::metrics::Count;
use crate::reactor::Reactor;
use crate::sys;

/// The log line that tells of a drain. Times are in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Draining {
    /// Until it begins.
    pub delay_us: u64,
    /// How long it may take.
    pub drain_us: u64,
    /// How long a client may be idle meanwhile.
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

impl Worker<'_> {
    /// Begins to end; the second time, stops at once.
    pub(super) fn terminate(&mut self) {
        self.proxy.set_unready();
        let again = self.stopping || self.drain_deadline_us.is_some();
        self.stopping = true;
        if let Some(companion) = &mut self.companion {
            if again { companion.stop_at_once() } else { companion.stopping() }
        }
        if again {
            self.begin_drain();
            self.stopped = true;
        } else if self.drain_delay_us > 0 {
            // A master says when that is.
            let slack_us = if self.companion.is_some() { 0 } else { DRAIN_DELAY_SLACK_US };
            self.drain_at_us = Some(self.now_us.saturating_add(self.drain_delay_us).saturating_add(slack_us));
            self.say_draining(self.drain_delay_us);
        } else {
            self.begin_drain();
        }
    }

    /// Accepts no more, once nobody can come any more, and has each client told with its next answer that its
    /// connection ends.
    pub(super) fn begin_drain(&mut self) {
        self.drain_at_us = None;
        if self.drain_deadline_us.is_some() {
            return;
        }
        self.say_draining(0);
        self.drain_deadline_us = Some(self.now_us.saturating_add(self.drain_us));
        // A client that connects before its port closes is served: its request may be on its way.
        let closes = !self.activated && (self.stopping || self.is_listener_given_up());
        if closes {
            // Clients that have connected and not sent yet come to the listener before it closes.
            set_deferral(self.all_listeners(), false);
        }
        if closes && self.all_listeners().all(|listener| sys::socket::take_no_more(listener.as_fd()).is_ok()) {
            self.leave_us = Some(self.now_us + LISTENERS_LEAVE_US);
        } else {
            self.leave_listeners();
        }
        self.proxy.drain();
        if self.stopping {
            self.proxy.close_idle(self.drain_idle_us);
        }
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

    /// Takes in who has come to the listeners until now, and nobody after them.
    pub(super) fn leave_listeners(&mut self) {
        self.leave_us = None;
        let own = self.listeners.len();
        for (at, listener) in std::mem::take(&mut self.listeners).into_iter().enumerate() {
            // Others may have it, so that closing it here does not end its being watched.
            if self.accepting == Accepting::Open {
                let _ = self.reactor.unwatch(listener.as_fd());
            }
            self.accept_queued(&listener, at);
        }
        // This process may be the last that has them.
        for (at, spare) in std::mem::take(&mut self.spares).into_iter().enumerate() {
            spare.unwatch(&self.reactor);
            self.accept_queued(spare.listener(), own + at);
        }
        self.set_accepting(Accepting::Closed);
    }

    /// Accepts those that have come to a listener until now: no more than its queue holds, for others may
    /// go on coming.
    fn accept_queued(&mut self, listener: &OwnedFd, at: usize) {
        for _ in 0..=LISTEN_BACKLOG {
            match sys::socket::accept(listener.as_fd()) {
                Ok((fd, address)) => self.admit(fd, address, at),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if sys::socket::is_exhausted(&error) && !self.make_room() => return,
                // That connection is gone already, or there is room for it now.
                Err(_) => {}
            }
        }
    }

    /// Others have taken its place; or it was told to stop, and the delay has passed. The second time, the whole
    /// program ends: idle clients are closed, which could stay until then.
    pub(super) fn retire(&mut self) {
        let again = self.drain_deadline_us.is_some();
        if !self.stopping {
            self.drop_admin();
        }
        self.begin_drain();
        if again {
            self.proxy.set_unready();
            self.proxy.close_idle(self.drain_idle_us);
        }
    }

    /// Takes in who has come to the admin's listener until now, and nobody after them.
    fn leave_admin(&mut self) {
        for _ in 0..=LISTEN_BACKLOG {
            if !self.accept_admin().is_ok_and(|more| more) {
                break;
            }
        }
        self.drop_admin();
    }

    fn drop_admin(&mut self) {
        self.admin_from_us = None;
        if let Some(admin) = self.admin.take() {
            let _ = self.reactor.unwatch(admin.as_fd());
        }
    }

    /// How the worker ends, once it does.
    pub(super) fn outcome(&mut self) -> Option<Outcome> {
        let deadline_us = self.drain_deadline_us?;
        if self.leave_us.is_some() && self.now_us < deadline_us && !self.stopped {
            return None;
        }
        if self.proxy.clients() == 0 && self.admin_until_us.is_none() {
            self.leave_admin();
            self.admin_until_us = Some(self.now_us + ADMIN_DRAIN_US);
        }
        let admins = self.proxy.admins() > 0 && self.admin_until_us.is_some_and(|until_us| self.now_us < until_us);
        let served = self.proxy.clients() == 0 && !admins && self.tls.leaving().len() == 0;
        let over = served || self.now_us >= deadline_us || self.stopped;
        // What it waits for has the same time, and a grace.
        if !over || self.companion.as_ref().is_some_and(|companion| !companion.is_done()) {
            return None;
        }
        let cut = self.proxy.stop();
        self.block.add(Count::Cut, cut as u64);
        self.carry_out();
        Some(if cut == 0 { Outcome::Drained } else { Outcome::Cut(cut) })
    }

    /// Has this process become another program, and a copy of it go on here with all that is served.
    pub(super) fn hand_over(&mut self) -> io::Result<()> {
        let Some(companion) = &mut self.companion else { return Ok(()) };
        let Some(signals) = companion.hand_over(&self.listeners, self.admin.as_ref()) else { return Ok(()) };
        // A poller would be shared with the process that was left, and is not inherited everywhere.
        self.reactor = Reactor::new()?;
        self.signals = signals;
        self.companion = None;
        self.reactor.watch(self.signals.fd(), SIGNALS)?;
        self.watch_admin()?;
        if self.accepting == Accepting::Open {
            self.watch_listeners()?;
        }
        for (key, fd) in self.sockets.iter().chain(self.tls.leaving()) {
            self.reactor.register(fd, key.to_token())?;
        }
        Ok(())
    }

    pub(super) fn watch_listeners(&self) -> io::Result<()> {
        let mut tokens = LISTENERS..;
        self.listeners
            .iter()
            .zip(&mut tokens)
            .try_for_each(|(listener, token)| self.reactor.watch(listener.as_fd(), token))
    }
}
