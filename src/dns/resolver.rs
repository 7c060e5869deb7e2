//! The stub resolver as a machine: names in, addresses out, and no socket of its own.
//!
//! Every name that is wanted is in one of four phases: fixed by the hosts table; resting until its
//! answer runs out or a failed lookup is due again; waiting for its turn, as only `DNS_LOOKUPS`
//! are under way at once, slow ones apart; or asking, both families at the same time. A lookup
//! that takes long is slow and gives its place to the next, so that a name that times out delays
//! no name that answers. Whatever a lookup comes to,
//! the last good addresses stay until there are better ones.
//!
//! A query is one question to one server on a socket of its own, whose port the system picks: the
//! port and the id are what a forger must guess. Ids come from a generator that is seeded once.
//! It is not a cryptographic one; in production its seed must come from the system's randomness.
//!
//! Invariants: each socket asked for by `OpenUdp` or `ConnectTcp` is given up by exactly one
//! `Close`; a query belongs to a name that is asking, and is one of its two, so that at most twice
//! `DNS_LOOKUPS` and `DNS_SLOW_LOOKUPS` are open; a name is in line once while it waits, and else not.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

pub use super::entry::{Change, State};
use super::entry::{Entry, Phase};
use super::hosts::Hosts;
pub use super::lookup::Reason;
use super::lookup::{Lookup, Outcome, Step};
use super::message::{Family, Name, Question, Reply};
use super::resolv_conf::ResolvConf;
use crate::collections::random::Random;
use crate::collections::slab::{Key, Slab};
use crate::collections::timers::NEVER;
use crate::limits::{
    DNS_LOOKUPS, DNS_MESSAGE_BYTES, DNS_SLOW_LOOKUPS, DNS_SLOW_US, DNS_STRAYS, DNS_SUSPECT_US, DNS_TTL_MAX_US,
    DNS_TTL_MIN_US, NAMES, SECOND_US,
};

/// What the shell is to do. It skips what concerns a socket that it could not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a fresh UDP socket, on a port of the system's choice, connected to the server. An
    /// error, now or later (such as ECONNREFUSED), is told by `failed`.
    OpenUdp(Key, SocketAddr),
    /// Connect to the server; `connected` or `failed` is to follow.
    ConnectTcp(Key, SocketAddr),
    /// Send these bytes: a datagram, or a part of the stream.
    Send(Key, Vec<u8>),
    /// Close the socket. Nothing more concerns it.
    Close(Key),
    /// Something about a name is news, for the backends' addresses or for the log.
    Changed(Box<str>, Change),
}

#[derive(Debug)]
enum Transport {
    Udp,
    Connecting,
    /// The bytes received so far, at most one message with its length.
    Tcp(Vec<u8>),
}

/// One question to one server.
#[derive(Debug)]
struct Query {
    entry: Key,
    question: Question,
    server: SocketAddr,
    /// How many servers this question was put to before.
    tries: u32,
    transport: Transport,
    strays: u32,
    deadline_us: u64,
}

/// The names that are wanted, and the queries for them.
#[derive(Debug)]
pub struct Resolver {
    conf: ResolvConf,
    hosts: Hosts,
    random: Random,
    entries: Slab<Entry>,
    keys: BTreeMap<Box<str>, Key>,
    queries: Slab<Query>,
    /// Names in line for their turn.
    waiting: VecDeque<Key>,
    /// Names that are asking, those whose lookup is slow apart.
    asking: usize,
    /// Names whose lookup is slow.
    slow: usize,
    /// Lookups begun, by which `rotate` goes.
    turns: usize,
    outputs: VecDeque<Output>,
    now_us: u64,
}

impl Resolver {
    /// A resolver that no name is wanted of yet. The seed must be random in production: ids that
    /// can be foreseen make answers easy to forge.
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

    /// What to do next, until there is nothing; to be asked after every input.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `expire` is to be called, in microseconds; `NEVER` while nothing is due.
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

    /// The last good addresses of a name, as it was given: IPv4 first, sorted, at most
    /// `NAME_ADDRESSES`.
    pub fn addresses(&self, name: &str) -> &[IpAddr] {
        self.entry(name).map_or(&[], |entry| &entry.addresses)
    }

    /// How it stands with a name, as it was given; None where it is not wanted.
    pub fn state(&self, name: &str) -> Option<State> {
        self.entry(name).map(Entry::state)
    }

    /// Since when a name is wanted, in microseconds; None where it is not.
    pub fn since_us(&self, name: &str) -> Option<u64> {
        self.entry(name).map(|entry| entry.since_us)
    }

    /// What a name was asked for as when that last failed; None where all went well.
    pub fn failed_as(&self, name: &str) -> Option<&Name> {
        self.entry(name)?.failed_as.as_ref()
    }

    /// An address of a name does not work: the name is looked up again, whatever its TTL, but not more often than
    /// each `DNS_SUSPECT_US`.
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

    /// Sets which names are wanted, `NAMES` at most. New ones are looked up at once, those that
    /// are not wanted any more forgotten; the others stay as they are.
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

    /// Follows a changed hosts table. Names that it no longer has are looked up at once.
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

    /// Follows a changed resolv.conf: where it says something else, everything is looked up anew.
    pub fn reload_conf(&mut self, conf: ResolvConf, now_us: u64) {
        let conf = askable(conf);
        if conf != self.conf {
            self.conf = conf;
            self.refresh(now_us);
        }
    }

    /// Looks every name up anew, now.
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

    /// A datagram came on a query's socket.
    pub fn received_udp(&mut self, token: Key, from: SocketAddr, bytes: &[u8], now_us: u64) {
        self.now_us = now_us;
        let Some(query) = self.queries.get(token) else { return };
        if !matches!(query.transport, Transport::Udp) {
            return;
        }
        // Only these two parts: a scope or flow of IPv6 may be known to one side alone.
        let asked = (from.ip(), from.port()) == (query.server.ip(), query.server.port());
        let reply = if asked { Reply::parse(bytes, &query.question) } else { Reply::Stray };
        self.answer(token, reply);
        self.begin_waiting();
    }

    /// A connection asked for stands.
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

    /// Bytes came on a connection.
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

    /// The server ended a connection.
    pub fn ended(&mut self, token: Key, now_us: u64) {
        self.failed(token, now_us);
    }

    /// A socket could not be opened or connected, or has an error.
    pub fn failed(&mut self, token: Key, now_us: u64) {
        self.now_us = now_us;
        self.retry(token, Reason::Unreachable);
        self.begin_waiting();
    }

    /// Acts on what is due: queries that were not answered in time, names to be looked up again.
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

    /// Settles a name by the hosts table; false where that does not have it.
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

    /// Gives up what is under way for a name, which then waits for nothing.
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

    /// Begins as many lookups as there is room for.
    fn begin_waiting(&mut self) {
        while self.asking < DNS_LOOKUPS {
            let Some(key) = self.waiting.pop_front() else { return };
            let Some(entry) = self.entries.get_mut(key) else { continue };
            let server = if self.conf.rotate { self.turns % self.conf.servers.len() } else { 0 };
            match Lookup::new(&entry.name, &self.conf, server, self.now_us) {
                Some(mut lookup) => {
                    self.turns = self.turns.wrapping_add(1);
                    // One that has timed out is likely to do so again.
                    lookup.slow = entry.failures > 0 && self.slow < DNS_SLOW_LOOKUPS;
                    let count = if lookup.slow { &mut self.slow } else { &mut self.asking };
                    *count += 1;
                    entry.phase = Phase::Asks(Box::new(lookup));
                    self.ask_both(key);
                }
                None => {
                    // Time changes nothing about that, and another resolv.conf hardly.
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

    /// Puts a family's question to the server whose turn it is.
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

    /// Acts on what a message says to its query.
    fn answer(&mut self, token: Key, reply: Reply) {
        let Some(query) = self.queries.get_mut(token) else { return };
        let over_tcp = !matches!(query.transport, Transport::Udp);
        let until_us = |ttl_s: u32| {
            let ttl_us = u64::from(ttl_s) * SECOND_US;
            self.now_us.saturating_add(ttl_us.clamp(DNS_TTL_MIN_US, DNS_TTL_MAX_US))
        };
        match reply {
            // On a connection nothing else can come but the answer.
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

    /// Puts a question that came to nothing to the server whose turn it is then, with a fresh id
    /// on a fresh socket; after the last one, it has failed.
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

/// A configuration with a server to ask, as parsed ones have.
fn askable(mut conf: ResolvConf) -> ResolvConf {
    if conf.servers.is_empty() {
        conf.servers = ResolvConf::default().servers;
    }
    conf
}

/// What needs no server: the hosts table, and `localhost` and the names below it.
fn in_table(hosts: &Hosts, name: &str) -> Option<Vec<IpAddr>> {
    let mut found = hosts.lookup(name).peekable();
    if found.peek().is_some() {
        return Some(found.filter(is_usable).collect());
    }
    let bare = name.strip_suffix('.').unwrap_or(name);
    let last = bare.rsplit('.').next().unwrap_or_default();
    last.eq_ignore_ascii_case("localhost").then(|| hosts.loopback())
}

/// Whether a backend can be there. Lists that block names give 0.0.0.0 for them, and connecting to
/// that reaches this host.
fn is_usable(ip: &IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast()
}

#[cfg(test)]
mod tests;
