//! Name resolution: any bytes as responses and as the system's files, and the resolver with inputs in any
//! order. Results stay within their limits. Each socket is opened once and closed once, and there are never too
//! many. The resolver always rests or waits for something, and never requests a call for work that it has just
//! done. Without names nothing is left.
//!
//! The input is used twice: as a response, and as a list of operations. An operation is a byte for its kind, a
//! byte for its object, and for received bytes a length and the bytes.

use std::net::{IpAddr, SocketAddr};

use zzz_lb::collections::slab::Key;
use zzz_lb::collections::timers::NEVER;
use zzz_lb::dns::hosts::Hosts;
use zzz_lb::dns::message::{Family, Name, Question, Reply};
use zzz_lb::dns::resolv_conf::ResolvConf;
use zzz_lb::dns::resolver::{Change, Output, Resolver, State};
use zzz_lb::limits::{
    DNS_ATTEMPTS_MAX, DNS_LOOKUPS, DNS_RECORDS, DNS_TIMEOUT_MAX_S, NAME_ADDRESSES, NAME_SERVERS, NDOTS, SEARCH_DOMAINS,
    SECOND_US,
};

/// Operations of one input.
const OPERATIONS: usize = 300;
/// Names to be resolved; some are invalid, some need no server.
const NAMES: [&str; 8] = ["a", "a.", "b.test", "c.d.test", "localhost", "x..y", "in.hosts", ""];
/// Files that the operations load.
const CONFS: [&[u8]; 4] = [
    b"nameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch x.test y\noptions timeout:1",
    b"nameserver ::1\noptions rotate attempts:1",
    b"",
    b"search a b c d e f\noptions ndots:15",
];
const HOSTS: [&[u8]; 3] = [b"10.1.0.1 in.hosts a", b"", b"0.0.0.0 in.hosts b.test\n::1 b.test"];

/// Panics if a limit is exceeded, or if the resolver violates its contract.
pub fn run(data: &[u8]) {
    answers(data);
    files(data);
    operations(data);
}

fn answers(data: &[u8]) {
    for family in Family::ALL {
        let name = Name::parse("a.b").expect("it is a name");
        let question = Question { id: 0x6162, name, family };
        check(Reply::parse(data, &question), family);
        // A correct header and question come first, so that mutations need not find them.
        let reply = Reply::parse(&response(&question.query(), data), &question);
        assert!(reply != Reply::Stray, "it answers the question");
        check(reply, family);
    }
}

fn check(reply: Reply, family: Family) {
    if let Reply::Found { addresses, .. } = reply {
        assert!(!addresses.is_empty() && addresses.len() <= DNS_RECORDS);
        assert!(addresses.iter().all(|ip| ip.is_ipv4() == (family == Family::V4)));
    }
}

/// A response to a query. The first byte of the data is the flags, the second gives the number of answer and
/// authority records, and the rest is the records.
fn response(query: &[u8], data: &[u8]) -> Vec<u8> {
    let (flags, counts) = (data.first().copied().unwrap_or(0), data.get(1).copied().unwrap_or(0));
    let mut reply = query.to_vec();
    reply[2] = 0x81 | (flags >> 4 & 0x06);
    reply[3] = 0x80 ^ (flags & 0x8f);
    (reply[7], reply[9]) = (counts & 0x0f, counts >> 4);
    reply.extend_from_slice(data.get(2..).unwrap_or_default());
    reply
}

fn files(data: &[u8]) {
    let conf = ResolvConf::parse(data);
    assert!((1..=NAME_SERVERS).contains(&conf.servers.len()) && conf.search.len() <= SEARCH_DOMAINS);
    assert!(conf.ndots <= NDOTS && (1..=DNS_ATTEMPTS_MAX).contains(&conf.attempts));
    assert!((SECOND_US..=DNS_TIMEOUT_MAX_S * SECOND_US).contains(&conf.timeout_us));
    let _ = Hosts::parse(data).lookup("a").count();
}

struct Socket {
    key: Key,
    server: SocketAddr,
    tcp: bool,
    /// The query that was sent on the socket.
    sent: Vec<u8>,
}

struct Machine {
    resolver: Resolver,
    open: Vec<Socket>,
    wanted: Vec<&'static str>,
    now_us: u64,
}

fn operations(data: &[u8]) {
    let resolver = Resolver::new(ResolvConf::parse(CONFS[0]), Hosts::parse(HOSTS[0]), 1, 0);
    let mut machine = Machine { resolver, open: Vec::new(), wanted: Vec::new(), now_us: 0 };
    let mut data = data;
    for _ in 0..OPERATIONS {
        let Some((operation, rest)) = data.split_at_checked(2) else { break };
        data = machine.operate(operation[0], operation[1], rest);
        machine.carry_out();
        machine.check();
    }
    machine.resolver.set_names::<&str>(&[], machine.now_us);
    machine.wanted.clear();
    machine.carry_out();
    assert!(machine.open.is_empty(), "a socket is left");
    assert_eq!(machine.resolver.next_deadline_us(), NEVER);
}

impl Machine {
    /// Does one operation and returns the rest of the input.
    fn operate<'a>(&mut self, operation: u8, argument: u8, data: &'a [u8]) -> &'a [u8] {
        let (now_us, high) = (self.now_us, operation >> 4);
        let socket = self.open.get(usize::from(argument) % self.open.len().max(1));
        let about = socket.map(|socket| (socket.key, socket.server, socket.tcp, socket.sent.clone()));
        match (operation % 16, about) {
            (0 | 1, _) => {
                let wanted = NAMES.iter().enumerate().filter(|(n, _)| argument >> n & 1 == 1);
                self.wanted = wanted.map(|(_, name)| *name).collect();
                self.resolver.set_names(&self.wanted, now_us);
            }
            (2, _) => {
                self.now_us += u64::from(argument) * u64::from(argument) * SECOND_US / 64;
                self.resolver.expire(self.now_us);
            }
            (3, _) => {
                // Advances to the next deadline.
                let due_us = self.resolver.next_deadline_us();
                assert!(due_us > self.now_us, "what was due was done");
                if due_us != NEVER {
                    self.now_us = due_us;
                    self.resolver.expire(due_us);
                }
            }
            (4, _) => match high % 3 {
                0 => self.resolver.refresh(now_us),
                1 => {
                    let conf = ResolvConf::parse(CONFS[usize::from(argument) % CONFS.len()]);
                    self.resolver.reload_conf(conf, now_us);
                }
                _ => {
                    let hosts = Hosts::parse(HOSTS[usize::from(argument) % HOSTS.len()]);
                    self.resolver.reload_hosts(hosts, now_us);
                }
            },
            (5, Some((key, ..))) => match high % 3 {
                0 => self.resolver.failed(key, now_us),
                1 => self.resolver.ended(key, now_us),
                _ => self.resolver.connected(key, now_us),
            },
            // Any bytes, or records after a correct header and question.
            (6..=11, Some((key, server, tcp, sent))) => {
                let (bytes, rest) = data.split_at(data.len().min(usize::from(high) * 4));
                let answered = operation % 16 >= 8 && !sent.is_empty();
                let message = if answered { response(&sent, bytes) } else { bytes.to_vec() };
                self.receive(key, server, tcp, &message, answered);
                return rest;
            }
            // A good answer that the input need not spell out.
            (12..=15, Some((key, server, tcp, sent))) if !sent.is_empty() => {
                let v4 = sent[sent.len() - 3] == 1;
                let mut record =
                    vec![0, 1, 0xc0, 12, 0, if v4 { 1 } else { 28 }, 0, 1, 0, 0, 0, high, 0, if v4 { 4 } else { 16 }];
                record.resize(record.len() + if v4 { 4 } else { 16 }, argument);
                self.receive(key, server, tcp, &response(&sent, &record), true);
            }
            _ => {}
        }
        data
    }

    fn receive(&mut self, key: Key, server: SocketAddr, tcp: bool, message: &[u8], framed: bool) {
        if !tcp {
            return self.resolver.received_udp(key, server, message, self.now_us);
        }
        if framed {
            self.resolver.received_tcp(key, &(message.len() as u16).to_be_bytes(), self.now_us);
        }
        self.resolver.received_tcp(key, message, self.now_us);
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.resolver.next_output() {
            match output {
                Output::OpenUdp(key, server) => self.opened(key, server, false),
                Output::ConnectTcp(key, server) => self.opened(key, server, true),
                Output::Close(key) => {
                    let before = self.open.len();
                    self.open.retain(|socket| socket.key != key);
                    assert_eq!(self.open.len() + 1, before, "only what is open is closed, and once");
                }
                Output::Send(key, bytes) => {
                    let socket = self.open.iter_mut().find(|socket| socket.key == key);
                    let socket = socket.expect("what is sent on is open");
                    assert!(socket.sent.is_empty(), "a socket carries one query");
                    socket.sent = bytes[if socket.tcp { 2 } else { 0 }..].to_vec();
                }
                Output::Changed(name, change) => {
                    assert!(self.wanted.contains(&&*name), "news is of names that are wanted");
                    let state = self.resolver.state(&name).expect("it is wanted");
                    // One input may cause both.
                    assert!(change != Change::Addresses || !matches!(state, State::Unresolved(_)));
                }
            }
        }
    }

    fn opened(&mut self, key: Key, server: SocketAddr, tcp: bool) {
        assert!(self.open.iter().all(|socket| socket.key != key), "a key names one socket");
        self.open.push(Socket { key, server, tcp, sent: Vec::new() });
        // For a moment the socket that it replaces may be open too.
        assert!(self.open.len() <= 2 * DNS_LOOKUPS + 1);
    }

    fn check(&self) {
        for name in &self.wanted {
            let addresses = self.resolver.addresses(name);
            assert!(addresses.len() <= NAME_ADDRESSES);
            assert!(addresses.windows(2).all(|pair| pair[0] < pair[1]), "sorted, each once");
            assert!(addresses.iter().all(|ip: &IpAddr| !ip.is_unspecified()));
            let state = self.resolver.state(name).expect("it is wanted");
            assert_eq!(matches!(state, State::Unresolved(_)), addresses.is_empty());
            if state == State::Unresolved(None) {
                assert!(self.resolver.next_deadline_us() != NEVER, "what is not known is being asked for");
            }
        }
        assert!(self.open.is_empty() || self.resolver.next_deadline_us() != NEVER);
    }
}
