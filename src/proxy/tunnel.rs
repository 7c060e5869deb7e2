//! Tunnels. After a 101 both connections carry bytes without messages until both directions have ended.

use super::Proxy;
use super::connection::{Connection, Ending, Send};
use super::exchange::Upstream;
use super::failure::Failure;
use super::output::Output;
use super::progress::Progress;
use super::record::Reason;
use crate::collections::slab::Key;
use crate::http::fields::{Name, list};
use crate::http::forward::{self, Switch};
use crate::http::framing::Body;
use crate::http::head::HeadRef;
use crate::http::message_error::MessageError;

impl Proxy {
    /// Begins a tunnel, because the backend has agreed to switch protocols.
    pub(super) fn on_switching(&mut self, id: Key, key: Key, slot: u16, head: HeadRef<'_>) {
        let Some(exchange) = self.exchanges.living_mut(id) else { return };
        // Content of a known length is plain bytes, like a tunnel's, so the rest of it may follow the 101.
        let chunked = exchange.facts.body == Body::Chunked && exchange.request != Progress::Ended;
        if !exchange.facts.upgrades() || chunked {
            return self.backend_failed(key, Failure::Malformed(MessageError::SwitchUnasked));
        }
        if head.values(Name::Upgrade).flat_map(list).next().is_none() {
            return self.backend_failed(key, Failure::Malformed(MessageError::SwitchUnnamed));
        }
        exchange.response = Progress::Flowing;
        exchange.record.status = head.status();
        let (client, sent_us) = (exchange.client, exchange.record.sent_us);
        self.set_upstream(id, Upstream::Tunnel { slot, key });
        self.count_response(slot, head.status(), sent_us);
        // The backend has done its part. The rest is a matter of the users of the tunnel.
        self.upstreams.note_success(slot);
        let shows = self.shows();
        let (Some(entry), Some(exchange)) = (self.connections.living(client), self.exchanges.living(id)) else {
            return;
        };
        self.scratch.text.clear();
        let mut writer = entry.codec.head_writer(&mut self.scratch.text, shows);
        forward::switching(&mut writer, head, exchange.id(), Switch::AsReceived);
        let written = writer.finish();
        for end in [client, key] {
            if let Some(connection) = self.connections.get_mut(end) {
                connection.codec.tunnel();
            }
        }
        self.write_to_client(client, "response head", Some(Body::UntilClose), written);
        // The bytes that the client sent after its request go first.
        self.ledger.resumed.push(client);
    }

    /// Ends one direction of a tunnel on the opposite connection too.
    pub(super) fn tunnel_ended(&mut self, key: Key) {
        let id = self.connections.get(key).and_then(|connection| connection.exchange);
        let Some(opposite) = id.and_then(|id| self.opposite(id, key)) else { return };
        if let Some(connection) = self.connections.get_mut(opposite)
            && connection.send != Send::Finished
        {
            connection.after_flush = Ending::Finish;
            self.on_flushed(opposite);
        }
        self.tunnel_flushed(key);
    }

    /// Closes a tunnel if both directions have ended.
    pub(super) fn tunnel_flushed(&mut self, key: Key) {
        let Some(id) = self.connections.get(key).and_then(|connection| connection.exchange) else { return };
        let Some(opposite) = self.opposite(id, key) else { return };
        let is_over = |one: &Connection| one.has_ended() && one.send == Send::Finished;
        let over = |end| self.connections.get(end).is_none_or(is_over);
        if over(key) && over(opposite) {
            self.remove_exchange(id, Reason::Tunnel);
            self.close(key, Output::Close(key));
            self.close(opposite, Output::Close(opposite));
        }
    }
}
