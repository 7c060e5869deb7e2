//! The resolver's network: scripted servers that answer at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::super::{Change, Output, Resolver};
use crate::collections::slab::Key;
use crate::dns::hosts::Hosts;
use crate::dns::resolv_conf::ResolvConf;

/// A server's scripted answer to a name and a type.
#[derive(Clone)]
pub(super) enum Script {
    Addresses(Vec<IpAddr>, u32),
    Alias(&'static str, u32),
    /// No addresses: the existence of the name, and the minimum of the SOA record.
    Nothing(bool, Option<u32>),
    Code(u8),
    Silence,
    /// Too long for UDP. Over TCP the answer is these addresses.
    Long(Vec<IpAddr>),
    /// A forged answer with one wrong part: its id, its name or its sender.
    Forged(&'static str),
    /// The socket fails.
    Error,
    /// A header and question followed by garbage.
    Garbage,
}

pub(super) struct World {
    pub(super) resolver: Resolver,
    pub(super) now_us: u64,
    /// Open sockets: the server, and true for TCP.
    pub(super) sockets: BTreeMap<Key, (SocketAddr, bool)>,
    pub(super) most_sockets: usize,
    /// The scripts by server ("" for any), name and type.
    pub(super) scripts: BTreeMap<(&'static str, &'static str, u16), Script>,
    /// The queries: server, name and type, with the prefix "tcp" for TCP.
    pub(super) asked: Vec<String>,
    pub(super) ids: Vec<u16>,
    pub(super) changes: Vec<String>,
}

pub(super) const A: u16 = 1;
pub(super) const AAAA: u16 = 28;

pub(super) fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(super) fn addresses(texts: &[&str], ttl_s: u32) -> Script {
    Script::Addresses(ips(texts), ttl_s)
}

impl World {
    pub(super) fn new(conf: &str, hosts: &str) -> World {
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

    /// Scripts a name's A records at all servers, without AAAA records.
    pub(super) fn serve(&mut self, name: &'static str, script: Script) {
        self.scripts.insert(("", name, A), script);
        self.scripts.entry(("", name, AAAA)).or_insert(Script::Nothing(true, Some(60)));
    }

    pub(super) fn want(&mut self, names: &[&str]) {
        self.resolver.set_names(names, self.now_us);
        self.settle();
    }

    /// Advances the time and handles every deadline on the way.
    pub(super) fn pass(&mut self, us: u64) {
        let end_us = self.now_us + us;
        while self.resolver.next_deadline_us() <= end_us {
            self.now_us = self.now_us.max(self.resolver.next_deadline_us());
            self.resolver.expire(self.now_us);
            self.settle();
        }
        self.now_us = end_us;
    }

    /// Handles the resolver's outputs until there are none.
    pub(super) fn settle(&mut self) {
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
                    Change::Skipped(reason) => {
                        let failed = self.resolver.failed_as(&name).map(ToString::to_string).unwrap_or_default();
                        format!("{name} skipped {failed}: {reason}")
                    }
                    Change::Many(count) => format!("{name} has {count}"),
                }),
                Output::Send(key, bytes) => {
                    // Data sent on a socket that is closed by now is lost.
                    if let Some(&(server, tcp)) = self.sockets.get(&key) {
                        self.serve_query(key, server, tcp, &bytes);
                    }
                }
            }
            self.most_sockets = self.most_sockets.max(self.sockets.len());
        }
    }

    pub(super) fn serve_query(&mut self, key: Key, server: SocketAddr, tcp: bool, bytes: &[u8]) {
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
        let scripts: &BTreeMap<(&str, &str, u16), Script> = &self.scripts;
        let find = |at: &str| scripts.get(&(at, name.as_str(), record_type)).cloned();
        let script = find(&ip).or_else(|| find("")).unwrap_or(Script::Nothing(false, Some(60)));
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
        // In pieces, because a stream has no message boundaries.
        let stream = [&(reply.len() as u16).to_be_bytes(), &reply[..]].concat();
        for piece in stream.chunks(5) {
            self.resolver.received_tcp(key, piece, self.now_us);
        }
    }

    pub(super) fn take_asked(&mut self) -> Vec<String> {
        std::mem::take(&mut self.asked)
    }

    pub(super) fn take_changes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.changes)
    }
}

pub(super) fn record(owner: &[u8], record_type: u16, ttl_s: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = owner.to_vec();
    for word in [record_type, 1, (ttl_s >> 16) as u16, ttl_s as u16, data.len() as u16] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(data);
    bytes
}

pub(super) fn address_record(owner: &[u8], ip: &IpAddr, ttl_s: u32) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => record(owner, A, ttl_s, &ip.octets()),
        IpAddr::V6(ip) => record(owner, AAAA, ttl_s, &ip.octets()),
    }
}

pub(super) fn response(query: &[u8], script: &Script, tcp: bool) -> Vec<u8> {
    pub(super) const ASKED: &[u8] = b"\xc0\x0c";
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
        // A truncated record.
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
