//! Nothing is lost: clients of every kind continue while the program is upgraded, reconfigured and drained, and
//! while its workers are killed. Every request without a complete and correct response is counted.
//!
//! The pauses between disturbances let clients make progress. Each test runs for a few seconds, or for the
//! minutes in `SOAK` (`make soak`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::RootCertStore;

use crate::support::certificate::{Authority, Issued, Spec};
use crate::support::traffic::{self, Dial, FRONT, KINDS, Kind, Link, Tally, Target, Traffic};
use crate::support::{
    Backend, Balancer, Directory, Exit, Mode, Pid, Random, anonymous_kib, children, clients_of, modes,
    open_descriptors, resident_kib, send_signal, stop, wait_until,
};

/// The allowed growth from the first to the last of many programs, in descriptors and in KiB.
const DESCRIPTORS_MORE: usize = 2;
const KIB_MORE: u64 = 256;

/// The duration of the disturbances.
fn span() -> Duration {
    let minutes = std::env::var("SOAK").ok().and_then(|minutes| minutes.parse::<f64>().ok());
    minutes.map_or(Duration::from_millis(2500), |minutes| Duration::from_secs_f64(minutes * 60.0))
}

/// The number of clients of each kind.
fn each() -> usize {
    if std::env::var_os("SOAK").is_some() { 3 } else { 1 }
}

/// All kinds of clients.
fn kinds() -> Vec<Kind> {
    [&KINDS[..], &FRONT].concat()
}

fn seed() -> u64 {
    std::env::var("SOAK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// A balancer with a configuration file and a certificate, and the alternating contents of the file.
struct Scene {
    backends: Vec<Backend>,
    directory: Directory,
    balancer: Balancer,
    authority: Authority,
    /// The CAs of clients.
    clients: [Authority; 2],
    target: Target,
    upgrades: usize,
    reloads: usize,
    certificates: usize,
    hang_ups: usize,
    kills: usize,
    /// The ports of clients that were connected to a worker when it was killed.
    killed: BTreeSet<u16>,
}

impl Scene {
    fn new(mode: Mode) -> Scene {
        Scene::with(mode, &[])
    }

    /// A balancer that demands a certificate of its clients over TLS.
    fn with_client_ca(mode: Mode) -> Scene {
        Scene::with(mode, &["--tls-client-ca", "clients.pem"])
    }

    fn with(mode: Mode, options: &[&str]) -> Scene {
        let backends: Vec<Backend> = (0..4).map(|_| traffic::backend()).collect();
        let directory = Directory::new();
        let authority = Authority::new("authority");
        let clients = ["clients", "others"].map(Authority::new);
        let own = clients[0].issue(&Spec::new("client"));
        directory.put("clients.pem", &clients[0].pem());
        put_pair(&directory, &authority);
        let path = directory.put("lb.json", &file(&backends[..2]));
        let path_of = |name: &&str| match name.ends_with("pem") {
            true => directory.file(name).display().to_string(),
            false => (*name).to_string(),
        };
        let args = ["--health-interval", "200ms", "--listen", "0", "--tls-cert", "both.pem"];
        let args: Vec<String> = args.iter().chain(options).map(path_of).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let balancer = Balancer::with_file(mode, &path, &args);
        let [secure, plain] = [0, 1].map(|nth| balancer.listener(nth));
        let balancer = balancer.through(plain);
        let mut roots = RootCertStore::empty();
        roots.add(authority.der.clone().into()).expect("a CA");
        let target = Target { plain, secure: Some(secure), roots, own: Some(own).filter(|_| !options.is_empty()) };
        let [upgrades, reloads, certificates, hang_ups, kills] = [0; 5];
        let killed = BTreeSet::new();
        Scene {
            backends,
            directory,
            balancer,
            authority,
            clients,
            target,
            upgrades,
            reloads,
            certificates,
            hang_ups,
            kills,
            killed,
        }
    }

    /// Upgrades, and waits for the end of the upgrade.
    fn upgrade(&mut self) {
        self.upgrades += 1;
        self.balancer.signal(libc::SIGUSR2);
        let done = format!("(generation {})", self.upgrades);
        self.balancer.wait_for_log(&done);
    }

    /// Switches to the other two backends.
    fn reload(&mut self) {
        self.reloads += 1;
        let at = self.reloads % 2 * 2;
        self.directory.put("lb.json", &file(&self.backends[at..at + 2]));
    }

    /// Replaces the certificate. Returns the time from which on each handshake gets it.
    fn change_certificate(&mut self) -> Duration {
        self.certificates += 1;
        let issued = put_pair(&self.directory, &self.authority);
        let begun = Instant::now();
        let mut dial = Dial::new(Arc::new(self.target.clone()), Link::Fresh, b"http/1.1");
        let mut taken = Duration::ZERO;
        // A worker may accept one more client in the turn in which it has not seen the certificate yet.
        wait_until("each worker serves another certificate", || {
            let served = |dial: &mut Dial| {
                dial.connect().expect("a handshake succeeds");
                dial.certificate == issued.der
            };
            taken = begun.elapsed();
            (0..8).all(|_| served(&mut dial))
        });
        taken
    }

    /// Adds a CA of clients. Returns the time until its clients are accepted.
    fn change_client_ca(&mut self) -> Duration {
        let [first, second] = &self.clients;
        let own = second.issue(&Spec::new("other"));
        self.directory.put("clients.pem", &format!("{}{}", first.pem(), second.pem()));
        let begun = Instant::now();
        let target = Arc::new(Target { own: Some(own), ..self.target.clone() });
        wait_until("clients of another CA are accepted", || {
            let wire = Dial::new(target.clone(), Link::Fresh, b"http/1.1").connect();
            wire.is_ok_and(|mut wire| {
                let sent = wire.try_send("GET /a/1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
                sent.is_ok() && wire.try_response("GET").is_ok()
            })
        });
        begun.elapsed()
    }

    /// Makes the program read the file again.
    fn hang_up(&mut self) {
        self.hang_ups += 1;
        self.balancer.signal(libc::SIGHUP);
    }

    /// Kills a worker, and records its clients.
    fn kill(&mut self, random: &mut Random) {
        let workers = self.balancer.workers();
        let worker = workers[random.below(workers.len())];
        // Stopped first, so that no client connects between the record and the end.
        stop(worker);
        for listener in [Some(self.target.plain), self.target.secure].into_iter().flatten() {
            self.killed.extend(clients_of(worker, listener.port()));
        }
        self.kills += usize::from(send_signal(worker, libc::SIGKILL));
    }

    /// Repeats a disturbance while clients continue, for the duration of a test and until there was enough of
    /// it. Returns the clients' results.
    fn disturb(&mut self, enough: impl Fn(&Scene) -> bool, mut disturbance: impl FnMut(&mut Scene)) -> Tally {
        let kinds = kinds();
        let traffic = Traffic::start(self.target.clone(), &kinds, each(), seed());
        traffic.wait_for_each_kind();
        let (begun, before) = (Instant::now(), traffic.completed());
        while begun.elapsed() < span() || !enough(self) {
            disturbance(self);
        }
        let tally = traffic.stop();
        let Scene { upgrades, reloads, certificates, hang_ups, kills, .. } = self;
        let (completed, lost, longest) = (tally.total(), tally.lost.len(), tally.longest);
        let Tally { again, resumed, unresumed, .. } = &tally;
        println!(
            "{completed} requests, {lost} lost, longest {longest:?}; {again} sent again over HTTP/2, {resumed} sessions \
             resumed, {unresumed} not; {upgrades} upgrades, {reloads} reloads, {certificates} certificates, {hang_ups} \
             hang-ups, {kills} workers killed"
        );
        for ((kind, before), &after) in kinds.iter().zip(before).zip(&tally.completed) {
            assert!(after > before, "{kind:?}: {after} requests of {completed}, {before} of them before it began");
        }
        tally
    }

    /// Fails the test if a request was lost that was not in progress in a killed worker.
    #[track_caller]
    fn assert_only_killed_workers_lost(&self, tally: &Tally) {
        let others = tally.lost.iter().filter(|loss| loss.port.is_none_or(|port| !self.killed.contains(&port)));
        let others: Vec<String> = others.map(ToString::to_string).collect();
        let (kills, connected) = (self.kills, self.killed.len());
        assert!(others.is_empty(), "{kills} kills with {connected} connections, and beside: {others:?}");
        assert_eq!(tally.unconnected(), 0, "{:?}", tally.lost);
        assert!(tally.lost.len() <= connected, "{kills} kills with {connected} connections: {:?}", tally.lost);
    }

    /// Upgrades without clients. Returns the open descriptors and the resident memory in KiB of the process that stays,
    /// and the anonymous memory of all processes in KiB.
    fn at_rest(&mut self, mode: Mode) -> (usize, u64, u64) {
        self.upgrade();
        let (pid, workers) = (self.balancer.pid(), if mode == Mode::Mp { 2 } else { 0 });
        wait_until("the workers of before have gone", || children(pid).len() == workers);
        // In sp, probes come and go.
        let seen = (0..100).map(|_| {
            thread::sleep(Duration::from_millis(3));
            open_descriptors(pid)
        });
        let all: BTreeSet<Pid> = self.balancer.serving().into_iter().chain([pid]).collect();
        (seen.min().unwrap_or(0), resident_kib(pid), all.into_iter().map(anonymous_kib).sum())
    }
}

/// Writes another certificate and its key into one file.
fn put_pair(directory: &Directory, authority: &Authority) -> Issued {
    let issued = authority.issue(&Spec { names: &["localhost"], ..Spec::new("localhost") });
    directory.put("both.pem", &format!("{}{}", issued.pem(), issued.key_pem()));
    issued
}

fn file(backends: &[Backend]) -> String {
    let specs: Vec<String> = backends.iter().map(|backend| format!("\"{}\"", backend.spec())).collect();
    format!("{{\"backends\": [{}]}}", specs.join(", "))
}

#[test]
fn upgrades_lose_nothing_and_leave_nothing_behind() {
    for mode in modes() {
        let mut scene = Scene::new(mode);
        let first = scene.at_rest(mode);
        let tally = scene.disturb(
            |scene| scene.upgrades >= 6,
            |scene| {
                scene.upgrade();
                thread::sleep(Duration::from_millis(200));
            },
        );
        tally.assert_nothing_lost(&format!("{mode:?}, {} upgrades", scene.upgrades));
        // The old programs have gone, and the last one has no more than the first had.
        let last = scene.at_rest(mode);
        assert_eq!(tally.unresumed, 0, "{mode:?}: sessions of {}", tally.resumed);
        let story = format!("{mode:?}, {} upgrades: {first:?} descriptors and KiB, then {last:?}", scene.upgrades);
        println!("{story}");
        assert!(last.0 <= first.0 + DESCRIPTORS_MORE && last.1 <= first.1 + KIB_MORE, "{story}");
        assert!(last.2 <= first.2 + KIB_MORE, "{story}");
        assert_eq!(scene.balancer.metric("zzz_lb_upgrade_generation", ""), scene.upgrades as u64);
        assert_eq!(scene.balancer.stop(), Exit::Status(0), "{story}");
    }
}

#[test]
fn reloads_between_upgrades_lose_nothing() {
    for mode in modes() {
        let mut scene = Scene::new(mode);
        let tally = scene.disturb(
            |scene| scene.upgrades >= 3,
            |scene| {
                for _ in 0..4 {
                    scene.reload();
                    thread::sleep(Duration::from_millis(50));
                }
                scene.upgrade();
            },
        );
        tally.assert_nothing_lost(&format!("{mode:?}, {} upgrades, {} reloads", scene.upgrades, scene.reloads));
    }
}

/// The number of a disturbance in `every_change_of_the_front_door_loses_nothing`.
fn times(long: usize, short: usize) -> usize {
    if std::env::var_os("SOAK").is_some() { long } else { short }
}

#[test]
fn every_change_of_the_front_door_loses_nothing() {
    let (upgrades, reloads, certificates) = (times(100, 3), times(100, 3), times(20, 3));
    for mode in modes() {
        let mut scene = Scene::with_client_ca(mode);
        let first = scene.at_rest(mode);
        let (mut slowest, mut client_ca) = (Duration::ZERO, None);
        let tally = scene.disturb(
            |scene| scene.upgrades > upgrades && scene.reloads >= reloads && scene.certificates >= certificates,
            |scene| {
                scene.reload();
                scene.upgrade();
                if scene.certificates < certificates && scene.upgrades * certificates >= scene.certificates * upgrades {
                    slowest = slowest.max(scene.change_certificate());
                }
                if scene.upgrades * 2 > upgrades && client_ca.is_none() {
                    client_ca = Some(scene.change_client_ca());
                }
                thread::sleep(Duration::from_millis(200));
            },
        );
        println!("{mode:?}: a certificate is served after at most {slowest:?}, clients of a CA after {client_ca:?}");
        tally.assert_nothing_lost(&format!("{mode:?}, {} upgrades", scene.upgrades));
        // A session ends with its certificate and with its CAs of clients.
        let resumers = FRONT.iter().filter(|kind| matches!(kind.link, Link::Resumed | Link::Resumed12)).count();
        let most = (scene.certificates + 1) * resumers * each();
        assert!(tally.unresumed <= most as u64, "{mode:?}: {} of at most {most}", tally.unresumed);
        // A second, and the time that a busy machine takes for handshakes.
        assert!(slowest.max(client_ca.expect("it was changed")) < Duration::from_secs(5), "{mode:?}: {slowest:?}");
        let last = scene.at_rest(mode);
        let story = format!("{mode:?}, {} upgrades: {first:?} descriptors and KiB, then {last:?}", scene.upgrades);
        println!("{story}");
        // The slots of removed backends rest after an upgrade, so each reload takes others, up to `SLOTS`.
        let more = KIB_MORE + scene.reloads as u64 * 3 / 2;
        assert!(last.0 <= first.0 + DESCRIPTORS_MORE && last.1 <= first.1 + more, "{story}");
        assert!(last.2 <= first.2 + more, "{story}");
    }
}

#[test]
fn a_killed_worker_takes_its_own_requests_along_and_no_others() {
    let mut scene = Scene::new(Mode::Mp);
    let (mut random, mut slowest) = (Random::new(seed()), Duration::ZERO);
    let tally = scene.disturb(
        |scene| scene.kills >= 2,
        |scene| {
            scene.kill(&mut random);
            // The next client waits for the replacement at worst, because the listener was not closed.
            let begun = Instant::now();
            (0..8).for_each(|_| drop(scene.balancer.connect().get("/a/1")));
            slowest = slowest.max(begun.elapsed());
            // The worker must live long enough not to count as a crash at the start.
            thread::sleep(Duration::from_millis(1100));
        },
    );
    println!("the slowest eight requests right after a kill took {slowest:?}");
    scene.assert_only_killed_workers_lost(&tally);
}

/// The disturbances of `everything_at_random`.
#[derive(Clone, Copy)]
enum Disturbance {
    Reload,
    Upgrade,
    HangUp,
    Kill,
}

#[test]
fn random_disturbances_lose_only_requests_of_killed_workers() {
    let mut scene = Scene::new(Mode::Mp);
    let (mut random, mut deck) = (Random::new(seed() + 1), Vec::new());
    let tally = scene.disturb(
        |scene| scene.upgrades >= 3 && scene.reloads >= 10 && scene.hang_ups >= 1 && scene.kills >= 1,
        |scene| {
            if deck.is_empty() {
                deck.extend([[Disturbance::Reload; 14].as_slice(), &[Disturbance::Upgrade; 4]].concat());
                deck.extend([Disturbance::HangUp, Disturbance::Kill]);
            }
            match deck.swap_remove(random.below(deck.len())) {
                Disturbance::Reload => scene.reload(),
                Disturbance::Upgrade => scene.upgrade(),
                Disturbance::HangUp => scene.hang_up(),
                Disturbance::Kill => scene.kill(&mut random),
            }
            thread::sleep(Duration::from_millis(random.below(150) as u64));
        },
    );
    scene.assert_only_killed_workers_lost(&tally);
}

#[test]
fn requests_in_progress_are_finished_at_a_stop() {
    for mode in modes() {
        let mut scene = Scene::new(mode);
        let traffic = Traffic::start(scene.target.clone(), &kinds(), each(), seed());
        traffic.wait_for_each_kind();
        scene.balancer.signal(libc::SIGTERM);
        assert_eq!(scene.balancer.wait(), Exit::Status(0), "{mode:?}");
        let tally = traffic.stop();
        // The port is closed to later clients. Earlier ones are served.
        let cut: Vec<String> = tally
            .lost
            .iter()
            .filter(|loss| !matches!(loss.why, traffic::Why::Connect(_)))
            .map(ToString::to_string)
            .collect();
        assert!(cut.is_empty(), "{mode:?}: {cut:?}");
    }
}
