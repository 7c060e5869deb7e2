//! A stub resolver as a pure state machine: names in, addresses out, no sockets.
//!
//! Every name is in one of four phases: fixed by the hosts table; resting until its answer expires or a failed
//! lookup is due again; queued, because at most `DNS_LOOKUPS` run at once, not counting slow ones; or asking,
//! for both address families at the same time. A lookup that takes long counts as slow and frees its place, so
//! that a name that times out delays no name that answers. A failed lookup never removes the last good
//! addresses.
//!
//! A query is one question to one server on a socket of its own. The system picks the socket's port, and a
//! forger must guess the port and the id. Ids come from a generator that is seeded once and is not
//! cryptographic. In production its seed must come from the system's random source.
//!
//! Invariants: each socket requested by `OpenUdp` or `ConnectTcp` is released by exactly one `Close`. A query
//! belongs to a name in the phase asking and is one of its two, so at most twice `DNS_LOOKUPS` and
//! `DNS_SLOW_LOOKUPS` queries are open. A name is in the queue once if it is queued, and otherwise not at all.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

pub use super::entry::State;
use super::entry::{Entry, Phase};
use super::hosts::Hosts;
pub use super::lookup::Reason;
use super::lookup::{Lookup, Outcome, Step};
use super::message::{Family, Name, Question, Reply};
pub use super::output::{Change, Output};
use super::resolv_conf::ResolvConf;
use crate::collections::random::Random;
use crate::collections::slab::{Key, Slab};
use crate::collections::timers::NEVER;
use crate::limits::{
    DNS_LOOKUPS, DNS_MESSAGE_BYTES, DNS_SLOW_LOOKUPS, DNS_SLOW_US, DNS_STRAYS, DNS_SUSPECT_US, DNS_TTL_MAX_US,
    DNS_TTL_MIN_US, NAMES, SECOND_US,
};

#[derive(Debug)]
enum Transport {
    Udp,
    Connecting,
    /// The bytes received so far: at most one message with its length prefix.
    Tcp(Vec<u8>),
}

/// One question to one server.
#[derive(Debug)]
struct Query {
    entry: Key,
    question: Question,
    server: SocketAddr,
    /// The number of earlier attempts for this question.
    tries: u32,
    transport: Transport,
    strays: u32,
    deadline_us: u64,
}

/// The names to be resolved, and their queries.
#[derive(Debug)]
pub struct Resolver {
    conf: ResolvConf,
    hosts: Hosts,
    random: Random,
    entries: Slab<Entry>,
    keys: BTreeMap<Box<str>, Key>,
    queries: Slab<Query>,
    /// The queue of names for a lookup.
    waiting: VecDeque<Key>,
    /// Names with a lookup in progress, without the slow ones.
    asking: usize,
    /// Names with a slow lookup.
    slow: usize,
    /// The number of lookups begun, for the option `rotate`.
    turns: usize,
    outputs: VecDeque<Output>,
    now_us: u64,
}

impl Resolver {
    /// Creates a resolver without names. In production the seed must be random, because predictable ids make
    /// forged answers easy.
    pub fn new(conf: ResolvConf, hosts: Hosts, seed: u64, now_us: u64) -> Resolver {
        Resolver {
            conf: askable(conf),
            hosts,
            random: Random::new(seed),
            entries: Slab::new(),
            keys: BTreeMap::new(),
            queries: Slab::new(),
            waiting: VecDeque::new(),
            asking: 0,
            slow: 0,
            turns: 0,
            outputs: VecDeque::new(),
            now_us,
        }
    }

    /// The next instruction. Must be called after every input until it returns `None`.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The time of the next `expire`, in microseconds; `NEVER` if nothing is due.
    pub fn next_deadline_us(&self) -> u64 {
        let queries = self.queries.keys().filter_map(|key| Some(self.queries.get(key)?.deadline_us));
        let gives_way = !self.waiting.is_empty() && self.slow < DNS_SLOW_LOOKUPS;
        let rests = self.entries.keys().filter_map(|key| match &self.entries.get(key)?.phase {
            Phase::Rests(due_us) => Some(*due_us),
            Phase::Asks(lookup) if gives_way && !lookup.slow => {
                Some(lookup.due_us().min(lookup.begun_us.saturating_add(DNS_SLOW_US)))
            }
            Phase::Asks(lookup) => Some(lookup.due_us()),
            _ => None,
        });
        queries.chain(rests).min().unwrap_or(NEVER)
    }

    /// The last good addresses of a name, spelled as in `set_names`: IPv4 first, sorted, at most
    /// `NAME_ADDRESSES`.
    pub fn addresses(&self, name: &str) -> &[IpAddr] {
        self.entry(name).map_or(&[], |entry| &entry.addresses)
    }

    /// The state of a name, spelled as in `set_names`; None if it is not in the set.
    pub fn state(&self, name: &str) -> Option<State> {
        self.entry(name).map(Entry::state)
    }

    /// The time at which a name was added, in microseconds; None if it is not in the set.
    pub fn since_us(&self, name: &str) -> Option<u64> {
        self.entry(name).map(|entry| entry.since_us)
    }

    /// The candidate for which the last query of a name failed; None if none failed.
    pub fn failed_as(&self, name: &str) -> Option<&Name> {
        self.entry(name)?.failed_as.as_ref()
    }

    /// Reports that an address of a name does not work. The name is looked up again before its TTL, but at most
    /// once per `DNS_SUSPECT_US`.
    pub fn suspect(&mut self, name: &str, now_us: u64) {
        self.now_us = now_us;
        let Some(&key) = self.keys.get(name) else { return };
        let Some(entry) = self.entries.get_mut(key) else { return };
        let least_us = now_us.max(entry.asked_us.saturating_add(DNS_SUSPECT_US));
        match &mut entry.phase {
            Phase::Rests(due_us) if *due_us != NEVER => *due_us = least_us.min(*due_us),
            Phase::Asks(lookup) => lookup.suspect(least_us),
            _ => {}
        }
        self.expire(now_us);
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(*self.keys.get(name)?)
    }

    /// Sets the names to be resolved, at most `NAMES`. New ones are looked up at once, missing ones are
    /// removed, and the others are unchanged.
    pub fn set_names<N: AsRef<str>>(&mut self, names: &[N], now_us: u64) {
        self.now_us = now_us;
        let mut keys = std::mem::take(&mut self.keys);
        for name in names.iter().take(NAMES).map(AsRef::as_ref) {
            if self.keys.contains_key(name) {
                continue;
            }
            let (name, key) = keys.remove_entry(name).unwrap_or_else(|| (name.into(), self.add(name)));
            self.keys.insert(name, key);
        }
        for key in keys.into_values() {
            self.cancel(key);
            self.entries.remove(key);
        }
        self.begin_waiting();
    }

    fn add(&mut self, name: &str) -> Key {
        let key = self.entries.insert(Entry::new(name, self.now_us));
        if !self.fix(key) {
            self.line_up(key);
        }
        key
    }

    /// Replaces the hosts table. Names that are no longer in it are looked up at once.
    pub fn reload_hosts(&mut self, hosts: Hosts, now_us: u64) {
        self.now_us = now_us;
        self.hosts = hosts;
        for key in self.all() {
            let was_fixed = self.entries.get(key).is_some_and(|entry| matches!(entry.phase, Phase::Fixed));
            if !self.fix(key) && was_fixed {
                self.line_up(key);
            }
        }
        self.begin_waiting();
    }

    /// Replaces the settings. If they differ, everything is looked up again.
    pub fn reload_conf(&mut self, conf: ResolvConf, now_us: u64) {
        let conf = askable(conf);
        if conf != self.conf {
            self.conf = conf;
            self.refresh(now_us);
        }
    }

    /// Looks every name up again now.
    pub fn refresh(&mut self, now_us: u64) {
        self.now_us = now_us;
        for key in self.all() {
            let Some(entry) = self.entries.get_mut(key) else { continue };
            entry.failures = 0;
            if !matches!(entry.phase, Phase::Fixed | Phase::Waits) {
                self.cancel(key);
                self.line_up(key);
            }
        }
        self.begin_waiting();
    }

    /// Handles a datagram on a query's socket.
    pub fn received_udp(&mut self, token: Key, from: SocketAddr, bytes: &[u8], now_us: u64) {
        self.now_us = now_us;
        let Some(query) = self.queries.get(token) else { return };
        if !matches!(query.transport, Transport::Udp) {
            return;
        }
        // Only address and port are compared, because the scope and flow of an IPv6 address may be known to one
        // side only.
        let asked = (from.ip(), from.port()) == (query.server.ip(), query.server.port());
        let reply = if asked { Reply::parse(bytes, &query.question) } else { Reply::Stray };
        self.answer(token, reply);
        self.begin_waiting();
    }

    /// Handles an established TCP connection.
    pub fn connected(&mut self, token: Key, now_us: u64) {
        self.now_us = now_us;
        let Some(query) = self.queries.get_mut(token) else { return };
        if !matches!(query.transport, Transport::Connecting) {
            return;
        }
        query.transport = Transport::Tcp(Vec::new());
        let message = query.question.query();
        let length = (message.len() as u16).to_be_bytes();
        self.outputs.push_back(Output::Send(token, [&length, &message[..]].concat()));
    }

    /// Handles bytes on a TCP connection.
    pub fn received_tcp(&mut self, token: Key, bytes: &[u8], now_us: u64) {
        self.now_us = now_us;
        let Some(query) = self.queries.get_mut(token) else { return };
        let Transport::Tcp(inbox) = &mut query.transport else { return };
        let room = 2 + DNS_MESSAGE_BYTES - inbox.len();
        inbox.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let Some((length, message)) = inbox.split_first_chunk() else { return };
        let Some(message) = message.get(..usize::from(u16::from_be_bytes(*length))) else { return };
        let reply = Reply::parse(message, &query.question);
        self.answer(token, reply);
        self.begin_waiting();
    }

    /// Handles the end of a TCP connection by the server.
    pub fn ended(&mut self, token: Key, now_us: u64) {
        self.failed(token, now_us);
    }

    /// Handles a socket that could not be opened or connected, or that has an error.
    pub fn failed(&mut self, token: Key, now_us: u64) {
        self.now_us = now_us;
        self.retry(token, Reason::Unreachable);
        self.begin_waiting();
    }

    /// Handles everything that is due: unanswered queries, and names to be looked up again.
    pub fn expire(&mut self, now_us: u64) {
        self.now_us = now_us;
        let late = |key: &Key| self.queries.get(*key).is_some_and(|query| query.deadline_us <= now_us);
        for token in self.queries.keys().filter(late).collect::<Vec<_>>() {
            self.retry(token, Reason::TimedOut);
        }
        for key in self.all() {
            match self.entries.get_mut(key).map(|entry| &mut entry.phase) {
                Some(Phase::Rests(due_us)) if *due_us <= now_us => self.line_up(key),
                Some(Phase::Asks(lookup)) => {
                    if !lookup.slow
                        && lookup.begun_us.saturating_add(DNS_SLOW_US) <= now_us
                        && self.slow < DNS_SLOW_LOOKUPS
                    {
                        lookup.slow = true;
                        self.slow += 1;
                        self.asking -= 1;
                    }
                    if let Some(family) = lookup.take_due(now_us) {
                        self.ask(key, family, 0, false);
                    }
                }
                _ => {}
            }
        }
        self.begin_waiting();
    }

    fn all(&self) -> Vec<Key> {
        self.entries.keys().collect()
    }

    /// Resolves a name by the hosts table. Returns false if the table does not have it.
    fn fix(&mut self, key: Key) -> bool {
        let Some(addresses) = self.entries.get(key).and_then(|entry| in_table(&self.hosts, &entry.name)) else {
            return false;
        };
        self.cancel(key);
        if let Some(entry) = self.entries.get_mut(key) {
            entry.phase = Phase::Fixed;
            if addresses.is_empty() {
                entry.fail(Reason::NoAddresses, &mut self.outputs);
            } else {
                entry.have(None, addresses, &mut self.outputs);
            }
        }
        true
    }

    fn line_up(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.phase = Phase::Waits;
            self.waiting.push_back(key);
        }
    }

    /// Cancels the lookup of a name.
    fn cancel(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        match std::mem::replace(&mut entry.phase, Phase::Rests(NEVER)) {
            Phase::Asks(lookup) => {
                let count = if lookup.slow { &mut self.slow } else { &mut self.asking };
                *count -= 1;
                for token in lookup.queries.into_iter().flatten() {
                    self.close(token);
                }
            }
            Phase::Waits => self.waiting.retain(|waiting| *waiting != key),
            Phase::Fixed | Phase::Rests(_) => {}
        }
    }

    /// Begins as many queued lookups as the limits allow.
    fn begin_waiting(&mut self) {
        while self.asking < DNS_LOOKUPS {
            let Some(key) = self.waiting.pop_front() else { return };
            let Some(entry) = self.entries.get_mut(key) else { continue };
            let server = if self.conf.rotate { self.turns % self.conf.servers.len() } else { 0 };
            match Lookup::new(&entry.name, &self.conf, server, self.now_us) {
                Some(mut lookup) => {
                    self.turns = self.turns.wrapping_add(1);
                    // A name that has timed out is likely to do so again.
                    lookup.slow = entry.failures > 0 && self.slow < DNS_SLOW_LOOKUPS;
                    let count = if lookup.slow { &mut self.slow } else { &mut self.asking };
                    *count += 1;
                    entry.phase = Phase::Asks(Box::new(lookup));
                    self.ask_both(key);
                }
                None => {
                    // The name stays invalid, and another resolv.conf hardly changes that.
                    entry.phase = Phase::Rests(NEVER);
                    entry.fail(Reason::NotAName, &mut self.outputs);
                }
            }
        }
    }

    fn ask_both(&mut self, key: Key) {
        for family in Family::ALL {
            self.ask(key, family, 0, false);
        }
    }

    /// Sends a family's question to the next server in turn.
    fn ask(&mut self, key: Key, family: Family, tries: u32, over_tcp: bool) {
        let over_tcp = over_tcp || self.conf.use_vc;
        let Some(Entry { phase: Phase::Asks(lookup), asked_us, .. }) = self.entries.get_mut(key) else { return };
        *asked_us = self.now_us;
        let server = self.conf.servers[(lookup.server + tries as usize) % self.conf.servers.len()];
        let id = (self.random.any() >> 48) as u16;
        let question = Question { id, name: lookup.candidate().clone(), family };
        let message = question.query();
        let token = self.queries.insert(Query {
            entry: key,
            question,
            server,
            tries,
            transport: if over_tcp { Transport::Connecting } else { Transport::Udp },
            strays: 0,
            deadline_us: self.now_us.saturating_add(self.conf.timeout_us),
        });
        lookup.queries[family as usize] = Some(token);
        if over_tcp {
            self.outputs.push_back(Output::ConnectTcp(token, server));
        } else {
            self.outputs.push_back(Output::OpenUdp(token, server));
            self.outputs.push_back(Output::Send(token, message));
        }
    }

    fn close(&mut self, token: Key) -> Option<Query> {
        let query = self.queries.remove(token)?;
        self.outputs.push_back(Output::Close(token));
        Some(query)
    }

    /// Acts on the reply to a query.
    fn answer(&mut self, token: Key, reply: Reply) {
        let Some(query) = self.queries.get_mut(token) else { return };
        let over_tcp = !matches!(query.transport, Transport::Udp);
        let until_us = |ttl_s: u32| {
            let ttl_us = u64::from(ttl_s) * SECOND_US;
            self.now_us.saturating_add(ttl_us.clamp(DNS_TTL_MIN_US, DNS_TTL_MAX_US))
        };
        match reply {
            // A TCP connection can carry only the answer.
            Reply::Stray if over_tcp => self.retry(token, Reason::Malformed),
            Reply::Stray => {
                query.strays += 1;
                if query.strays >= DNS_STRAYS {
                    self.retry(token, Reason::Strays);
                }
            }
            Reply::Truncated if over_tcp => self.retry(token, Reason::Malformed),
            Reply::Truncated => {
                if let Some(query) = self.close(token) {
                    self.ask(query.entry, query.question.family, query.tries, true);
                }
            }
            Reply::Failed(code) => self.retry(token, Reason::Server(code)),
            Reply::Malformed => self.retry(token, Reason::Malformed),
            Reply::None { exists, ttl_s } => {
                let until_us = ttl_s.map(until_us);
                self.on_outcome(token, Outcome::None { exists, until_us });
            }
            Reply::Found { mut addresses, ttl_s } => {
                let until_us = until_us(ttl_s);
                addresses.retain(is_usable);
                self.on_outcome(
                    token,
                    match addresses.is_empty() {
                        true => Outcome::None { exists: true, until_us: Some(until_us) },
                        false => Outcome::Found { addresses, until_us },
                    },
                );
            }
        }
    }

    /// Repeats a failed question at the next server, with a new id on a new socket. After the last attempt the
    /// question has failed.
    fn retry(&mut self, token: Key, reason: Reason) {
        let Some(query) = self.queries.get(token) else { return };
        let tries = query.tries + 1;
        let most = (self.conf.servers.len() as u32).saturating_mul(self.conf.attempts);
        if tries >= most {
            return self.on_outcome(token, Outcome::Failed(reason));
        }
        if let Some(query) = self.close(token) {
            self.ask(query.entry, query.question.family, tries, false);
        }
    }

    /// Ends a query with its outcome.
    fn on_outcome(&mut self, token: Key, outcome: Outcome) {
        let Some(Query { entry: key, question, .. }) = self.close(token) else { return };
        let Some(entry) = self.entries.get_mut(key) else { return };
        let Phase::Asks(lookup) = &mut entry.phase else { return };
        match lookup.on_outcome(question.family, outcome) {
            Step::Wait => {}
            Step::Use(addresses) => {
                let mut families = [None, None];
                families[question.family as usize] = Some(addresses);
                entry.succeed(question.name, families, &mut self.outputs);
            }
            Step::Ask => self.ask_both(key),
            Step::End(verdict) => {
                let failed = lookup.failed.take();
                let count = if lookup.slow { &mut self.slow } else { &mut self.asking };
                *count -= 1;
                entry.conclude(question.name, verdict, failed, self.now_us, &mut self.outputs);
            }
        }
    }
}

/// Ensures that the settings contain a server, as parsed ones do.
fn askable(mut conf: ResolvConf) -> ResolvConf {
    if conf.servers.is_empty() {
        conf.servers = ResolvConf::default().servers;
    }
    conf
}

/// The addresses that need no server: those of the hosts table, and of `localhost` and the names below it.
fn in_table(hosts: &Hosts, name: &str) -> Option<Vec<IpAddr>> {
    let mut found = hosts.lookup(name).peekable();
    if found.peek().is_some() {
        return Some(found.filter(is_usable).collect());
    }
    let bare = name.strip_suffix('.').unwrap_or(name);
    let last = bare.rsplit('.').next().unwrap_or_default();
    last.eq_ignore_ascii_case("localhost").then(|| hosts.loopback())
}

/// True if a backend can have this address. Block lists use 0.0.0.0, and a connection to it reaches this host.
fn is_usable(ip: &IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast()
}

#[cfg(test)]
mod tests;
