//! DNS messages (RFC 1035, 2181, 2308): writes queries and reads responses.
//!
//! Queries have no EDNS(0) record (RFC 6891). Without it every server answers, in at most 512 bytes: servers
//! that refuse unknown options need no fallback, and no response is fragmented, so later fragments cannot be
//! forged. Longer responses are truncated and repeated over TCP, which must work anyway. The C libraries do the
//! same.
//!
//! All reading is bounded: a name by its length and its number of pointers, each of which must point before the
//! current part of the name; responses by `DNS_RECORDS`; the chain of CNAMEs by `DNS_CNAMES`. Only records on
//! the way from the question are used, never additional ones.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::limits::{DNS_CNAMES, DNS_NAME_BYTES, DNS_POINTERS, DNS_RECORDS, HOST_LABEL_BYTES};

const HEADER_BYTES: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_SOA: u16 = 6;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;

// The flags of the header (RFC 1035, 4.1.1).
const RESPONSE: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const AUTHORITATIVE: u16 = 0x0400;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;
const RCODE: u16 = 0x000f;

const RCODE_NO_NAME: u8 = 3;

/// A name in wire format: labels with length bytes, in lower case because names are case-insensitive (RFC
/// 4343). At most `DNS_NAME_BYTES` with the root's empty label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(Vec<u8>);

impl Name {
    /// Parses labels separated by dots; a final dot is allowed. None if a label is empty or too long, or the
    /// name is too long.
    pub fn parse(text: &str) -> Option<Name> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.split('.') {
            if label.is_empty() || label.len() > HOST_LABEL_BYTES {
                return None;
            }
            wire.push(label.len() as u8);
            wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        wire.push(0);
        (wire.len() <= DNS_NAME_BYTES).then_some(Name(wire))
    }

    /// Appends a domain to this name; None if the result is too long.
    pub fn below(&self, domain: &Name) -> Option<Name> {
        let labels = &self.0[..self.0.len() - 1];
        let wire = [labels, &domain.0].concat();
        (wire.len() <= DNS_NAME_BYTES).then_some(Name(wire))
    }
}

/// Without the final dot. Bytes that are not allowed in a host name are escaped.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = &self.0[..];
        while let Some((&length, after)) = rest.split_first().filter(|(length, _)| **length > 0) {
            let (label, next) = after.split_at_checked(length.into()).unwrap_or((after, &[]));
            write!(f, "{}", label.escape_ascii())?;
            if next.first().is_some_and(|&length| length > 0) {
                f.write_str(".")?;
            }
            rest = next;
        }
        Ok(())
    }
}

/// The address family of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4: A records.
    V4,
    /// IPv6: AAAA records (RFC 3596).
    V6,
}

impl Family {
    /// Both families, in the order in which addresses are listed.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    fn record_type(self) -> u16 {
        match self {
            Family::V4 => TYPE_A,
            Family::V6 => TYPE_AAAA,
        }
    }
}

/// The content of a query. A response must repeat all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The query's id, which identifies its response.
    pub id: u16,
    /// The queried name.
    pub name: Name,
    /// The queried address family.
    pub family: Family,
}

impl Question {
    /// The query as a datagram. On TCP a length of two bytes precedes it.
    pub fn query(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(HEADER_BYTES + self.name.0.len() + 4);
        for word in [self.id, RECURSION_DESIRED, 1, 0, 0, 0] {
            message.extend(word.to_be_bytes());
        }
        message.extend(&self.name.0);
        message.extend(self.family.record_type().to_be_bytes());
        message.extend(CLASS_IN.to_be_bytes());
        message
    }
}

/// The meaning of a message as the response to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The message does not answer this question. Wait for one that does.
    Stray,
    /// The answer does not fit. Repeat the query over TCP.
    Truncated,
    /// The addresses in the message's order, between one and `DNS_RECORDS`.
    Found {
        /// The addresses.
        addresses: Vec<IpAddr>,
        /// The lifetime in seconds: the lowest TTL on the way to the addresses.
        ttl_s: u32,
    },
    /// The name does not exist, or has no address of this family.
    None {
        /// True if the name exists.
        exists: bool,
        /// The lifetime in seconds; unknown without a SOA record (RFC 2308, 5).
        ttl_s: Option<u32>,
    },
    /// The server cannot or will not answer: its RCODE, or 0 for a referral to other servers.
    Failed(u8),
    /// The message answers this question, but is truncated or violates the format.
    Malformed,
}

impl Reply {
    /// Reads a message as the response to a question. Never fails; see the variants.
    pub fn parse(message: &[u8], question: &Question) -> Reply {
        let mut reader = Reader { message, at: 0 };
        let Some([id, flags, questions, answers, authorities, _]) = reader.words() else { return Reply::Stray };
        if id != question.id || flags & RESPONSE == 0 || flags & OPCODE != 0 {
            return Reply::Stray;
        }
        let rcode = (flags & RCODE) as u8;
        // A server that did not understand the query may be unable to repeat it.
        if questions == 0 && rcode != 0 && rcode != RCODE_NO_NAME {
            return Reply::Failed(rcode);
        }
        if questions != 1 || !reader.repeats(question) {
            return Reply::Stray;
        }
        if flags & TRUNCATED != 0 {
            return Reply::Truncated;
        }
        if rcode != 0 && rcode != RCODE_NO_NAME {
            return Reply::Failed(rcode);
        }
        let exists = rcode == 0;
        match reader.answers(question, answers, exists) {
            None => Reply::Malformed,
            Some((addresses, ttl_s)) if !addresses.is_empty() => Reply::Found { addresses, ttl_s },
            Some(_) => match reader.negative_ttl(authorities) {
                None => Reply::Malformed,
                // The server is not authoritative and does not recurse, so its answer says nothing about the
                // name.
                Some(None) if exists && answers == 0 && flags & (AUTHORITATIVE | RECURSION_AVAILABLE) == 0 => {
                    Reply::Failed(rcode)
                }
                Some(ttl_s) => Reply::None { exists, ttl_s },
            },
        }
    }
}

/// A resource record. Its owner precedes it, and its data is at `data..data + length`.
struct Record {
    record_type: u16,
    class: u16,
    ttl_s: u32,
    data: usize,
    length: usize,
}

/// A record that may be on the way from the question to its addresses.
enum Link {
    Alias(Name),
    Address(IpAddr),
}

/// A position in a message. Every method returns None if the message is truncated or malformed.
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.message.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(*bytes)
    }

    fn word(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_be_bytes)
    }

    fn long(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_be_bytes)
    }

    fn words<const N: usize>(&mut self) -> Option<[u16; N]> {
        let mut words = [0; N];
        for word in &mut words {
            *word = self.word()?;
        }
        Some(words)
    }

    /// A TTL. A value with the highest bit set counts as zero (RFC 2181, 8).
    fn ttl(&mut self) -> Option<u32> {
        self.long().map(|ttl| if ttl >> 31 == 0 { ttl } else { 0 })
    }

    fn repeats(&mut self, question: &Question) -> bool {
        let name = self.name();
        let rest = self.words();
        name.as_ref() == Some(&question.name) && rest == Some([question.family.record_type(), CLASS_IN])
    }

    /// Reads a name and follows its pointers (RFC 1035, 4.1.4).
    fn name(&mut self) -> Option<Name> {
        let mut wire = Vec::new();
        let mut at = self.at;
        let (mut part, mut pointers) = (at, 0);
        loop {
            let length = *self.message.get(at)?;
            match length >> 6 {
                0 => {
                    let end = at + 1 + usize::from(length);
                    let label = self.message.get(at..end)?;
                    if wire.len() + label.len() > DNS_NAME_BYTES {
                        return None;
                    }
                    // Length bytes are below the letters, so lower case does not change them.
                    wire.extend(label.iter().map(u8::to_ascii_lowercase));
                    at = end;
                }
                3 => {
                    let low = *self.message.get(at + 1)?;
                    if pointers == 0 {
                        self.at = at + 2;
                    }
                    pointers += 1;
                    let target = usize::from(length & 0x3f) << 8 | usize::from(low);
                    if target >= part || pointers > DNS_POINTERS {
                        return None;
                    }
                    (at, part) = (target, target);
                    continue;
                }
                _ => return None,
            }
            if length == 0 {
                if pointers == 0 {
                    self.at = at;
                }
                return Some(Name(wire));
            }
        }
    }

    fn skip_name(&mut self) -> Option<()> {
        loop {
            let length = *self.message.get(self.at)?;
            match length >> 6 {
                0 => self.at += 1 + usize::from(length),
                3 => {
                    self.at += 2;
                    return Some(());
                }
                _ => return None,
            }
            if length == 0 {
                return Some(());
            }
        }
    }

    /// Reads a record after its owner's name and skips its data.
    fn record(&mut self) -> Option<Record> {
        let [record_type, class] = self.words()?;
        let ttl_s = self.ttl()?;
        let length = usize::from(self.word()?);
        let data = self.at;
        self.at = data + length;
        (self.at <= self.message.len()).then_some(Record { record_type, class, ttl_s, data, length })
    }

    fn data(&self, record: &Record) -> Reader<'_> {
        Reader { message: &self.message[..record.data + record.length], at: record.data }
    }

    /// Collects the addresses that the answers give for the question, through its aliases, with the lowest TTL.
    /// A name that does not exist has none. Skips all answers.
    fn answers(&mut self, question: &Question, count: u16, exists: bool) -> Option<(Vec<IpAddr>, u32)> {
        let mut links = Vec::new();
        for n in 0..usize::from(count) {
            if n >= DNS_RECORDS || !exists {
                self.skip_name()?;
                self.record()?;
                continue;
            }
            let owner = self.name()?;
            let record = self.record()?;
            if let Some(link) = self.link(&record, question.family)? {
                links.push((owner, record.ttl_s, link));
            }
        }
        Some(follow(&question.name, &links))
    }

    /// The record's role for addresses of a family; None for most types.
    fn link(&self, record: &Record, family: Family) -> Option<Option<Link>> {
        let mut data = self.data(record);
        let link = match (record.class, record.record_type) {
            (CLASS_IN, TYPE_CNAME) => Link::Alias(data.name()?),
            (CLASS_IN, TYPE_A) if family == Family::V4 => Link::Address(Ipv4Addr::from(data.bytes::<4>()?).into()),
            (CLASS_IN, TYPE_AAAA) if family == Family::V6 => Link::Address(Ipv6Addr::from(data.bytes::<16>()?).into()),
            _ => return Some(None),
        };
        // The data must be exactly the address or the name.
        (data.at == record.data + record.length).then_some(Some(link))
    }

    /// The lifetime of a negative answer: the lower of the SOA record's TTL and its minimum (RFC 2308, 5);
    /// unknown without a SOA record.
    fn negative_ttl(&mut self, count: u16) -> Option<Option<u32>> {
        for _ in 0..count {
            self.skip_name()?;
            let record = self.record()?;
            if (record.class, record.record_type) == (CLASS_IN, TYPE_SOA) {
                let mut data = self.data(&record);
                data.skip_name()?;
                data.skip_name()?;
                for _ in ["serial", "refresh", "retry", "expire"] {
                    data.long()?;
                }
                return Some(Some(data.ttl()?.min(record.ttl_s)));
            }
        }
        Some(None)
    }
}

/// Follows aliases from a name to addresses. Records may be in any order. An alias beside addresses of the same
/// name, which RFC 2181, 10.1 forbids, is not followed.
fn follow(name: &Name, links: &[(Name, u32, Link)]) -> (Vec<IpAddr>, u32) {
    let (mut name, mut ttl_s) = (name, u32::MAX);
    let mut addresses = Vec::new();
    for _ in 0..=DNS_CNAMES {
        let mut alias = None;
        for (_, link_ttl_s, link) in links.iter().filter(|(owner, ..)| owner == name) {
            match link {
                Link::Address(address) => {
                    addresses.push(*address);
                    ttl_s = ttl_s.min(*link_ttl_s);
                }
                Link::Alias(target) => alias = alias.or(Some((target, *link_ttl_s))),
            }
        }
        match alias {
            Some((target, alias_ttl_s)) if addresses.is_empty() => {
                name = target;
                ttl_s = ttl_s.min(alias_ttl_s);
            }
            _ => break,
        }
    }
    (addresses, ttl_s)
}

#[cfg(test)]
mod tests;
