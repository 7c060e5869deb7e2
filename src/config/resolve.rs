//! From the options given to a whole configuration: defaults filled in, contradictions refused.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::probes;
use super::sticky::{self, Sticky, StickyError};
use super::tls::{self, Tls, TlsError};
use super::{
    Backend, Config, Health, HealthCheck, HostHeader, Listen, Mode, Purpose, Statuses, Strategy, Timeouts, https_port,
};
use crate::args::{FLAGS, Given, Host, Options, Setting, Source, Target};
use crate::limits::{
    DEFAULT_BACKEND_PORTS, DEFAULT_CONNECT_US, DEFAULT_DRAIN_IDLE_US, DEFAULT_DRAIN_US, DEFAULT_HALF_CLOSE_US,
    DEFAULT_HEALTH_FAILS, DEFAULT_HEALTH_INTERVAL_US, DEFAULT_HEALTH_PASSES, DEFAULT_HEALTH_TIMEOUT_US,
    DEFAULT_IDLE_US, DEFAULT_METRICS_PATH, DEFAULT_PORT, DEFAULT_REQUEST_US, DEFAULT_RESPONSE_US,
    DEFAULT_RETRY_PERCENT, DEFAULT_WATCHDOG_US,
};
use crate::log::Level;
use crate::metrics::Detail;

/// The reason why individually valid options do not make a configuration; always the user's fault. Displayed,
/// it is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Two backends are at one place.
    BackendTwice {
        /// The source of the first.
        first: Source,
        /// The source of the second.
        second: Source,
        /// The second, as written.
        name: String,
    },
    /// Two listening addresses would take the same clients.
    ListenersClash {
        /// The option that asks for the second address.
        source: Source,
        /// The second address.
        address: SocketAddr,
        /// The first address.
        held: SocketAddr,
    },
    /// A listener with TLS has no certificate.
    TlsWithoutCertificate {
        /// The option that asks for TLS.
        source: Source,
        /// The address.
        address: SocketAddr,
    },
    /// No listener has TLS, so there is no URL under https to redirect to.
    RedirectWithoutTls {
        /// The source of the option for redirects.
        source: Source,
    },
    /// The demo brings its own backends.
    DemoWithBackends {
        /// The source of the demo option.
        demo: Source,
        /// The source of the first backend.
        backend: Source,
    },
    /// The options about probes contradict each other, or the backends.
    Probe(probes::Error),
    /// One process has no master that could watch it.
    WatchdogInOneProcess {
        /// The source of the watchdog option.
        source: Source,
    },
    /// The options for TLS with clients contradict each other.
    Tls(TlsError),
    /// The cookie of sessions.
    Sticky(StickyError),
    /// One process has no workers.
    WorkersInOneProcess {
        /// The source of the number of workers.
        source: Source,
        /// The number of workers.
        workers: u32,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A name in a spec has no control characters, and a bounded length.
            Error::BackendTwice { first, second, name } => {
                write!(f, "{second} '{name}': the same backend as at {}; accepted: each once", first.place())
            }
            Error::ListenersClash { source, address, held } => write!(
                f,
                "{source} '{address}': clients connect there, at {held}; accepted: another port, or another address"
            ),
            Error::TlsWithoutCertificate { source, address } => write!(
                f,
                "{source} '{address}': tls needs a certificate; accepted: --tls-cert and --tls-key, --tls-dev, or no tls"
            ),
            Error::RedirectWithoutTls { source } => write!(
                f,
                "{source}: nothing is served under https; accepted: off, or a certificate (--tls-cert, --tls-dev)"
            ),
            Error::DemoWithBackends { demo, backend } => write!(
                f,
                "{} and {} are contradictory, as the demo starts its own backends; accepted: one of them",
                demo.place(),
                backend.place()
            ),
            Error::Probe(error) => error.fmt(f),
            Error::WatchdogInOneProcess { source } => {
                write!(f, "{source}: contradicts mode sp, which has no master that watches; accepted: off, or mode mp")
            }
            Error::Tls(error) => error.fmt(f),
            Error::Sticky(error) => error.fmt(f),
            Error::WorkersInOneProcess { source, workers } => {
                write!(f, "{source} '{workers}': contradicts mode sp, which is one process; accepted: 1, or mode mp")
            }
        }
    }
}

impl std::error::Error for Error {}

/// Makes a configuration from the options, or returns all errors.
pub fn resolve(options: Options) -> Result<Config, Vec<Error>> {
    let errors = contradictions(&options);
    if !errors.is_empty() {
        return Err(errors);
    }
    let (timeouts, listening, tls) = (timeouts(&options), listening(&options), Tls::of(&options));
    let sticky = Sticky::of(&options);
    let demo = or(options.demo, false);
    let (strategy, hash_key) = or(options.strategy, (Strategy::default(), None));
    let check = or(options.health_check, HealthCheck::Http);
    let default_backends = options.backends.is_empty() && !demo && !options.no_default_backends;
    let mut backends: Vec<Backend> = options.backends.into_iter().map(|given| given.value).collect();
    if default_backends || demo {
        let ports = if demo { [0; 2] } else { DEFAULT_BACKEND_PORTS };
        backends.extend(ports.map(|port| Backend::at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))));
    }
    Ok(Config {
        listen: listening.into_iter().map(|(listen, _)| listen).collect(),
        tls,
        backends,
        default_backends,
        workers: options.workers.map(|given| given.value),
        strategy,
        hash_key,
        sticky,
        sticky_key: options.sticky_key.map(|given| given.value),
        loglevel: or(options.loglevel, Level::Info),
        trace: or(options.trace, false),
        mode: or(options.mode, DEFAULT_MODE),
        demo,
        timeouts,
        max_connections: options.max_connections.map(|given| given.value),
        host_header_given: options.host_header.is_some(),
        host_header: or(options.host_header, HostHeader::Preserve),
        trust: options.trust.iter().map(|given| given.value).collect(),
        via: options.via.map(|given| given.value),
        request_ids: or(options.request_id, true),
        user: options.user.map(|given| given.value),
        ca_file: options.ca_file.map(|given| given.value),
        insecure: or(options.insecure, false),
        tls_trace: or(options.tls_trace, false),
        health: Health {
            check,
            status: or(options.health_status, passing_statuses(options.health_path.is_some())),
            path: or(options.health_path, "/".into()),
            service: options.health_service,
            host: options.health_host.map(|given| given.value),
            interval_us: match check {
                HealthCheck::Off => 0,
                _ => or(options.health_interval_us, DEFAULT_HEALTH_INTERVAL_US),
            },
            timeout_us: or(options.health_timeout_us, DEFAULT_HEALTH_TIMEOUT_US),
            fails: or(options.health_fails, DEFAULT_HEALTH_FAILS),
            passes: or(options.health_passes, DEFAULT_HEALTH_PASSES),
            count_5xx: or(options.health_5xx, false),
        },
        slow_start_us: or(options.slow_start_us, 0),
        drain_delay_us: or(options.drain_delay_us, 0),
        watchdog_us: or(options.watchdog_us, DEFAULT_WATCHDOG_US),
        retry_percent: or(options.retry_percent, DEFAULT_RETRY_PERCENT),
        metrics_path: or(options.metrics_path, Some(DEFAULT_METRICS_PATH.into())),
        metrics_detail: or(options.metrics_detail, Detail::default()),
        check: or(options.check, false),
        file: options.config.map(|given| given.value),
        changed: options.settings.into_iter().filter(is_changed).collect(),
    })
}

/// Without a path of the user's, any answer shows that the backend serves: many answer 401 or 404 at `/`.
fn passing_statuses(path_is_given: bool) -> Statuses {
    Statuses::range(200, if path_is_given { 399 } else { 499 })
}

const DEFAULT_MODE: Mode = if cfg!(target_os = "linux") { Mode::Mp } else { Mode::Sp };

fn timeouts(options: &Options) -> Timeouts {
    let or = |given: &Option<Given<u64>>, default_us| given.as_ref().map_or(default_us, |given| given.value);
    Timeouts {
        connect_us: or(&options.connect_us, DEFAULT_CONNECT_US),
        request_us: or(&options.request_us, DEFAULT_REQUEST_US),
        response_us: or(&options.response_us, DEFAULT_RESPONSE_US),
        idle_us: or(&options.idle_us, DEFAULT_IDLE_US),
        half_close_us: or(&options.half_close_us, DEFAULT_HALF_CLOSE_US),
        drain_us: or(&options.drain_us, DEFAULT_DRAIN_US),
        drain_idle_us: or(&options.drain_idle_us, DEFAULT_DRAIN_IDLE_US),
    }
}

fn or<T>(given: Option<Given<T>>, default: T) -> T {
    given.map_or(default, |given| given.value)
}

/// True if the options give a certificate for clients.
fn has_certificate(options: &Options) -> bool {
    Tls::of(options).has_certificate()
}

/// The listening addresses, each with the option that asks for it. The first one is there without any option.
fn listening(options: &Options) -> Vec<(Listen, Option<Source>)> {
    let host = options.host.as_ref().map_or(Ipv4Addr::UNSPECIFIED.into(), |given| given.value);
    let address = SocketAddr::new(host, options.port.as_ref().map_or(DEFAULT_PORT, |given| given.value));
    let first = Listen { tls: has_certificate(options), ..Listen::plain(address, Purpose::Traffic) };
    let mut all = vec![(first, None)];
    for Given { value, source } in &options.listen {
        let (address, purpose) = (value.address(host), Purpose::Traffic);
        let listen = Listen { address, purpose, tls: value.tls, proxy_header: value.proxy_header };
        all.push((listen, Some(source.clone())));
    }
    if let Some(Given { value: Some(port), source }) = &options.http_redirect {
        let to_port = https_port(all.iter().map(|(listen, _)| listen)).unwrap_or_default();
        let listen = Listen::plain(SocketAddr::new(host, *port), Purpose::Redirect { to_port });
        all.push((listen, Some(source.clone())));
    }
    if let Some(Given { value: Some(address), source }) = &options.admin {
        all.push((Listen::plain(*address, Purpose::Admin), Some(source.clone())));
    }
    all
}

/// True if a setting must be reported. A user who gives `--check` knows of it.
fn is_changed(setting: &Setting) -> bool {
    setting.name != "check" && !FLAGS.iter().any(|flag| flag.long == setting.name && flag.is_default(&setting.value))
}

/// Finds contradictions between individually valid options.
fn contradictions(options: &Options) -> Vec<Error> {
    let mut errors: Vec<Error> = tls::contradictions(options).into_iter().map(Error::Tls).collect();
    errors.extend(sticky::contradictions(options).into_iter().map(Error::Sticky));
    let demo = options.demo.as_ref().filter(|given| given.value);
    if let (Some(demo), Some(backend)) = (demo, options.backends.first()) {
        errors.push(Error::DemoWithBackends { demo: demo.source.clone(), backend: backend.source.clone() });
    }
    let mode = options.mode.as_ref().map_or(DEFAULT_MODE, |given| given.value);
    if let (Mode::Sp, Some(Given { value: workers @ 2.., source })) = (mode, &options.workers) {
        errors.push(Error::WorkersInOneProcess { source: source.clone(), workers: *workers });
    }
    errors.extend(probes::contradictions(options).into_iter().map(Error::Probe));
    if let (Mode::Sp, Some(Given { value: 1.., source })) = (mode, &options.watchdog_us) {
        errors.push(Error::WatchdogInOneProcess { source: source.clone() });
    }
    let mut before: Vec<SocketAddr> = Vec::new();
    let listening = listening(options);
    if let Some(Given { value: Some(_), source }) = &options.http_redirect
        && https_port(listening.iter().map(|(listen, _)| listen)).is_none()
    {
        errors.push(Error::RedirectWithoutTls { source: source.clone() });
    }
    for (Listen { address, tls, .. }, source) in listening {
        if let Some(source) = source.clone().filter(|_| tls && !has_certificate(options)) {
            errors.push(Error::TlsWithoutCertificate { source, address });
        }
        if let (Some(source), Some(&held)) = (source, before.iter().find(|&&held| clash(address, held))) {
            errors.push(Error::ListenersClash { source, address, held });
        }
        before.push(address);
    }
    let mut places = BTreeMap::new();
    for Given { value: spec, source } in &options.backends {
        match places.get(&place(&spec.target)) {
            None => drop(places.insert(place(&spec.target), source)),
            Some(&first) => errors.push(Error::BackendTwice {
                first: first.clone(),
                second: source.clone(),
                name: spec.name.clone(),
            }),
        }
    }
    errors
}

/// True if two listeners would accept the same clients. `[::]` also accepts IPv4.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let takes = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || takes(a.ip(), b.ip()) || takes(b.ip(), a.ip()))
}

/// A key that is equal for all notations of one address. Case is ignored in names.
fn place(target: &Target) -> String {
    match target {
        Target::Tcp(Host::Ip(ip), port) => SocketAddr::new(*ip, *port).to_string(),
        Target::Tcp(Host::Name(name), port) => format!("{}:{port}", name.to_ascii_lowercase()),
        Target::Unix(path) => format!("unix:{}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Address, Member, Plan, keep_fixed};
    use super::*;
    use crate::args::flags::Preset;
    use crate::args::{Command, parse};
    use std::ffi::OsString;

    fn options(line: &str) -> Options {
        match parse(line.split_whitespace().map(OsString::from), &|_| None) {
            Ok(Command::Run(options)) => options,
            got => panic!("{line}: {got:?}"),
        }
    }

    fn config(line: &str) -> Config {
        resolve(options(line)).expect(line)
    }

    fn refused(line: &str) -> Vec<String> {
        resolve(options(line)).expect_err(line).iter().map(Error::to_string).collect()
    }

    fn names(line: &str) -> Vec<String> {
        config(line).backends.into_iter().map(|backend| backend.name).collect()
    }

    #[test]
    fn nothing_given_makes_a_whole_configuration() {
        let config = config("");
        let traffic = Listen::plain("0.0.0.0:8080".parse().unwrap(), Purpose::Traffic);
        assert_eq!(config.listen, [traffic]);
        assert!(config.default_backends && !config.demo && !config.trace && !config.check);
        assert_eq!(names(""), ["127.0.0.1:9001", "127.0.0.1:9002"]);
        assert_eq!((config.workers, config.max_connections, config.via, config.user), (None, None, None, None));
        assert_eq!((config.file, config.changed), (None, vec![]));
    }

    #[test]
    fn the_defaults_told_are_those_filled_in() {
        let mut line = String::new();
        for flag in FLAGS {
            if let Preset::Value(text) = flag.default {
                line += &format!("--{} {text} ", flag.long);
            }
        }
        assert_eq!(config(&line), config(""));
        let told = FLAGS.iter().find(|flag| flag.long == "backend").unwrap().default;
        assert_eq!(told, Preset::Told("127.0.0.1:9001 and 127.0.0.1:9002"));
        assert_eq!(names("").join(" and "), told.text());
    }

    #[test]
    fn given_options_are_in_the_configuration() {
        let config = config(
            "-p 0 --host [::] -b 10.0.0.1:80,weight=3,backup,max=9 -w 2 -s random -l warn -t --idle-timeout 1s \
             --user nobody --max-connections 9 --host-header backend --trust 10.0.0.0/8 --via edge --health-path /up \
             --health-interval off --health-timeout 1s --health-fails 7 --health-passes 8 --health-5xx \
             --slow-start 1m --retry-budget 0 --admin 9100 --check -c lb.json",
        );
        assert_eq!(config.address(Purpose::Traffic), Some("[::]:0".parse().unwrap()));
        let backend = &config.backends[0];
        assert_eq!((backend.name.as_str(), backend.weight, backend.backup, backend.max), ("10.0.0.1:80", 3, true, 9));
        assert!(!config.default_backends && config.trace && config.check);
        assert_eq!((config.workers, config.max_connections), (Some(2), Some(9)));
        assert_eq!((config.strategy, config.loglevel), (Strategy::named("random").unwrap(), Level::Warn));
        assert_eq!((config.timeouts.idle_us, config.timeouts.drain_us), (1_000_000, 25_000_000));
        assert_eq!(config.host_header, HostHeader::Backend);
        assert!(config.trust[0].contains(Ipv4Addr::new(10, 1, 1, 1).into()));
        assert_eq!((config.via.as_deref(), config.user.as_deref()), (Some("edge"), Some("nobody")));
        let path = "/up".to_owned();
        let (check, status, host) = (HealthCheck::Http, Statuses::range(200, 399), None);
        let service = String::new();
        let (interval_us, timeout_us) = (0, 1_000_000);
        let health = Health {
            check,
            path,
            service,
            status,
            host,
            interval_us,
            timeout_us,
            fails: 7,
            passes: 8,
            count_5xx: true,
        };
        assert_eq!(config.health, health);
        assert_eq!((config.slow_start_us, config.retry_percent), (60_000_000, 0));
        assert_eq!(config.address(Purpose::Admin), Some("127.0.0.1:9100".parse().unwrap()));
        assert_eq!(config.file, Some("lb.json".into()));
    }

    #[test]
    fn settings_that_differ_from_their_defaults_are_kept_with_their_sources() {
        let changed = config("--check -p 8080 --idle-timeout 75000ms -s random -t -b a:1,weight=2 -b b:1").changed;
        let told: Vec<String> =
            changed.iter().map(|setting| format!("{}={} {}", setting.name, setting.value, setting.source)).collect();
        assert_eq!(
            told,
            [
                "strategy=random --strategy",
                "trace=on --trace",
                "backend=a:1,weight=2 --backend",
                "backend=b:1 --backend"
            ]
        );
    }

    #[test]
    fn a_backend_s_own_host_is_as_written() {
        let config = config("-b http://api:81,weight=2 -b unix:/run/s");
        let own: Vec<&str> = config.backends.iter().map(Backend::authority).collect();
        assert_eq!(own, ["api:81", "localhost"]);
    }

    #[test]
    fn the_demo_has_two_backends_of_its_own_and_takes_no_others() {
        let config = config("--demo");
        assert!(config.demo && !config.default_backends);
        assert_eq!(names("--demo"), ["127.0.0.1:0", "127.0.0.1:0"]);
        let refused = refused("-b 10.0.0.1:80 --demo");
        assert!(refused[0].starts_with("--demo and --backend are contradictory"), "{refused:?}");
    }

    #[test]
    fn a_probe_passes_below_500_unless_a_path_or_statuses_are_given() {
        let health = |line: &str| config(line).health;
        let status = |line: &str| health(line).status.to_string();
        assert_eq!(status(""), "200-499");
        assert_eq!(status("--health-path /"), "200-399");
        assert_eq!(status("--health-path /up --health-status 200,401"), "200,401");
        assert_eq!(status("--health-status 200-204"), "200-204");
        assert_eq!(health("--health-host a.test:1").host.as_deref(), Some("a.test:1"));
        assert_eq!(health("--health-check off --health-path /up").interval_us, 0);
        let tcp = health("--health-check tcp");
        assert_eq!((tcp.check, tcp.interval_us), (HealthCheck::Tcp, DEFAULT_HEALTH_INTERVAL_US));
        for other in ["--health-path /up", "--health-status 200", "--health-host a"] {
            let refused = refused(&format!("--health-check tcp {other}"));
            assert!(refused[0].contains("has no effect with --health-check 'tcp'"), "{refused:?}");
        }
        let grpc = health("--health-check grpc:a.B --health-host x -b h2c://a:1 -b https://b:1");
        assert_eq!((grpc.check, grpc.service.as_str()), (HealthCheck::Grpc, "a.B"));
        for (line, text) in [
            ("-b h2c://a:1 --health-path /up", "--health-path has no effect with --health-check 'grpc'"),
            ("-b h2c://a:1 --health-status 200", "--health-status has no effect with"),
            ("-b h2c://a:1 -b b:1", "--backend 'b:1': speaks HTTP/1.1, and --health-check 'grpc' needs HTTP/2"),
            ("", "the default backends: speaks HTTP/1.1"),
        ] {
            let refused = refused(&format!("--health-check grpc {line}"));
            assert!(refused[0].contains(text), "{refused:?}");
        }
    }

    #[test]
    fn one_process_has_no_workers() {
        config("-m sp -w 1");
        let refused = refused("-m sp -w 2");
        assert!(refused[0].starts_with("--workers '2': contradicts mode sp"), "{refused:?}");
    }

    #[test]
    fn a_backend_stands_once_however_it_is_written() {
        config("-b a:1 -b a:2 -b b:1 -b unix:/a -b unix:/b");
        let twice = "--backend 'A:1': the same backend as at --backend; accepted: each once";
        assert_eq!(refused("-b a:1 -b http://A:1,weight=2"), [twice]);
        assert_eq!(refused("-b [::1]:1 -b [0:0::1]:01 -b unix:/a -b unix:/a").len(), 2);
    }

    #[test]
    fn the_admin_port_is_not_where_clients_connect() {
        for line in ["--admin 8080", "-p 1 --host 127.0.0.1 --admin 0.0.0.0:1", "--host [::] --admin 127.0.0.1:8080"] {
            let refused = refused(line);
            assert!(refused[0].starts_with("--admin '") && refused[0].contains("another port"), "{refused:?}");
        }
        for line in ["--admin 8081", "-p 0 --admin 0", "--admin [::1]:8080", "--host 127.0.0.1 --admin 127.0.0.2:8080"]
        {
            config(line);
        }
    }

    #[test]
    fn every_contradiction_is_told() {
        assert_eq!(refused("--demo -b a:1 -b a:1 -m sp -w 2 --admin 8080").len(), 4);
    }

    #[test]
    fn settings_that_need_new_listeners_or_processes_are_fixed() {
        let same = "-b b:2 -s random -l debug -t --idle-timeout 1s --via x --trust ::1 --health-fails 9 --slow-start 1s \
                    --drain-idle 1s --drain-delay 1s --watchdog off --retry-budget 1 --host-header backend";
        let kept = |line: &str| {
            let mut config = config(line);
            (keep_fixed(&mut config, &self::config("")), config)
        };
        assert_eq!(kept(same), (vec![], config(same)));
        let other =
            "-p 1 --host ::1 --max-connections 1 --admin 2 -w 1 -m sp --user nobody --ca-file /a -k --tls-trace";
        let (names, config) = kept(other);
        let expected = ["port", "host", "admin", "max-connections", "workers", "mode", "user", "ca-file", "insecure"];
        assert_eq!(names, [&expected[..], &["tls-trace"]].concat());
        assert_eq!(Config { changed: Vec::new(), ..config }, Config { changed: Vec::new(), ..self::config("") });
        assert_eq!(kept("--demo").0, ["demo"]);
    }

    /// Valid values of options that differ from their defaults.
    const OTHERS: &[&str] = &[
        "--port 1",
        "--host ::1",
        "--max-connections 9",
        "--listen 9,proxy",
        "--admin 9",
        "--tls-cert a",
        "--tls-dev",
        "--tls-min 1.3 --tls-cert a",
        "--tls-strict-sni --tls-cert a",
        "--tls-client-optional --tls-client-ca a --tls-cert a",
        "--hsts 1h --tls-cert a",
        "--metrics-path /m",
        "--metrics-detail address",
        "--backend b:2,weight=2,backup,max=3",
        "--strategy random",
        "--strategy hash:cookie:id",
        "--sticky cookie",
        "--sticky-attributes Secure --sticky cookie",
        "--retry-budget 1",
        "--slow-start 1s",
        "--demo",
        "--ca-file /a",
        "--insecure",
        "--health-check tcp",
        "--health-path /up",
        "--health-status 200",
        "--health-host a",
        "--health-interval 1s",
        "--health-timeout 1s",
        "--health-fails 9",
        "--health-passes 9",
        "--health-5xx",
        "--host-header backend",
        "--trust ::1",
        "--via x",
        "--request-id off",
        "--connect-timeout 1s",
        "--request-timeout 1s",
        "--response-timeout 1s",
        "--idle-timeout 1s",
        "--half-close 1s",
        "--drain-timeout 1s",
        "--drain-idle 1s",
        "--drain-delay 1s",
        "--watchdog off",
        "--workers 9",
        "--mode sp",
        "--user nobody",
        "--loglevel debug",
        "--trace",
        "--tls-trace",
        "--config a.json",
    ];

    /// The plan of a configuration that has been taken up in place of the default one.
    fn plan(mut config: Config) -> (Vec<&'static str>, Plan) {
        let fixed = keep_fixed(&mut config, &self::config(""));
        let at = |backend: &Backend| backend.address().unwrap_or(Address::Unix("/".into()));
        let members = config.backends.iter().map(|backend| Member::new(backend, at(backend), false)).collect();
        (fixed, Plan::new(&config, 0, members, Vec::new()))
    }

    #[test]
    fn every_option_is_told_to_be_fixed_or_reaches_the_workers() {
        let (_, before) = plan(config(""));
        // The files of these reach the workers as secrets, and a redirect needs another option, which is not fixed.
        let others =
            ["check", "help", "version", "tls-key", "tls-client-ca", "tls-ticket-key", "sticky-key", "http-redirect"];
        for flag in FLAGS.iter().filter(|flag| !others.contains(&flag.long)) {
            let named = |line: &&&str| line.split(' ').next() == Some(&format!("--{}", flag.long));
            let line = OTHERS.iter().find(named).unwrap_or_else(|| panic!("--{} is not in the table", flag.long));
            let (fixed, plan) = plan(config(line));
            // The path of the followed file is on the command line only.
            let is_fixed = fixed == [flag.long] || flag.long == "config";
            assert_eq!(is_fixed, plan == before, "{line}");
            assert_eq!(Plan::decode(&plan.encode()), Some(plan), "{line}");
        }
    }
}
