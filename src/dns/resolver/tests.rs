//! The resolver on virtual time, against servers that answer from a script.

use std::collections::BTreeMap;

use super::*;
use crate::limits::{DNS_PORT, DNS_RETRY_MAX_US, NAME_ADDRESSES};

/// What a server has to say of a name and a type.
#[derive(Clone)]
enum Script {
    Addresses(Vec<IpAddr>, u32),
    Alias(&'static str, u32),
    /// No addresses: whether the name exists, and the SOA record's minimum.
    Nothing(bool, Option<u32>),
    Code(u8),
    Silence,
    /// Too long for UDP; over TCP it is these addresses.
    Long(Vec<IpAddr>),
    /// An answer to something else, by what of it is changed: its id, its name, its sender.
    Forged(&'static str),
    /// The socket fails.
    Error,
    /// A header and question with garbage behind.
    Garbage,
}

struct World {
    resolver: Resolver,
    now_us: u64,
    /// Open sockets: the server, and whether they are TCP.
    sockets: BTreeMap<Key, (SocketAddr, bool)>,
    most_sockets: usize,
    /// By server ("" for any), name and type.
    scripts: BTreeMap<(&'static str, &'static str, u16), Script>,
    /// What was asked: server, name and type, with "tcp" before where it was so.
    asked: Vec<String>,
    ids: Vec<u16>,
    changes: Vec<String>,
}

const A: u16 = 1;
const AAAA: u16 = 28;

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn addresses(texts: &[&str], ttl_s: u32) -> Script {
    Script::Addresses(ips(texts), ttl_s)
}

impl World {
    fn new(conf: &str, hosts: &str) -> World {
        let conf = ResolvConf::parse(conf.as_bytes());
        World {
            resolver: Resolver::new(conf, Hosts::parse(hosts.as_bytes()), 7, 0),
            now_us: 0,
            sockets: BTreeMap::new(),
            most_sockets: 0,
            scripts: BTreeMap::new(),
            asked: Vec::new(),
            ids: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Scripts a name's A records at all servers, and that it has no AAAA ones.
    fn serve(&mut self, name: &'static str, script: Script) {
        self.scripts.insert(("", name, A), script);
        self.scripts.entry(("", name, AAAA)).or_insert(Script::Nothing(true, Some(60)));
    }

    fn want(&mut self, names: &[&str]) {
        self.resolver.set_names(names, self.now_us);
        self.settle();
    }

    /// Lets time pass, with all that falls due in it.
    fn pass(&mut self, us: u64) {
        let end_us = self.now_us + us;
        while self.resolver.next_deadline_us() <= end_us {
            self.now_us = self.now_us.max(self.resolver.next_deadline_us());
            self.resolver.expire(self.now_us);
            self.settle();
        }
        self.now_us = end_us;
    }

    /// Carries out what the resolver wants, until it wants nothing.
    fn settle(&mut self) {
        while let Some(output) = self.resolver.next_output() {
            match output {
                Output::OpenUdp(key, server) => assert!(self.sockets.insert(key, (server, false)).is_none()),
                Output::ConnectTcp(key, server) => {
                    assert!(self.sockets.insert(key, (server, true)).is_none());
                    self.resolver.connected(key, self.now_us);
                }
                Output::Close(key) => assert!(self.sockets.remove(&key).is_some()),
                Output::Changed(name, change) => self.changes.push(match change {
                    Change::Addresses => format!("{name} {:?}", self.resolver.addresses(&name)),
                    Change::Failed(reason) => format!("{name} failed: {reason}"),
                    Change::Recovered => format!("{name} recovered"),
                }),
                Output::Send(key, bytes) => {
                    // What was sent on a socket that is closed again by now goes nowhere.
                    if let Some(&(server, tcp)) = self.sockets.get(&key) {
                        self.serve_query(key, server, tcp, &bytes);
                    }
                }
            }
            self.most_sockets = self.most_sockets.max(self.sockets.len());
        }
    }

    fn serve_query(&mut self, key: Key, server: SocketAddr, tcp: bool, bytes: &[u8]) {
        let query = if tcp { &bytes[2..] } else { bytes };
        assert!(!tcp || usize::from(u16::from_be_bytes([bytes[0], bytes[1]])) == query.len());
        let mut labels = Vec::new();
        let mut at = 12;
        while query[at] != 0 {
            let end = at + 1 + usize::from(query[at]);
            labels.push(std::str::from_utf8(&query[at + 1..end]).unwrap());
            at = end;
        }
        let name = labels.join(".");
        let record_type = u16::from_be_bytes([query[at + 1], query[at + 2]]);
        let kind = if record_type == A { "A" } else { "AAAA" };
        let over = if tcp { "tcp " } else { "" };
        self.asked.push(format!("{over}{} {name} {kind}", server.ip()));
        self.ids.push(u16::from_be_bytes([query[0], query[1]]));
        let ip = server.ip().to_string();
        let mine = self.scripts.iter().find(|((at, of, kind), _)| *at == ip && *of == name && *kind == record_type);
        let any = self.scripts.iter().find(|((at, of, kind), _)| at.is_empty() && *of == name && *kind == record_type);
        let script = mine.or(any).map_or(Script::Nothing(false, Some(60)), |(_, script)| script.clone());
        let (reply, from) = match script {
            Script::Silence => return,
            Script::Error => return self.resolver.failed(key, self.now_us),
            Script::Forged("sender") => {
                (response(query, &addresses(&["6.6.6.6"], 60), tcp), "9.9.9.9:53".parse().unwrap())
            }
            Script::Forged(part) => {
                let mut reply = response(query, &addresses(&["6.6.6.6"], 60), tcp);
                reply[if part == "id" { 0 } else { 13 }] ^= 1;
                (reply, server)
            }
            script => (response(query, &script, tcp), server),
        };
        if !tcp {
            return self.resolver.received_udp(key, from, &reply, self.now_us);
        }
        // In pieces, as streams come.
        let stream = [&(reply.len() as u16).to_be_bytes(), &reply[..]].concat();
        for piece in stream.chunks(5) {
            self.resolver.received_tcp(key, piece, self.now_us);
        }
    }

    fn take_asked(&mut self) -> Vec<String> {
        std::mem::take(&mut self.asked)
    }

    fn take_changes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.changes)
    }
}

fn record(owner: &[u8], record_type: u16, ttl_s: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = owner.to_vec();
    for word in [record_type, 1, (ttl_s >> 16) as u16, ttl_s as u16, data.len() as u16] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(data);
    bytes
}

fn address_record(owner: &[u8], ip: &IpAddr, ttl_s: u32) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => record(owner, A, ttl_s, &ip.octets()),
        IpAddr::V6(ip) => record(owner, AAAA, ttl_s, &ip.octets()),
    }
}

fn response(query: &[u8], script: &Script, tcp: bool) -> Vec<u8> {
    const ASKED: &[u8] = b"\xc0\x0c";
    let (mut flags, mut answers, mut authorities) = (0x8180_u16, Vec::new(), Vec::new());
    match script {
        Script::Long(_) if !tcp => flags |= 0x200,
        Script::Long(ips) => answers.extend(ips.iter().map(|ip| address_record(ASKED, ip, 60))),
        Script::Addresses(ips, ttl_s) => answers.extend(ips.iter().map(|ip| address_record(ASKED, ip, *ttl_s))),
        Script::Alias(ip, ttl_s) => {
            answers.push(record(ASKED, 5, *ttl_s, b"\x05other\0"));
            answers.push(address_record(b"\x05other\0", &ip.parse().unwrap(), 100));
        }
        Script::Nothing(exists, minimum) => {
            flags |= if *exists { 0 } else { 3 };
            let soa = |minimum: &u32| [&[0, 0][..], &[0; 16], &minimum.to_be_bytes()].concat();
            authorities.extend(minimum.iter().map(|minimum| record(b"\0", 6, 1 << 20, &soa(minimum))));
        }
        Script::Code(code) => flags |= u16::from(*code),
        // A record that breaks off.
        Script::Garbage => answers.push(vec![0]),
        Script::Silence | Script::Forged(_) | Script::Error => {}
    }
    let mut reply = query.to_vec();
    reply[2..4].copy_from_slice(&flags.to_be_bytes());
    reply[6..8].copy_from_slice(&(answers.len() as u16).to_be_bytes());
    reply[8..10].copy_from_slice(&(authorities.len() as u16).to_be_bytes());
    answers.iter().chain(&authorities).for_each(|record| reply.extend(record));
    reply
}

const ONE: &str = "nameserver 10.0.0.1\n";
const TWO: &str = "nameserver 10.0.0.1\nnameserver 10.0.0.2\n";

#[test]
fn both_families_are_asked_and_listed_in_order() {
    let mut world = World::new(ONE, "");
    world.serve("a.test", addresses(&["10.1.0.2", "10.1.0.1", "10.1.0.2", "0.0.0.0", "224.0.0.1"], 60));
    world.scripts.insert(("", "a.test", AAAA), addresses(&["fd00::2", "fd00::1", "::"], 60));
    assert_eq!(world.resolver.state("a.test"), None);
    world.want(&["a.test"]);
    assert_eq!(world.take_asked(), ["10.0.0.1 a.test A", "10.0.0.1 a.test AAAA"]);
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.1", "10.1.0.2", "fd00::1", "fd00::2"]));
    assert_eq!(world.resolver.state("a.test"), Some(State::Good));
    assert_eq!(world.take_changes(), ["a.test [10.1.0.1, 10.1.0.2, fd00::1, fd00::2]"]);
    assert!(world.sockets.is_empty());
    assert_ne!(world.ids[0], world.ids[1]);
}

#[test]
fn an_answer_is_asked_for_again_when_its_ttl_runs_out() {
    let mut world = World::new(ONE, "");
    world.serve("a.test", addresses(&["10.1.0.1"], 20));
    world.want(&["a.test"]);
    world.take_asked();
    world.pass(20 * SECOND_US - 1);
    assert_eq!(world.take_asked(), [""; 0]);
    world.serve("a.test", addresses(&["10.1.0.1", "10.1.0.2"], 20));
    world.pass(1);
    assert_eq!(world.take_asked().len(), 2);
    assert_eq!(world.take_changes(), ["a.test [10.1.0.1]", "a.test [10.1.0.1, 10.1.0.2]"]);
    // Another order is no news.
    world.serve("a.test", addresses(&["10.1.0.2", "10.1.0.1"], 20));
    world.pass(20 * SECOND_US);
    assert_eq!(world.take_changes(), [""; 0]);
}

#[test]
fn ttls_are_held_between_floor_and_ceiling() {
    for (ttl_s, held_us) in [(0, DNS_TTL_MIN_US), (1, DNS_TTL_MIN_US), (86_400, DNS_TTL_MAX_US), (7, 7 * SECOND_US)] {
        let mut world = World::new(ONE, "");
        world.serve("a.test", addresses(&["10.1.0.1"], ttl_s));
        world.serve("b.test", Script::Nothing(false, Some(ttl_s)));
        world.scripts.insert(("", "b.test", AAAA), Script::Nothing(false, Some(ttl_s)));
        world.want(&["a.test", "b.test"]);
        assert_eq!(world.resolver.next_deadline_us(), held_us);
        world.take_asked();
        world.pass(held_us);
        assert_eq!(world.take_asked().len(), 4, "{ttl_s}");
    }
}

#[test]
fn aliases_lead_to_addresses() {
    let mut world = World::new(ONE, "");
    world.serve("a.test", Script::Alias("10.1.0.1", 30));
    world.want(&["a.test"]);
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.1"]));
    assert_eq!(world.resolver.next_deadline_us(), 30 * SECOND_US);
}

#[test]
fn servers_are_asked_in_turn_and_again() {
    let mut world = World::new(TWO, "");
    world.serve("a.test", Script::Silence);
    world.want(&["a.test"]);
    world.take_asked();
    world.pass(19 * SECOND_US);
    assert_eq!(world.take_asked(), ["10.0.0.2 a.test A", "10.0.0.1 a.test A", "10.0.0.2 a.test A"]);
    assert_eq!(world.take_changes(), [""; 0]);
    assert_eq!(world.resolver.state("a.test"), Some(State::Unresolved(None)));
    world.pass(SECOND_US);
    assert_eq!(world.take_changes(), ["a.test failed: timed out"]);
    assert_eq!(world.resolver.state("a.test"), Some(State::Unresolved(Some(Reason::TimedOut))));
    assert_eq!(world.ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 5, "each query has an id of its own");
    assert!(world.sockets.is_empty());
}

#[test]
fn another_server_helps_where_one_fails() {
    for script in [Script::Code(2), Script::Code(5), Script::Garbage, Script::Error, Script::Silence] {
        let mut world = World::new(TWO, "");
        world.serve("a.test", addresses(&["10.1.0.1"], 60));
        world.scripts.insert(("10.0.0.1", "a.test", A), script);
        world.want(&["a.test"]);
        world.pass(5 * SECOND_US);
        assert_eq!(world.take_asked(), ["10.0.0.1 a.test A", "10.0.0.1 a.test AAAA", "10.0.0.2 a.test A"]);
        assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.1"]));
    }
}

#[test]
fn reasons_tell_what_the_last_server_did() {
    let scripts = [
        (Script::Code(2), Reason::Server(2)),
        (Script::Garbage, Reason::Malformed),
        (Script::Error, Reason::Unreachable),
    ];
    for (script, reason) in scripts {
        let mut world = World::new(TWO, "");
        world.serve("a.test", script);
        world.want(&["a.test"]);
        assert_eq!(world.resolver.state("a.test"), Some(State::Unresolved(Some(reason))));
    }
}

#[test]
fn rotation_begins_each_lookup_with_another_server() {
    let mut world = World::new("nameserver 10.0.0.1\nnameserver 10.0.0.2\noptions rotate", "");
    world.serve("a", addresses(&["10.1.0.1"], 60));
    world.serve("b", addresses(&["10.1.0.2"], 60));
    world.want(&["a", "b"]);
    assert_eq!(world.take_asked(), ["10.0.0.1 a A", "10.0.0.1 a AAAA", "10.0.0.2 b A", "10.0.0.2 b AAAA"]);
}

#[test]
fn a_truncated_answer_is_asked_for_over_tcp() {
    let mut world = World::new(ONE, "");
    let many: Vec<IpAddr> = (1..=100).map(|n| IpAddr::from([10, 1, 0, n])).collect();
    world.serve("a.test", Script::Long(many.clone()));
    world.want(&["a.test"]);
    assert_eq!(world.take_asked(), ["10.0.0.1 a.test A", "10.0.0.1 a.test AAAA", "tcp 10.0.0.1 a.test A"]);
    assert_eq!(world.resolver.addresses("a.test"), &many[..NAME_ADDRESSES]);
    assert!(world.sockets.is_empty());
}

/// The resolver with one TCP connection asked for.
fn over_tcp() -> (World, Key) {
    let mut world = World::new(TWO, "");
    world.serve("a.test", Script::Long(Vec::new()));
    world.resolver.set_names(&["a.test"], 0);
    let mut connecting = None;
    while let Some(output) = world.resolver.next_output() {
        match output {
            Output::OpenUdp(key, server) => _ = world.sockets.insert(key, (server, false)),
            Output::Close(key) => _ = world.sockets.remove(&key),
            Output::Send(key, bytes) => world.serve_query(key, world.sockets[&key].0, false, &bytes),
            Output::ConnectTcp(key, server) => {
                world.sockets.insert(key, (server, true));
                connecting = Some(key);
            }
            Output::Changed(..) => {}
        }
    }
    (world, connecting.unwrap())
}

#[test]
fn a_broken_connection_is_followed_by_the_next_server() {
    for how in ["refused", "ended", "late", "malformed", "stray"] {
        let (mut world, key) = over_tcp();
        world.scripts.insert(("10.0.0.2", "a.test", A), addresses(&["10.1.0.1"], 60));
        if how != "refused" && how != "late" {
            world.resolver.connected(key, 0);
            assert!(matches!(world.resolver.next_output(), Some(Output::Send(..))));
            world.resolver.received_tcp(key, b"\0", 0);
        }
        match how {
            "refused" => world.resolver.failed(key, 0),
            "ended" => world.resolver.ended(key, 0),
            "late" => world.pass(5 * SECOND_US),
            "malformed" => world.resolver.received_tcp(key, b"\0", 0),
            _ => world.resolver.received_tcp(key, b"\x0cxxxxxxxxxxxxxxxx", 0),
        }
        world.settle();
        assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.1"]), "{how}");
        assert!(world.sockets.is_empty());
    }
}

#[test]
fn answers_to_another_id_or_question_or_from_another_sender_are_not_taken() {
    for part in ["id", "question", "sender"] {
        let mut world = World::new("nameserver 10.0.0.1\noptions attempts:1", "");
        world.serve("a.test", Script::Forged(part));
        world.want(&["a.test"]);
        assert_eq!(world.resolver.addresses("a.test"), ips(&[]), "{part}");
        assert_eq!(world.sockets.len(), 1, "the answer is still waited for");
        let key = *world.sockets.keys().next().unwrap();
        let server = SocketAddr::from(([10, 0, 0, 1], DNS_PORT));
        for n in 1..DNS_STRAYS {
            assert_eq!(world.sockets.len(), 1, "{n}");
            world.resolver.received_udp(key, server, b"?", 0);
            world.settle();
        }
        assert!(world.sockets.is_empty());
        assert_eq!(world.resolver.state("a.test"), Some(State::Unresolved(Some(Reason::Strays))));
    }
}

#[test]
fn one_family_may_fail_or_have_nothing() {
    for script in [Script::Nothing(true, None), Script::Nothing(false, Some(60)), Script::Code(2), Script::Silence] {
        let mut world = World::new(ONE, "");
        world.serve("a.test", addresses(&["10.1.0.1"], 60));
        world.scripts.insert(("", "a.test", AAAA), script);
        world.want(&["a.test"]);
        world.pass(10 * SECOND_US);
        assert_eq!(world.resolver.state("a.test"), Some(State::Good));
        assert_eq!(world.take_changes(), ["a.test [10.1.0.1]"]);
    }
}

#[test]
fn a_family_that_no_server_can_speak_of_stays_as_it_was() {
    let mut world = World::new(ONE, "");
    world.serve("a.test", addresses(&["10.1.0.1"], 100));
    world.scripts.insert(("", "a.test", AAAA), addresses(&["fd00::1"], 100));
    world.want(&["a.test"]);
    world.serve("a.test", addresses(&["10.1.0.2"], 100));
    world.scripts.insert(("", "a.test", AAAA), Script::Code(2));
    world.pass(100 * SECOND_US);
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.2", "fd00::1"]));
    // It is asked for again soon, and said to be gone where it is.
    world.scripts.insert(("", "a.test", AAAA), Script::Nothing(true, None));
    world.pass(DNS_RETRY_MAX_US);
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.2"]));
}

#[test]
fn the_last_good_addresses_are_kept_until_there_are_better_ones() {
    let mut world = World::new(ONE, "");
    world.serve("a.test", addresses(&["10.1.0.1"], 10));
    world.want(&["a.test"]);
    world.take_changes();
    world.serve("a.test", Script::Nothing(false, Some(30)));
    world.scripts.insert(("", "a.test", AAAA), Script::Nothing(false, Some(40)));
    world.pass(10 * SECOND_US);
    assert_eq!(world.take_changes(), ["a.test failed: no such name"]);
    assert_eq!(world.resolver.state("a.test"), Some(State::Stale(Reason::NoName)));
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.1"]));
    world.take_asked();
    world.pass(30 * SECOND_US - 1);
    assert_eq!(world.take_asked(), [""; 0], "that there is nothing holds for its time");
    world.pass(1);
    assert_eq!(world.take_asked().len(), 2);
    assert_eq!(world.take_changes(), [""; 0], "that it fails still is no news");
    world.serve("a.test", addresses(&["10.1.0.1"], 10));
    world.pass(30 * SECOND_US);
    assert_eq!(world.take_changes(), ["a.test recovered"]);
    assert_eq!(world.resolver.state("a.test"), Some(State::Good));
}

#[test]
fn a_name_without_addresses_is_told_from_one_that_is_not() {
    let mut world = World::new("nameserver 10.0.0.1\nsearch x", "");
    world.serve("a.x", Script::Nothing(true, Some(60)));
    world.want(&["a", "b"]);
    assert_eq!(world.take_changes(), ["a failed: no addresses", "b failed: no such name"]);
}

#[test]
fn failures_are_tried_again_ever_less_often() {
    let mut world = World::new("nameserver 10.0.0.1\noptions attempts:1", "");
    world.serve("a.test", Script::Code(2));
    world.want(&["a.test"]);
    for delay_s in [1, 2, 4, 8, 16, 30, 30, 30] {
        world.take_asked();
        world.pass(delay_s * SECOND_US - 1);
        assert_eq!(world.take_asked(), [""; 0], "{delay_s}");
        world.pass(1);
        assert_eq!(world.take_asked().len(), 2, "{delay_s}");
    }
    // Without a SOA record it is not known for how long there is nothing.
    world.serve("a.test", addresses(&["10.1.0.1"], 5));
    world.pass(30 * SECOND_US);
    world.serve("a.test", Script::Nothing(false, None));
    world.pass(5 * SECOND_US);
    assert_eq!(world.resolver.next_deadline_us(), world.now_us + SECOND_US);
}

#[test]
fn the_hosts_table_comes_before_the_servers_and_is_followed() {
    let mut world = World::new(ONE, "10.2.0.1 a.test\nfd00::9 A.test\n");
    world.serve("a.test", addresses(&["10.1.0.1"], 60));
    world.want(&["a.test"]);
    assert_eq!(world.take_asked(), [""; 0]);
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.2.0.1", "fd00::9"]));
    assert_eq!(world.resolver.next_deadline_us(), NEVER);
    world.resolver.reload_hosts(Hosts::parse(b"10.2.0.2 a.test"), 0);
    world.settle();
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.2.0.2"]));
    world.resolver.reload_hosts(Hosts::default(), 0);
    world.settle();
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.1"]));
    assert_eq!(world.take_asked().len(), 2);
    // One that blocks the name, while it is asked for.
    world.serve("a.test", Script::Silence);
    world.resolver.refresh(0);
    world.settle();
    assert_eq!(world.sockets.len(), 1);
    world.resolver.reload_hosts(Hosts::parse(b"0.0.0.0 a.test"), 0);
    world.settle();
    assert!(world.sockets.is_empty());
    assert_eq!(world.resolver.state("a.test"), Some(State::Stale(Reason::NoAddresses)));
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.1"]));
}

#[test]
fn localhost_is_loopback_whatever_the_table_and_the_servers_say() {
    let mut world = World::new(ONE, "");
    let names = ["localhost", "LocalHost.", "a.b.localhost", "localhost.test"];
    world.want(&names);
    for name in &names[..3] {
        assert_eq!(world.resolver.addresses(name), ips(&["127.0.0.1"]), "{name}");
    }
    assert_eq!(world.take_asked().len(), 2);
    world.resolver.reload_hosts(Hosts::parse(b"127.0.0.1 localhost\n::1 localhost"), 0);
    assert_eq!(world.resolver.addresses("localhost"), ips(&["127.0.0.1", "::1"]));
}

/// The names asked for, by their A queries.
fn tried(conf: &str, name: &str) -> Vec<String> {
    let mut world = World::new(conf, "");
    world.want(&[name]);
    let asked = world.take_asked();
    let names = asked.iter().filter_map(|line| line.strip_suffix(" A")?.strip_prefix("10.0.0.1 "));
    names.map(str::to_string).collect()
}

#[test]
fn names_are_sought_below_the_domains_of_the_search_list() {
    let conf = "nameserver 10.0.0.1\nsearch x.test y\noptions ndots:2";
    assert_eq!(tried(conf, "a"), ["a.x.test", "a.y", "a"]);
    assert_eq!(tried(conf, "a.b"), ["a.b.x.test", "a.b.y", "a.b"]);
    assert_eq!(tried(conf, "a.b.c"), ["a.b.c", "a.b.c.x.test", "a.b.c.y"]);
    assert_eq!(tried(conf, "a."), ["a"]);
    assert_eq!(tried(ONE, "a"), ["a"]);
    // Below a domain this one is too long to be a name.
    let long = format!("{}b", "x".repeat(63) + "." + &"abcdefg.".repeat(23));
    assert_eq!(tried(conf, &long), [long.clone(), format!("{long}.y")]);
}

#[test]
fn the_first_that_exists_with_addresses_is_taken() {
    let mut world = World::new("nameserver 10.0.0.1\nsearch x y", "");
    world.serve("a.x", Script::Nothing(true, Some(60)));
    world.serve("a.y", addresses(&["10.1.0.1"], 60));
    world.serve("a", addresses(&["10.1.0.9"], 60));
    world.want(&["a"]);
    assert_eq!(world.resolver.addresses("a"), ips(&["10.1.0.1"]));
    // A server that fails says nothing about whether the name is there.
    world.serve("a.x", Script::Code(2));
    world.resolver.refresh(world.now_us);
    world.settle();
    assert_eq!(world.resolver.state("a"), Some(State::Stale(Reason::Server(2))));
}

#[test]
fn what_dns_cannot_hold_is_not_asked_for() {
    let mut world = World::new(ONE, "10.1.0.1 a..b");
    world.want(&["", ".", "a..c", "a..b", &"x".repeat(64)]);
    assert_eq!(world.take_asked(), [""; 0]);
    assert_eq!(world.resolver.state("."), Some(State::Unresolved(Some(Reason::NotAName))));
    assert_eq!(world.resolver.addresses("a..b"), ips(&["10.1.0.1"]), "though the table can hold it");
    assert_eq!(world.resolver.next_deadline_us(), NEVER);
}

#[test]
fn names_that_stay_keep_their_answers_and_gone_ones_are_forgotten() {
    let mut world = World::new(ONE, "");
    world.serve("a", addresses(&["10.1.0.1"], 60));
    world.serve("b", Script::Silence);
    world.want(&["a", "b", "a"]);
    assert_eq!(world.sockets.len(), 1);
    world.serve("c", addresses(&["10.1.0.3"], 60));
    world.take_asked();
    world.take_changes();
    world.want(&["c", "a"]);
    assert!(world.sockets.is_empty(), "what was under way for b is given up");
    assert_eq!(world.take_asked(), ["10.0.0.1 c A", "10.0.0.1 c AAAA"]);
    assert_eq!(world.take_changes(), ["c [10.1.0.3]"]);
    assert_eq!(world.resolver.addresses("a"), ips(&["10.1.0.1"]));
    assert_eq!(world.resolver.state("b"), None);
    world.want(&[]);
    assert_eq!(world.resolver.next_deadline_us(), NEVER);
}

#[test]
fn a_changed_resolv_conf_has_everything_looked_up_anew() {
    let mut world = World::new(ONE, "");
    world.serve("a", addresses(&["10.1.0.1"], 60));
    world.scripts.insert(("10.0.0.2", "a", A), addresses(&["10.1.0.2"], 60));
    world.want(&["a"]);
    world.take_asked();
    world.resolver.reload_conf(ResolvConf::parse(ONE.as_bytes()), 0);
    world.settle();
    assert_eq!(world.take_asked(), [""; 0]);
    world.resolver.reload_conf(ResolvConf::parse(b"nameserver 10.0.0.2"), 0);
    world.settle();
    assert_eq!(world.resolver.addresses("a"), ips(&["10.1.0.2"]));
    world.resolver.reload_conf(ResolvConf { servers: Vec::new(), attempts: 0, ..ResolvConf::default() }, 0);
    world.settle();
    assert_eq!(world.asked.last().map(String::as_str), Some("127.0.0.1 a AAAA"));
}

#[test]
fn a_bounded_number_is_under_way_at_once() {
    let mut world = World::new("nameserver 10.0.0.1\nsearch x y z\noptions attempts:1", "");
    let names: Vec<String> = (0..BACKENDS + 10).map(|n| format!("n{n}")).collect();
    let names: Vec<&'static str> = names.into_iter().map(|name| &*name.leak()).collect();
    // Every third is never answered, so that others have to wait for their turn.
    names.iter().step_by(3).for_each(|name| world.serve(format!("{name}.y").leak(), Script::Silence));
    world.want(&names);
    assert_eq!(world.sockets.len(), DNS_LOOKUPS);
    world.pass(100 * SECOND_US);
    assert!(world.most_sockets <= 2 * DNS_LOOKUPS, "{}", world.most_sockets);
    assert_eq!(world.changes.len(), BACKENDS, "every one came to its turn, and none past the bound");
    assert!(world.resolver.asking <= DNS_LOOKUPS && world.resolver.queries.len() <= 2 * world.resolver.asking);
    world.want(&[]);
    assert_eq!((world.sockets.len(), world.resolver.asking, world.resolver.waiting.len()), (0, 0, 0));
}

#[test]
fn what_concerns_a_closed_socket_is_not_heeded() {
    let mut world = World::new(ONE, "");
    world.serve("a", Script::Silence);
    world.want(&["a"]);
    let key = *world.sockets.keys().next().unwrap();
    // A datagram's socket has no connection.
    world.resolver.connected(key, 0);
    world.resolver.received_tcp(key, b"x", 0);
    world.want(&[]);
    world.resolver.connected(key, 0);
    world.resolver.received_tcp(key, b"x", 0);
    world.resolver.received_udp(key, SocketAddr::from(([10, 0, 0, 1], DNS_PORT)), b"x", 0);
    world.resolver.ended(key, 0);
    world.resolver.failed(key, 0);
    world.resolver.expire(u64::MAX);
    assert_eq!(world.resolver.next_output(), None);
}
