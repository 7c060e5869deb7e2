//! How an idle client connection is closed: on its idle timeout, and early if the process ends.
//!
//! A client may be sending a request at that very moment. So the socket is read once more, and the connection
//! stays if a byte has arrived. Otherwise our direction ends at once, and the connection lingers for a round
//! trip. A request that was on its way is dropped there without an answer, but not with a reset: the client
//! sees the end of the connection before any response, and may send the request again (RFC 9112, 9.3.1).

use super::connection::{Connection, Moved, Phase, Send, Wait};
use super::{Output, Proxy};
use crate::collections::slab::Key;
use crate::collections::timers::NEVER;
use crate::limits::IDLE_LINGER_US;

impl Proxy {
    /// The process ends: from now on a client connection that has been idle for `limit_us` is closed. The
    /// connections of `accept_admin` stay. A second call does nothing.
    pub fn close_idle(&mut self, limit_us: u64) {
        if self.shutdown.drain_idle_us != NEVER {
            return;
        }
        self.shutdown.drain_idle_us = limit_us;
        for key in self.connections.keys().collect::<Vec<_>>() {
            let Some(connection) = self.connections.get(key).filter(|one| one.is_idle_client()) else { continue };
            let (deadline_us, usual_us) = (self.ledger.timers.get(key.index()), self.usual_limit_us(connection.wait));
            if deadline_us == NEVER {
                // It has passed already.
                continue;
            }
            // A reload may have changed the usual limit since.
            let since_us = deadline_us.saturating_sub(usual_us).min(self.now_us);
            self.ledger.timers.set(key.index(), deadline_us.min(since_us.saturating_add(limit_us)));
        }
    }

    /// How long a connection may wait for something, in microseconds.
    pub(super) fn limit_us(&self, wait: Wait, is_admin: bool) -> u64 {
        let limit_us = self.usual_limit_us(wait);
        let early = matches!(wait, Wait::FirstByte | Wait::Idle) && !is_admin;
        if early { limit_us.min(self.shutdown.drain_idle_us) } else { limit_us }
    }

    fn usual_limit_us(&self, wait: Wait) -> u64 {
        wait.limit_us(&self.settings.timeouts, self.settings.health.timeout_us)
    }

    /// An idle connection has reached its limit: it is closed unless a last read finds something.
    pub(super) fn check_idle(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.wait = Wait::LastRead;
        self.ledger.timers.set(key.index(), self.now_us.saturating_add(IDLE_LINGER_US));
        self.ledger.outputs.push_back(Output::Check(key));
    }

    /// The last read found nothing.
    pub(super) fn end_idle(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        (connection.phase, connection.send) = (Phase::Lingering, Send::Finished);
        connection.linger_until_us = self.now_us.saturating_add(IDLE_LINGER_US);
        // Ahead of all else, because a request that arrives before this is lost.
        self.ledger.outputs.push_front(Output::Finish(key));
        self.rearm(key, Moved::Nothing);
    }
}

impl Connection {
    /// Whether it is a client's, and waits for the first byte of a request. Those of the admin port do not count.
    fn is_idle_client(&self) -> bool {
        !self.is_admin() && matches!(self.wait, Wait::FirstByte | Wait::Idle)
    }
}
