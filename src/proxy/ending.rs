//! The end of a connection: after its queue is sent, or at once.

use super::Proxy;
use super::codec::Codec;
use super::connection::{ClientEnd, Ending, Half, Moved, Peer, Phase, Send};
use super::output::Output;
use crate::collections::slab::Key;
use crate::limits::LINGER_US;
use crate::metrics::Count;

impl Proxy {
    /// Carries out the ending of a connection if its queue is empty.
    pub(super) fn on_flushed(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !connection.output.is_empty() {
            return;
        }
        let ending = match connection.after_flush {
            // Unread bytes would turn a close into a reset.
            Ending::Close if connection.read_paused => Ending::Linger,
            ending => ending,
        };
        if connection.codec.stream().is_some() && (connection.is_client() || ending == Ending::Finish) {
            return self.stream_flushed(key, ending);
        }
        match ending {
            Ending::GoesOn => {}
            Ending::Close => self.close(key, Output::Close(key)),
            Ending::Reset => self.close(key, Output::Reset(key)),
            Ending::Linger if connection.has_ended() => self.close(key, Output::Close(key)),
            Ending::Linger => {
                (connection.phase, connection.send) = (Phase::Lingering, Send::Finished);
                connection.until_us = self.now_us.saturating_add(LINGER_US);
                connection.after_flush = Ending::GoesOn;
                self.ledger.outputs.push_back(Output::Finish(key));
                self.wake(key);
            }
            Ending::Finish => {
                connection.after_flush = Ending::GoesOn;
                connection.send = Send::Finished;
                self.ledger.outputs.push_back(Output::Finish(key));
                self.tunnel_flushed(key);
            }
        }
    }

    /// Ends a connection after its queue is sent, which may be now.
    pub(super) fn end(&mut self, key: Key, ending: Ending) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.after_flush = ending;
        connection.exchange = None;
        // Further input is never decoded, and lingering needs the memory to read into.
        if let Some(buffer) = connection.input.take() {
            self.scratch.buffers.give(buffer);
        }
        self.schedule_send(key);
        self.on_flushed(key);
        self.rearm(key, Moved::Nothing);
    }

    /// Removes a connection and closes it, even if bytes are queued.
    pub(super) fn close(&mut self, key: Key, how: Output) {
        let Some(mut connection) = self.connections.remove(key) else { return };
        self.ledger.timers.clear(key.index());
        if connection.half == Half::Second {
            self.ledger.unacknowledged.remove(&key);
        }
        self.totals.grown -= connection.client().map_or(0, |client| client.held);
        let downstream = connection.codec.mux().and_then(|mux| mux.downstream());
        self.totals.lent -= downstream.map_or(0, |downstream| downstream.loan());
        let upstream = connection.codec.mux().and_then(|mux| mux.upstream());
        let (place, charged) = upstream.map_or((None, 0), |upstream| (upstream.place, upstream.charged));
        if let Some(owner) = connection.backend().and_then(|end| end.owner) {
            self.charge_owner(owner, charged, 0);
        }
        if let Some(buffer) = connection.input.take() {
            self.scratch.buffers.give(buffer);
        }
        connection.output.clear(&mut self.scratch.buffers);
        if let Codec::Stream(stream) = &connection.codec {
            // The shell has no socket for a stream.
            return self.close_stream(key, stream);
        }
        if !self.upstreams.bonds.is_empty() {
            self.unbind(key);
        }
        if connection.is_client() && !self.upstreams.owned.is_empty() {
            self.close_owned(key);
        }
        self.secures.forget(key.index());
        match connection.peer {
            Peer::Client(ClientEnd { admin: true, .. }) => self.totals.admins -= 1,
            Peer::Client(_) => {
                self.totals.clients -= 1;
                self.shared.block.set(Count::ClientsNow, self.totals.clients as u64);
            }
            Peer::Backend(end) if connection.exchange.is_none() && !connection.is_probe() => match connection.codec {
                Codec::Mux(_) => self.upstreams.forget_mux(end, key, place),
                _ => self.upstreams.forget_idle(end, key),
            },
            Peer::Backend(_) => {}
        }
        self.ledger.outputs.push_back(how);
    }
}
