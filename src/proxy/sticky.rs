//! Sessions: a cookie names the backend that a client stays with. The proxy signs the cookie, so that clients cannot
//! choose a backend, and no backend gets it.
//!
//! A session holds while its backend is up and below its limit, also with weight 0. Otherwise the strategy picks another
//! one, and the response has a new cookie. A cookie says nothing about groups that its backend is not in.

use super::Proxy;
use super::connection::{ClientEnd, Peer};
use super::state::Listener;
use crate::collections::slab::Key;
use crate::config::{Plan, Sticky};
use crate::digest;
use crate::http::fields::Name;
use crate::http::head::HeadRef;
use crate::http::{cookie, sticky};
use crate::limits::STICKY_TOKENS;

/// The cookie, its key, and the backends that it can name.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    config: Option<Sticky>,
    /// `None`: the worker has not got it yet.
    key: Option<digest::Key>,
    /// The identities of the plan's backends and their slots, sorted.
    slots: Vec<(u64, u16)>,
}

impl Sessions {
    /// Takes over the settings and the backends of a plan.
    pub(super) fn set(&mut self, plan: &Plan) {
        self.config.clone_from(&plan.sticky);
        self.slots.clear();
        if self.config.is_some() {
            self.slots.extend(plan.members.iter().map(|member| (member.identity(), member.slot)));
            self.slots.sort_unstable();
        }
    }

    /// Returns the name of the cookie, if there is one.
    pub(super) fn name(&self) -> Option<&str> {
        self.config.as_ref().map(|config| config.name.as_str())
    }

    /// Returns the slot of a backend.
    pub(super) fn slot(&self, identity: u64) -> Option<u16> {
        let place = self.slots.binary_search_by_key(&identity, |&(identity, _)| identity);
        place.ok().map(|place| self.slots[place].1)
    }

    fn identity(&self, slot: u16) -> Option<u64> {
        self.slots.iter().find(|&&(_, other)| other == slot).map(|&(identity, _)| identity)
    }

    /// Returns the backend that a request's cookie names, if `is_member` accepts its slot.
    pub(super) fn find(&self, head: HeadRef<'_>, is_member: impl Fn(u16) -> bool) -> Option<u64> {
        let (config, key) = (self.config.as_ref()?, self.key.as_ref()?);
        let wanted = |identity| self.slot(identity).is_some_and(&is_member);
        // The cookie occurs once, unless somebody tries to confuse.
        let mut values = cookie::values(head, &config.name).take(STICKY_TOKENS);
        values.find_map(|value| sticky::identities(key, value, wanted).next())
    }

    /// Appends a cookie that names the backend in a slot, and keeps what the request's cookie says about other groups.
    fn write(&self, head: HeadRef<'_>, slot: u16, is_member: impl Fn(u16) -> bool, https: bool, out: &mut Vec<u8>) {
        let (Some(config), Some(key), Some(identity)) = (&self.config, &self.key, self.identity(slot)) else { return };
        out.extend_from_slice(config.name.as_bytes());
        out.push(b'=');
        sticky::write(key, identity, out);
        let is_other = |identity| self.slot(identity).is_some_and(|slot| !is_member(slot));
        let value = cookie::values(head, &config.name).next().unwrap_or_default();
        let others = sticky::identities(key, value, is_other).take(STICKY_TOKENS - 1);
        others.for_each(|identity| sticky::write(key, identity, out));
        out.extend_from_slice(config.attributes.as_bytes());
        if https || config.secure {
            out.extend_from_slice(b"; Secure");
        }
    }
}

impl Proxy {
    /// Takes over the key of the cookie.
    pub fn set_cookie_key(&mut self, secret: &[u8]) {
        self.upstreams.sessions.key = (!secret.is_empty()).then(|| digest::Key::new(secret));
    }

    /// Writes the cookie for the response of an exchange to `scratch.cookie`, which is empty if the client needs none.
    pub(super) fn write_cookie(&mut self, id: Key, slot: u16) {
        self.scratch.cookie.clear();
        let sessions = &self.upstreams.sessions;
        if sessions.key.is_none() || sessions.config.is_none() {
            return;
        }
        let Some(exchange) = self.exchanges.get(id) else { return };
        if exchange.session.and_then(|identity| sessions.slot(identity)) == Some(slot) {
            return;
        }
        let (head, group) = (exchange.saved.view(), exchange.group);
        let https = self.is_https(exchange.client, head);
        let is_member = |slot| self.upstreams.balancer.is_in(group, slot);
        sessions.write(head, slot, is_member, https, &mut self.scratch.cookie);
    }

    /// True if the client has sent a request by https, to this program or to a trusted peer.
    fn is_https(&self, client: Key, head: HeadRef<'_>) -> bool {
        let Some(Peer::Client(ClientEnd { listener, trusted, .. })) = self.connections.get(client).map(|one| one.peer)
        else {
            return false;
        };
        let own = self.settings.listeners.get(usize::from(listener)).map_or("http", Listener::scheme);
        let said = head.values(Name::XForwardedProto).next().filter(|_| trusted);
        said.unwrap_or(own.as_bytes()).eq_ignore_ascii_case(b"https")
    }
}
