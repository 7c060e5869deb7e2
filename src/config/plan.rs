//! What workers follow, and may follow anew while they run: the settings that can change, and
//! where requests go. The master publishes it as bytes; a worker that finds others reads them.
//!
//! Bytes: numbers as eight, little-endian; text and lists with their length before them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::{Address, Backend, Cidr, Config, Health, HealthCheck, HostHeader, Statuses, Strategy, Timeouts};
use crate::balance::{self, Rules};
use crate::limits::{
    ADDRESSES, BACKENDS, DEFAULT_CONNECT_US, DEFAULT_DRAIN_IDLE_US, DEFAULT_DRAIN_US, DEFAULT_IDLE_US,
    DEFAULT_REQUEST_US, DEFAULT_RESPONSE_US, SLOTS, STATUS_RANGES, TRUSTED_RANGES,
};
use crate::log::Level;

/// Settings, and where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How a backend is picked.
    pub strategy: Strategy,
    /// Which log lines are kept.
    pub loglevel: Level,
    /// Whether messages are dumped to the log.
    pub trace: bool,
    /// Every time limit a user can set.
    pub timeouts: Timeouts,
    /// What backends get as Host.
    pub host_header: HostHeader,
    /// Peers whose X-Forwarded-* fields are believed.
    pub trust: Vec<Cidr>,
    /// The pseudonym for a Via field, where one is wanted.
    pub via: Option<String>,
    /// Whether requests get ids.
    pub request_ids: bool,
    /// How backends' health is found out.
    pub health: Health,
    /// How long a backend that came back gets less than its share, in microseconds; 0 for not at all.
    pub slow_start_us: u64,
    /// How long a worker goes on as before when told to stop, in microseconds; 0 for not at all.
    pub drain_delay_us: u64,
    /// How long a worker's loop may stand still, in microseconds; 0 for as long as it likes.
    pub watchdog_us: u64,
    /// Retries for each hundred requests.
    pub retry_percent: u32,
    /// Another whenever the authorities' certificates are to be read again.
    pub authorities: u64,
    /// Every address of every backend that has one.
    pub members: Vec<Member>,
    /// Names of the backends that have no address yet.
    pub unresolved: Vec<String>,
}

/// One address of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its slot, which is its own for as long as the address is configured.
    pub slot: u16,
    /// Tells it from who had the slot before.
    pub generation: u64,
    /// The backend as configured.
    pub name: String,
    /// What it gets as Host where it is to have its own.
    pub host: String,
    /// Where it is.
    pub address: Address,
    /// Its share.
    pub weight: u16,
    /// Whether it serves only when no other is healthy.
    pub backup: bool,
    /// Requests in flight at most; 0 is no limit.
    pub max: u32,
    /// Whom its certificate has to be for; empty where it does not speak TLS.
    pub server_name: String,
    /// Whether it gets its own Host, whatever is said of others.
    pub own_host: bool,
    /// Whether it speaks HTTP/2 without TLS.
    pub h2c: bool,
}

impl Member {
    /// A backend at one of its addresses, without a slot yet. `own_host`: where one is not asked for,
    /// it may get its own.
    pub fn new(backend: &Backend, address: Address, own_host: bool) -> Member {
        Member {
            slot: 0,
            generation: 0,
            name: backend.name.clone(),
            host: backend.authority().into(),
            address,
            weight: backend.weight,
            backup: backend.backup,
            max: backend.max,
            server_name: backend.server_name(),
            own_host: own_host && backend.has_own_host(),
            h2c: backend.h2c,
        }
    }
}

impl Plan {
    /// A configuration's settings, with where its requests go, and how often the authorities' certificates
    /// have been read again.
    pub fn new(config: &Config, authorities: u64, members: Vec<Member>, unresolved: Vec<String>) -> Plan {
        Plan {
            strategy: config.strategy,
            loglevel: config.loglevel,
            trace: config.trace,
            timeouts: config.timeouts,
            host_header: config.host_header.clone(),
            trust: config.trust.clone(),
            via: config.via.clone(),
            request_ids: config.request_ids,
            health: config.health.clone(),
            slow_start_us: config.slow_start_us,
            drain_delay_us: config.drain_delay_us,
            watchdog_us: config.watchdog_us,
            retry_percent: config.retry_percent,
            authorities,
            members,
            unresolved,
        }
    }

    /// The default settings, and backends at these addresses in the first slots, which are not
    /// probed: for tests and benches.
    pub fn over(addresses: impl IntoIterator<Item = SocketAddr>) -> Plan {
        let member = |(slot, address): (usize, SocketAddr)| Member {
            slot: slot as u16,
            generation: 1,
            ..Member::new(&Backend::at(address), Address::Tcp(address), false)
        };
        Plan {
            strategy: Strategy::default(),
            loglevel: Level::Info,
            trace: false,
            timeouts: Timeouts {
                connect_us: DEFAULT_CONNECT_US,
                request_us: DEFAULT_REQUEST_US,
                response_us: DEFAULT_RESPONSE_US,
                idle_us: DEFAULT_IDLE_US,
                drain_us: DEFAULT_DRAIN_US,
                drain_idle_us: DEFAULT_DRAIN_IDLE_US,
            },
            host_header: HostHeader::Preserve,
            trust: Vec::new(),
            via: None,
            request_ids: true,
            health: Health {
                check: HealthCheck::Http,
                path: "/".into(),
                status: Statuses::range(200, 499),
                host: None,
                interval_us: 0,
                timeout_us: 0,
                fails: 3,
                passes: 2,
                count_5xx: false,
            },
            slow_start_us: 0,
            drain_delay_us: 0,
            watchdog_us: 0,
            retry_percent: 20,
            authorities: 0,
            members: addresses.into_iter().enumerate().map(member).collect(),
            unresolved: Vec::new(),
        }
    }

    /// What the balancer is told.
    pub fn rules(&self) -> Rules {
        Rules {
            strategy: self.strategy,
            fails: self.health.fails,
            passes: self.health.passes,
            interval_us: self.health.interval_us,
            slow_start_us: self.slow_start_us,
            retry_percent: self.retry_percent,
        }
    }

    /// Who the balancer picks from.
    pub fn picked_from(&self) -> impl Iterator<Item = balance::Member> {
        self.members.iter().map(|member| balance::Member {
            slot: member.slot,
            weight: member.weight,
            backup: member.backup,
            max: member.max,
        })
    }

    /// The plan as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder(Vec::new());
        out.text(self.strategy.name);
        out.number(self.loglevel as u64);
        out.flag(self.trace);
        let Timeouts { connect_us, request_us, response_us, idle_us, drain_us, drain_idle_us } = self.timeouts;
        let limits = [connect_us, request_us, response_us, idle_us, drain_us, drain_idle_us];
        limits.into_iter().for_each(|limit| out.number(limit));
        match &self.host_header {
            HostHeader::Preserve => out.number(0),
            HostHeader::Backend => out.number(1),
            HostHeader::Name(name) => {
                out.number(2);
                out.text(name);
            }
        }
        out.number(self.trust.len() as u64);
        for range in &self.trust {
            out.text(&range.address.to_string());
            out.number(range.prefix.into());
        }
        out.flag(self.via.is_some());
        out.text(self.via.as_deref().unwrap_or_default());
        out.flag(self.request_ids);
        let Health { check, path, status, host, interval_us, timeout_us, fails, passes, count_5xx } = &self.health;
        out.number(*check as u64);
        out.text(path);
        out.number(status.ranges().len() as u64);
        status.ranges().iter().flat_map(|&(first, last)| [first, last]).for_each(|end| out.number(end.into()));
        out.flag(host.is_some());
        out.text(host.as_deref().unwrap_or_default());
        [*interval_us, *timeout_us, u64::from(*fails), u64::from(*passes)].into_iter().for_each(|n| out.number(n));
        out.flag(*count_5xx);
        out.number(self.slow_start_us);
        out.number(self.drain_delay_us);
        out.number(self.watchdog_us);
        out.number(self.retry_percent.into());
        out.number(self.authorities);
        out.number(self.members.len() as u64);
        self.members.iter().for_each(|member| out.member(member));
        out.number(self.unresolved.len() as u64);
        self.unresolved.iter().for_each(|name| out.text(name));
        out.0
    }

    /// The plan that bytes are; `None` where they are none.
    pub fn decode(bytes: &[u8]) -> Option<Plan> {
        let mut from = Decoder(bytes);
        let strategy = Strategy::named(&from.text()?)?;
        let level = from.number()?;
        let plan = Plan {
            strategy,
            loglevel: Level::NAMES.into_iter().map(|(_, one)| one).find(|&one| one as u64 == level)?,
            trace: from.flag()?,
            timeouts: Timeouts {
                connect_us: from.number()?,
                request_us: from.number()?,
                response_us: from.number()?,
                idle_us: from.number()?,
                drain_us: from.number()?,
                drain_idle_us: from.number()?,
            },
            host_header: match from.number()? {
                0 => HostHeader::Preserve,
                1 => HostHeader::Backend,
                _ => HostHeader::Name(from.text()?),
            },
            trust: from.list(TRUSTED_RANGES, |from| {
                let address: IpAddr = from.text()?.parse().ok()?;
                Some(Cidr { address, prefix: from.small()? })
            })?,
            via: {
                let given = from.flag()?;
                Some(from.text()?).filter(|_| given)
            },
            request_ids: from.flag()?,
            health: Health {
                check: {
                    let number = from.number()?;
                    HealthCheck::NAMES.into_iter().map(|(_, one)| one).find(|&one| one as u64 == number)?
                },
                path: from.text()?,
                status: Statuses::of(from.list(STATUS_RANGES, |from| Some((from.small()?, from.small()?)))?),
                host: {
                    let given = from.flag()?;
                    Some(from.text()?).filter(|_| given)
                },
                interval_us: from.number()?,
                timeout_us: from.number()?,
                fails: from.small()?,
                passes: from.small()?,
                count_5xx: from.flag()?,
            },
            slow_start_us: from.number()?,
            drain_delay_us: from.number()?,
            watchdog_us: from.number()?,
            retry_percent: from.small()?,
            authorities: from.number()?,
            members: from.list(ADDRESSES, Decoder::member)?,
            unresolved: from.list(BACKENDS, Decoder::text)?,
        };
        from.0.is_empty().then_some(plan)
    }
}

struct Encoder(Vec<u8>);

impl Encoder {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn flag(&mut self, flag: bool) {
        self.number(flag.into());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn member(&mut self, member: &Member) {
        self.number(member.slot.into());
        self.number(member.generation);
        self.text(&member.name);
        self.text(&member.host);
        match &member.address {
            Address::Tcp(address) => {
                self.number(0);
                self.text(&address.to_string());
            }
            Address::Unix(path) => {
                self.number(1);
                // What was given as text is text.
                self.text(&path.to_string_lossy());
            }
        }
        self.number(member.weight.into());
        self.flag(member.backup);
        self.number(member.max.into());
        self.text(&member.server_name);
        self.flag(member.own_host);
        self.flag(member.h2c);
    }
}

struct Decoder<'a>(&'a [u8]);

impl Decoder<'_> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Option<T> {
        self.number()?.try_into().ok()
    }

    fn flag(&mut self) -> Option<bool> {
        Some(self.number()? != 0)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.small()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn list<T>(&mut self, most: usize, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count: usize = self.small().filter(|&count| count <= most)?;
        (0..count).map(|_| read(self)).collect()
    }

    fn member(&mut self) -> Option<Member> {
        Some(Member {
            slot: self.small().filter(|&slot: &u16| usize::from(slot) < SLOTS)?,
            generation: self.number()?,
            name: self.text()?,
            host: self.text()?,
            address: match self.number()? {
                0 => Address::Tcp(self.text()?.parse::<SocketAddr>().ok()?),
                _ => Address::Unix(PathBuf::from(self.text()?)),
            },
            weight: self.small()?,
            backup: self.flag()?,
            max: self.small()?,
            server_name: self.text()?,
            own_host: self.flag()?,
            h2c: self.flag()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let mut plan = Plan::over([SocketAddr::from(([127, 0, 0, 1], 1)), "[::1]:2".parse().unwrap()]);
        plan.strategy = Strategy::named("random").unwrap();
        plan.loglevel = Level::Warn;
        plan.trace = true;
        plan.host_header = HostHeader::Name("api".into());
        plan.trust = vec![Cidr { address: "10.0.0.0".parse().unwrap(), prefix: 8 }];
        plan.via = Some("edge".into());
        plan.request_ids = false;
        plan.health.path = "/up".into();
        plan.health.check = HealthCheck::Tcp;
        plan.health.status = Statuses::of(vec![(200, 299), (401, 401)]);
        plan.health.host = Some("probe.example".into());
        plan.authorities = 3;
        plan.members[1].address = Address::Unix("/run/socket".into());
        plan.members[1].backup = true;
        plan.members[1].max = 9;
        plan.members[0].server_name = "api.example".into();
        plan.members[0].own_host = true;
        plan.members[1].h2c = true;
        plan.unresolved = vec!["api.example:80".into()];
        plan
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let plan = plan();
        assert_eq!(Plan::decode(&plan.encode()), Some(plan));
        let plain = Plan::over([]);
        assert_eq!(Plan::decode(&plain.encode()), Some(plain));
    }

    #[test]
    fn what_is_no_plan_is_none() {
        let bytes = plan().encode();
        for length in 0..bytes.len() {
            assert_eq!(Plan::decode(&bytes[..length]), None, "{length}");
        }
        assert_eq!(Plan::decode(&[&bytes[..], b"x"].concat()), None);
        assert_eq!(Plan::decode(&[0xff; 4096]), None);
    }
}
