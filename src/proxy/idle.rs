//! The end of an idle client connection: at its idle timeout, and earlier if the process ends.
//!
//! A client may be sending a request at that very moment. So the socket is read once more, and the connection stays
//! if a byte has arrived. Otherwise our direction ends at once, and the connection lingers for a round trip. A
//! request that was on its way is dropped without a response, but not with a reset. The client sees the end of the
//! connection before any response, so it may send the request again (RFC 9112, 9.3.1).

use super::Proxy;
use super::connection::{Connection, Moved, Phase, Send, Wait};
use super::output::Output;
use crate::collections::slab::Key;
use crate::collections::timers::NEVER;
use crate::limits::IDLE_LINGER_US;

impl Proxy {
    /// Closes client connections from now on that have been idle for `limit_us`, because the process ends.
    /// Connections of the admin port stay. A second call does nothing.
    pub fn close_idle(&mut self, limit_us: u64) {
        if self.shutdown.drain_idle_us != NEVER {
            return;
        }
        self.shutdown.drain_idle_us = limit_us;
        for key in self.connections.keys().collect::<Vec<_>>() {
            let Some(connection) = self.connections.get(key).filter(|one| one.is_idle_client()) else { continue };
            let (deadline_us, usual_us) = (self.ledger.timers.get(key.index()), self.usual_limit_us(connection.wait));
            if deadline_us == NEVER {
                // The deadline has passed already.
                continue;
            }
            // A reload may have changed the usual limit.
            let since_us = deadline_us.saturating_sub(usual_us).min(self.now_us);
            self.ledger.timers.set(key.index(), deadline_us.min(since_us.saturating_add(limit_us)));
        }
    }

    /// Returns the limit for an event that a connection waits for, in microseconds.
    pub(super) fn limit_us(&self, wait: Wait, is_admin: bool) -> u64 {
        let limit_us = self.usual_limit_us(wait);
        let early = matches!(wait, Wait::FirstByte | Wait::Idle) && !is_admin;
        if early { limit_us.min(self.shutdown.drain_idle_us) } else { limit_us }
    }

    fn usual_limit_us(&self, wait: Wait) -> u64 {
        wait.limit_us(&self.settings.timeouts, self.settings.health.timeout_us)
    }

    /// Closes an idle connection at its limit unless a last read finds something.
    pub(super) fn check_idle(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.wait = Wait::LastRead;
        self.ledger.timers.set(key.index(), self.now_us.saturating_add(IDLE_LINGER_US));
        self.ledger.outputs.push_back(Output::Check(key));
    }

    /// Ends an idle connection, because the last read found nothing.
    pub(super) fn end_idle(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        (connection.phase, connection.send) = (Phase::Lingering, Send::Finished);
        connection.until_us = self.now_us.saturating_add(IDLE_LINGER_US);
        // This output goes first, because a request that arrives before it is lost.
        self.ledger.outputs.push_front(Output::Finish(key));
        self.rearm(key, Moved::Nothing);
    }
}

impl Connection {
    /// True if this is a client that waits for the first byte of a request, and not one of the admin port.
    fn is_idle_client(&self) -> bool {
        !self.is_admin() && matches!(self.wait, Wait::FirstByte | Wait::Idle)
    }
}
