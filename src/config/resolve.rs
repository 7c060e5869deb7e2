//! From the options given to a whole configuration: defaults filled in, contradictions refused,
//! backends' names turned into addresses by the table of `/etc/hosts`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Address, Backend, Config, Health, HostHeader, Mode, Strategy, Timeouts};
use crate::args::{BackendSpec, Given, Host, Options, Source, Target};
use crate::dns::hosts::Hosts;
use crate::limits::{
    DEFAULT_BACKEND_PORTS, DEFAULT_CONNECT_US, DEFAULT_DRAIN_US, DEFAULT_IDLE_US, DEFAULT_PORT, DEFAULT_REQUEST_US,
    DEFAULT_RESPONSE_US,
};
use crate::log::Level;

/// Why options that are right one by one make no configuration; always the user's fault.
/// Displayed, it is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A backend's name is not in the hosts table.
    UnknownHost {
        /// Where the backend was given.
        source: Source,
        /// The backend, as written.
        backend: String,
    },
    /// The demo brings its own backends.
    DemoWithBackends {
        /// Where the demo was asked for.
        demo: Source,
        /// Where the first backend was given.
        backend: Source,
    },
    /// One process has no workers.
    WorkersInOneProcess {
        /// Where the workers were asked for.
        source: Source,
        /// How many.
        workers: u32,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A name in a spec has no control characters, and a bounded length.
            Error::UnknownHost { source, backend } => write!(
                f,
                "{source} '{backend}': the name is not in /etc/hosts, and DNS is not in this version; \
                 accepted: an IP address, localhost, or a name in /etc/hosts"
            ),
            Error::DemoWithBackends { demo, backend } => write!(
                f,
                "{demo} and {backend} are contradictory, as the demo starts its own backends; accepted: one of them"
            ),
            Error::WorkersInOneProcess { source, workers } => {
                write!(f, "{source} '{workers}': contradicts mode sp, which is one process; accepted: 1, or mode mp")
            }
        }
    }
}

impl std::error::Error for Error {}

/// Makes a configuration of the options given.
pub fn resolve(options: Options, hosts: &Hosts) -> Result<Config, Error> {
    let demo = options.demo.filter(|given| given.value);
    if let (Some(demo), Some(backend)) = (demo, options.backends.first()) {
        return Err(Error::DemoWithBackends { demo: demo.source, backend: backend.source });
    }
    let mode = or(options.mode, if cfg!(target_os = "linux") { Mode::Mp } else { Mode::Sp });
    if let (Mode::Sp, Some(Given { value: workers @ 2.., source })) = (mode, options.workers) {
        return Err(Error::WorkersInOneProcess { source, workers });
    }
    let default_backends = options.backends.is_empty() && demo.is_none();
    let mut backends = Vec::new();
    for given in options.backends {
        backends.push(backend(given, hosts)?);
    }
    if backends.is_empty() {
        let ports = if demo.is_some() { [0; 2] } else { DEFAULT_BACKEND_PORTS };
        backends.extend(ports.map(on_loopback));
    }
    let port = or(options.port, DEFAULT_PORT);
    Ok(Config {
        listen: SocketAddr::new(or(options.host, Ipv4Addr::UNSPECIFIED.into()), port),
        backends,
        default_backends,
        workers: options.workers.map(|given| given.value),
        strategy: or(options.strategy, Strategy::default()),
        loglevel: or(options.loglevel, Level::Info),
        trace: or(options.trace, false),
        mode,
        demo: demo.is_some(),
        timeouts: Timeouts {
            connect_us: or(options.connect_us, DEFAULT_CONNECT_US),
            request_us: or(options.request_us, DEFAULT_REQUEST_US),
            response_us: or(options.response_us, DEFAULT_RESPONSE_US),
            idle_us: or(options.idle_us, DEFAULT_IDLE_US),
            drain_us: or(options.drain_us, DEFAULT_DRAIN_US),
        },
        max_connections: options.max_connections.map(|given| given.value),
        host_header: or(options.host_header, HostHeader::Preserve),
        trust: options.trust.iter().map(|given| given.value).collect(),
        via: options.via.map(|given| given.value),
        user: options.user.map(|given| given.value),
        health: Health {
            path: "/".into(),
            interval_us: 0,
            timeout_us: 2_000_000,
            fails: 3,
            passes: 2,
            count_5xx: false,
        },
        slow_start_us: 0,
        retry_percent: 20,
    })
}

fn or<T>(given: Option<Given<T>>, default: T) -> T {
    given.map_or(default, |given| given.value)
}

fn on_loopback(port: u16) -> Backend {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Backend { name: address.to_string(), address: Address::Tcp(address), weight: 1 }
}

fn backend(given: Given<BackendSpec>, hosts: &Hosts) -> Result<Backend, Error> {
    let BackendSpec { name, target, weight } = given.value;
    let address = match target {
        Target::Unix(path) => Address::Unix(path),
        Target::Tcp(Host::Ip(ip), port) => Address::Tcp(SocketAddr::new(ip, port)),
        Target::Tcp(Host::Name(host), port) => match look_up(&host, hosts) {
            Some(ip) => Address::Tcp(SocketAddr::new(ip, port)),
            None => return Err(Error::UnknownHost { source: given.source, backend: name }),
        },
    };
    Ok(Backend { name, address, weight })
}

/// A name's first IPv4 address, else its first of IPv6. `localhost` is loopback (RFC 6761, 6.3)
/// even where the table has nothing to say, as in an empty container.
fn look_up(host: &str, hosts: &Hosts) -> Option<IpAddr> {
    let found = hosts.lookup(host).find(IpAddr::is_ipv4).or_else(|| hosts.lookup(host).next());
    let bare = host.strip_suffix('.').unwrap_or(host);
    found.or_else(|| bare.eq_ignore_ascii_case("localhost").then_some(Ipv4Addr::LOCALHOST.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::flags::Preset;
    use crate::args::{Command, FLAGS, parse};
    use std::ffi::OsString;

    fn options(line: &str) -> Options {
        match parse(line.split_whitespace().map(OsString::from), &|_| None) {
            Ok(Command::Run(options)) => options,
            got => panic!("{line}: {got:?}"),
        }
    }

    fn with_hosts(line: &str, hosts: &str) -> Result<Config, Error> {
        resolve(options(line), &Hosts::parse(hosts.as_bytes()))
    }

    fn addresses(line: &str, hosts: &str) -> Vec<String> {
        let address = |backend: &Backend| match &backend.address {
            Address::Tcp(address) => address.to_string(),
            Address::Unix(path) => path.display().to_string(),
        };
        with_hosts(line, hosts).expect(line).backends.iter().map(address).collect()
    }

    #[test]
    fn nothing_given_makes_a_whole_configuration() {
        let config = with_hosts("", "").unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
        assert!(config.default_backends && !config.demo && !config.trace);
        assert_eq!(addresses("", ""), ["127.0.0.1:9001", "127.0.0.1:9002"]);
        assert_eq!((config.workers, config.max_connections, config.via, config.user), (None, None, None, None));
    }

    #[test]
    fn the_defaults_told_are_those_filled_in() {
        let mut line = String::new();
        for flag in FLAGS {
            if let Preset::Value(text) = flag.default {
                line += &format!("--{} {text} ", flag.long);
            }
        }
        assert_eq!(with_hosts(&line, ""), with_hosts("", ""));
        let told = FLAGS.iter().find(|flag| flag.long == "backend").unwrap().default;
        assert_eq!(told, Preset::Told("127.0.0.1:9001 and 127.0.0.1:9002"));
        assert_eq!(addresses("", "").join(" and "), told.text());
    }

    #[test]
    fn what_is_given_stands() {
        let config = with_hosts(
            "-p 0 --host [::] -b 10.0.0.1:80,weight=3 -w 2 -s random -l warn -t --idle-timeout 1s --user nobody \
             --max-connections 9 --host-header backend --trust 10.0.0.0/8 --via edge",
            "",
        );
        let config = config.unwrap();
        assert_eq!(config.listen.to_string(), "[::]:0");
        assert_eq!((config.backends[0].name.as_str(), config.backends[0].weight), ("10.0.0.1:80", 3));
        assert!(!config.default_backends && config.trace);
        assert_eq!((config.workers, config.max_connections), (Some(2), Some(9)));
        assert_eq!((config.strategy, config.loglevel), (Strategy::named("random").unwrap(), Level::Warn));
        assert_eq!((config.timeouts.idle_us, config.timeouts.drain_us), (1_000_000, 25_000_000));
        assert_eq!(config.host_header, HostHeader::Backend);
        assert!(config.trust[0].contains(Ipv4Addr::new(10, 1, 1, 1).into()));
        assert_eq!((config.via.as_deref(), config.user.as_deref()), (Some("edge"), Some("nobody")));
    }

    #[test]
    fn names_are_looked_up_in_the_hosts_table() {
        let hosts = "::2 both\n10.0.0.2 both\n10.0.0.3 both\n::6 six\n";
        assert_eq!(
            addresses("-b both:1 -b SIX:2 -b 10.0.0.9:3 -b [::9]:4 -b unix:/run/s", hosts),
            ["10.0.0.2:1", "[::6]:2", "10.0.0.9:3", "[::9]:4", "/run/s"]
        );
        let refused = with_hosts("-b http://api.example:80", hosts).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "--backend 'api.example:80': the name is not in /etc/hosts, and DNS is not in this version; \
             accepted: an IP address, localhost, or a name in /etc/hosts"
        );
    }

    #[test]
    fn localhost_is_loopback_unless_the_table_says_otherwise() {
        assert_eq!(addresses("-b LocalHost.:1", ""), ["127.0.0.1:1"]);
        assert_eq!(addresses("-b localhost:1", "::1 localhost\n127.0.0.2 localhost\n"), ["127.0.0.2:1"]);
        assert_eq!(addresses("-b localhost:1", "::1 localhost\n"), ["[::1]:1"]);
    }

    #[test]
    fn a_backend_s_own_host_is_as_written() {
        let config = with_hosts("-b http://api:81,weight=2 -b unix:/run/s", "10.0.0.1 api").unwrap();
        let own: Vec<&str> = config.backends.iter().map(Backend::authority).collect();
        assert_eq!(own, ["api:81", "localhost"]);
    }

    #[test]
    fn the_demo_has_two_backends_of_its_own_and_takes_no_others() {
        let config = with_hosts("--demo", "").unwrap();
        assert!(config.demo && !config.default_backends);
        assert_eq!(addresses("--demo", ""), ["127.0.0.1:0", "127.0.0.1:0"]);
        let refused = with_hosts("-b 10.0.0.1:80 --demo", "").unwrap_err().to_string();
        assert!(refused.starts_with("--demo and --backend are contradictory"), "{refused}");
    }

    #[test]
    fn one_process_has_no_workers() {
        assert!(with_hosts("-m sp -w 1", "").is_ok());
        let refused = with_hosts("-m sp -w 2", "").unwrap_err().to_string();
        assert!(refused.starts_with("--workers '2': contradicts mode sp"), "{refused}");
    }
}
