//! Nothing is lost: clients of every kind go on while the program is upgraded, reconfigured, drained,
//! and its workers are killed, and each request that got no whole and right answer is counted.
//!
//! Each test runs for a few seconds, or for the minutes that `SOAK` says (`make soak`).

use std::thread;
use std::time::{Duration, Instant};

use crate::support::traffic::{self, KINDS, Tally, Traffic};
use crate::support::{
    Backend, Balancer, Directory, Exit, Mode, Random, children, modes, open_descriptors, resident_kib, send_signal,
    wait_until,
};

/// How long a test disturbs.
fn span() -> Duration {
    let minutes = std::env::var("SOAK").ok().and_then(|minutes| minutes.parse::<f64>().ok());
    minutes.map_or(Duration::from_millis(2500), |minutes| Duration::from_secs_f64(minutes * 60.0))
}

/// How many clients there are of each kind.
fn each() -> usize {
    if std::env::var_os("SOAK").is_some() { 6 } else { 2 }
}

fn seed() -> u64 {
    std::env::var("SOAK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// A balancer that follows a file, and what is in the file by turns.
struct Scene {
    backends: Vec<Backend>,
    directory: Directory,
    balancer: Balancer,
    upgrades: usize,
    reloads: usize,
}

impl Scene {
    fn new(mode: Mode) -> Scene {
        let backends: Vec<Backend> = (0..4).map(|_| traffic::backend()).collect();
        let directory = Directory::new();
        let path = directory.put("lb.json", &file(&backends[..2]));
        let balancer = Balancer::with_file(mode, &path, &["--health-interval", "200ms"]);
        Scene { backends, directory, balancer, upgrades: 0, reloads: 0 }
    }

    /// Upgrades, and waits until that is done.
    fn upgrade(&mut self) {
        self.upgrades += 1;
        self.balancer.signal(libc::SIGUSR2);
        let done = format!("(generation {})", self.upgrades);
        self.balancer.wait_for_log(&done);
    }

    /// Has the other two backends serve.
    fn reload(&mut self) {
        self.reloads += 1;
        let at = self.reloads % 2 * 2;
        self.directory.put("lb.json", &file(&self.backends[at..at + 2]));
    }

    /// Runs a disturbance again and again while clients go on; what they saw.
    fn disturb(&mut self, mut disturbance: impl FnMut(&mut Scene)) -> Tally {
        let traffic = Traffic::start(self.balancer.address(), &KINDS, each(), seed());
        wait_until("every kind of client has begun", || traffic.completed() > 50);
        let begun = Instant::now();
        while begun.elapsed() < span() {
            disturbance(self);
        }
        let tally = traffic.stop();
        let Scene { upgrades, reloads, .. } = self;
        let (completed, lost, longest) = (tally.completed, tally.lost.len(), tally.longest);
        println!("{completed} requests, {lost} lost, longest {longest:?}; {upgrades} upgrades, {reloads} reloads");
        tally
    }
}

fn file(backends: &[Backend]) -> String {
    let specs: Vec<String> = backends.iter().map(|backend| format!("\"{}\"", backend.spec())).collect();
    format!("{{\"backends\": [{}]}}", specs.join(", "))
}

#[test]
fn upgrades_lose_nothing_and_leave_nothing_behind() {
    for mode in modes() {
        let mut scene = Scene::new(mode);
        let tally = scene.disturb(|scene| {
            scene.upgrade();
            thread::sleep(Duration::from_millis(300));
        });
        let story = format!("{mode:?}, {} upgrades", scene.upgrades);
        tally.assert_nothing_lost(&story);
        assert!(scene.upgrades >= 3, "{story}");
        // Those of before have gone, and the last has no more than the first had.
        let pid = scene.balancer.pid();
        let of_now = if mode == Mode::Mp { 2 } else { 0 };
        wait_until("the workers of before have gone", || children(pid).len() == of_now);
        assert_eq!(scene.balancer.metric("zzz_lb_upgrade_generation", ""), scene.upgrades as u64);
        let descriptors = open_descriptors(pid);
        assert!(descriptors < 60, "{story}: {descriptors} descriptors");
        let kib = resident_kib(pid);
        println!("{story}: then {descriptors} descriptors, {kib} KiB resident");
        assert!(kib < 32 * 1024, "{story}: {kib} KiB");
        assert_eq!(scene.balancer.stop(), Exit::Status(0), "{story}");
    }
}

#[test]
fn reloads_between_upgrades_lose_nothing() {
    for mode in modes() {
        let mut scene = Scene::new(mode);
        let tally = scene.disturb(|scene| {
            for _ in 0..4 {
                scene.reload();
                thread::sleep(Duration::from_millis(50));
            }
            scene.upgrade();
        });
        tally.assert_nothing_lost(&format!("{mode:?}, {} upgrades, {} reloads", scene.upgrades, scene.reloads));
        assert!(scene.upgrades >= 3);
    }
}

#[test]
fn a_killed_worker_takes_its_own_requests_along_and_no_others() {
    let mut scene = Scene::new(Mode::Mp);
    let (mut random, mut kills, mut slowest) = (Random::new(seed()), 0, Duration::ZERO);
    let tally = scene.disturb(|scene| {
        let workers = scene.balancer.workers();
        if let Some(&worker) = workers.get(random.below(workers.len().max(1))) {
            kills += usize::from(send_signal(worker, libc::SIGKILL));
            // Who comes next waits for the replacement at worst: its listener was not closed.
            let begun = Instant::now();
            (0..8).for_each(|_| drop(scene.balancer.connect().get("/a/1")));
            slowest = slowest.max(begun.elapsed());
        }
        // It lived long enough not to be taken for one that dies as it starts.
        thread::sleep(Duration::from_millis(1100));
    });
    println!("{kills} kills; the slowest eight requests right after one took {slowest:?}");
    assert_eq!(tally.unconnected(), 0, "after {kills} kills: {:?}", tally.lost);
    // A client has one request under way, and each kill ends at most that of every client.
    assert!(tally.lost.len() <= kills * each() * KINDS.len(), "{kills} kills: {:?}", tally.lost);
    assert!(kills > 0 && tally.completed > 100);
}

#[test]
fn everything_at_random_loses_only_what_a_killed_worker_had() {
    let mut scene = Scene::new(Mode::Mp);
    let (mut random, mut kills) = (Random::new(seed() + 1), 0);
    let tally = scene.disturb(|scene| {
        match random.below(20) {
            0..4 => scene.upgrade(),
            4 => {
                let workers = scene.balancer.workers();
                if let Some(&worker) = workers.get(random.below(workers.len().max(1))) {
                    kills += usize::from(send_signal(worker, libc::SIGKILL));
                }
            }
            5 => scene.balancer.signal(libc::SIGHUP),
            _ => scene.reload(),
        }
        thread::sleep(Duration::from_millis(random.below(150) as u64));
    });
    assert_eq!(tally.unconnected(), 0, "{kills} kills: {:?}", tally.lost);
    assert!(tally.lost.len() <= kills * each() * KINDS.len(), "{kills} kills: {:?}", tally.lost);
}

#[test]
fn what_has_begun_is_finished_when_told_to_stop() {
    for mode in modes() {
        let mut scene = Scene::new(mode);
        let traffic = Traffic::start(scene.balancer.address(), &KINDS, 2, seed());
        wait_until("every kind of client has begun", || traffic.completed() > 50);
        scene.balancer.signal(libc::SIGTERM);
        let begun = Instant::now();
        assert_eq!(scene.balancer.wait(), Exit::Status(0), "{mode:?}");
        assert!(begun.elapsed() < Duration::from_secs(25), "{mode:?}: {:?}", begun.elapsed());
        let tally = traffic.stop();
        // The port is closed to those who come later; who was there is served.
        let cut: Vec<String> = tally
            .lost
            .iter()
            .filter(|loss| !matches!(loss.why, traffic::Why::Connect(_)))
            .map(ToString::to_string)
            .collect();
        assert!(cut.is_empty(), "{mode:?}: {cut:?}");
    }
}
