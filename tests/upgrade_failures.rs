//! Upgrades that fail too late to be undone: after the process has become the new program. The old workers keep
//! serving.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use zzz_lb::shared::MAGIC;

use zzz_lb::limits::SLOTS;

use crate::support::traffic::{self, KINDS, Target, Traffic};
use crate::support::{
    Backend, Balancer, Directory, Exit, Mode, alive, children, command, modes, send_signal, wait_until,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_load_balancer");

/// Makes a shell leave three descriptors to the next program, regardless of the number that this process has
/// inherited: enough for its signals, but not for serving. The shell's own descriptor 10 is closed with it.
const THREE_DESCRIPTORS: &str = "n=3; free=0; while [ $free -lt 3 ]; do \
     [ $n != 10 ] && [ -e /proc/$$/fd/$n ] || free=$((free + 1)); n=$((n + 1)); done; ulimit -n $n";

/// Replaces the first listener by a file, which cannot be polled, so its worker fails.
const SPOIL: &str = "fd=${ZZZ_LB_HANDOVER#*/traffic:}; fd=${fd%%[/, ]*}; eval \"exec $fd<\\\"$0\\\"\"";

/// A balancer with a configuration file, and a program file that can be replaced.
struct Scene {
    directory: Directory,
    backends: Vec<Backend>,
    balancer: Balancer,
}

impl Scene {
    fn new(mode: Mode, args: &[&str]) -> Scene {
        let directory = Directory::new();
        let backends = vec![traffic::backend(), traffic::backend()];
        std::os::unix::fs::symlink(PROGRAM, directory.file("lb")).expect("a link can be made");
        let config = directory.put("lb.json", &config(&backends));
        let mut started = Command::new(directory.file("lb"));
        started.args(["--host", "127.0.0.1", "-p", "0", "-c"]).arg(config).args(match mode {
            Mode::Mp => ["-m", "mp", "-w2"],
            Mode::Sp => ["-m", "sp", "-w1"],
        });
        started.args(args).env_clear().envs(command(&[]).get_envs().filter_map(|(name, value)| Some((name, value?))));
        Scene { balancer: Balancer::spawn(started), directory, backends }
    }

    fn config(&self) -> PathBuf {
        self.directory.file("lb.json")
    }

    /// Installs a script as the program: with commands to run before the preflight, after its answer, and
    /// before the takeover.
    fn script(&self, before: &str, after: &str, takes_over: &str) {
        let text = format!(
            "#!/bin/sh\nif [ \"$ZZZ_LB_PREFLIGHT\" ]; then {before}\n{PROGRAM} \"$@\"; code=$?; {after}\nexit $code; fi\n\
             {takes_over}\nexec {PROGRAM} \"$@\"\n"
        );
        let path = self.directory.put("script", &text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it can be made a program");
        fs::rename(path, self.directory.file("lb")).expect("it can be renamed");
    }

    /// Upgrades, and waits for its failure. Clients do not notice.
    fn fail(&self, why: &str) {
        let before = self.balancer.workers();
        let traffic = Traffic::start(Target::plain(self.balancer.address()), &KINDS, 1, 1);
        wait_until("every kind of client has begun", || traffic.completed().iter().all(|&kind| kind > 0));
        self.balancer.signal(libc::SIGUSR2);
        // A worker that fails at its start is tried for 16 s.
        wait_until("it has begun", || self.balancer.log().contains("asking "));
        wait_until("new workers come or it has failed", || {
            self.balancer.workers().iter().any(|worker| !before.contains(worker)) || self.balancer.log().contains(why)
        });
        self.balancer.wait_for_log(why);
        let completed: u64 = traffic.completed().iter().sum();
        wait_until("clients go on", || traffic.completed().iter().sum::<u64>() > completed + 50);
        traffic.stop().assert_nothing_lost(why);
        if !before.is_empty() {
            wait_until("those of before are left", || self.balancer.workers() == before);
        }
    }

    /// Upgrades to the real program.
    fn upgrade(&self) {
        self.directory.put("lb.json", &config(&self.backends));
        let done = "upgrade: done: ";
        let times = self.balancer.log().matches(done).count();
        self.balancer.signal(libc::SIGUSR2);
        wait_until("it is upgraded", || self.balancer.log().matches(done).count() > times);
        assert!(self.balancer.get("/a/1").len() > 1);
    }
}

fn config(backends: &[Backend]) -> String {
    let specs: Vec<String> = backends.iter().map(|backend| format!("\"{}\"", backend.spec())).collect();
    format!("{{\"backends\": [{}]}}", specs.join(", "))
}

/// A writer may truncate the file just when the process becomes the new program.
#[test]
fn a_configuration_that_is_gone_after_the_preflight_loses_nothing() {
    for mode in modes() {
        let scene = Scene::new(mode, &[]);
        let pid = scene.balancer.pid();
        scene.script("", &format!(": > {}", scene.config().display()), "");
        scene.fail("upgrade: refused: the new program cannot start: ");
        assert_eq!(scene.balancer.metric("zzz_lb_upgrades_refused_total", ""), 1, "{mode:?}");
        assert_eq!(scene.balancer.metric("zzz_lb_upgrade_generation", ""), 0, "{mode:?}");
        scene.balancer.signal(libc::SIGHUP);
        scene.balancer.wait_for_log("HUP: nothing is read again before another upgrade");
        scene.upgrade();
        scene.upgrade();
        assert_eq!(scene.balancer.metric("zzz_lb_upgrade_generation", ""), 2, "{mode:?}");
        assert_eq!(scene.balancer.pid(), pid);
        assert_eq!(scene.balancer.stop(), Exit::Status(0), "{mode:?}");
    }
}

#[test]
fn a_rollback_supervisor_drains_its_workers() {
    for mode in modes() {
        let mut scene = Scene::new(mode, &["--admin", "0", "--drain-delay", "400ms", "--drain-idle", "1m"]);
        scene.script("", "", THREE_DESCRIPTORS);
        scene.fail("upgrade: refused: the new program cannot ");
        let mut client = scene.balancer.connect();
        assert_eq!(client.get("/a/1").status(), 200);
        let begun = Instant::now();
        scene.balancer.signal(libc::SIGTERM);
        scene.balancer.wait_for_log("process: draining");
        if begun.elapsed().as_millis() < 300 {
            assert_eq!(scene.balancer.connect().get("/a/1").status(), 200, "{mode:?}: the delay holds");
        }
        wait_until("nobody is accepted", || std::net::TcpStream::connect(scene.balancer.address()).is_err());
        assert!(begun.elapsed().as_millis() >= 400);
        assert_eq!(client.get("/a/1").status(), 200, "{mode:?}");
        drop(client);
        assert_eq!(scene.balancer.wait(), Exit::Status(0), "{mode:?}");
        assert!(scene.balancer.whole_log().contains("process: drained"), "{mode:?}");
    }
}

/// The new workers that do start serve clients, and drain like all others.
#[test]
fn workers_that_fail_to_start_are_replaced_without_loss() {
    for mode in modes() {
        let scene = Scene::new(mode, &[]);
        // The new program has another plan, which does not outlive it.
        let other = scene.directory.put("other.json", &config(&scene.backends[1..]));
        scene.script("", "", &format!("mv {} {}; {SPOIL}", other.display(), scene.config().display()));
        scene.fail(match mode {
            Mode::Mp => "upgrade: refused: the new workers do not come to live",
            Mode::Sp => "upgrade: refused: the new program cannot serve",
        });
        let wanted = if mode == Mode::Mp { 2 } else { 0 };
        assert_eq!(scene.balancer.metric("zzz_lb_workers", ""), wanted.max(1), "{mode:?}");
        assert_eq!(scene.balancer.metric("zzz_lb_weight", ""), 2, "{mode:?}: the plan of before holds");
        assert_eq!(scene.balancer.stop(), Exit::Status(0), "{mode:?}");
    }
}

/// An old worker that died while the new ones tried to start was forgotten, and clients of its listener waited
/// forever.
#[test]
fn a_worker_of_before_that_dies_meanwhile_has_the_upgrade_tried_again() {
    let scene = Scene::new(Mode::Mp, &[]);
    let before = scene.balancer.workers();
    scene.script("", "", SPOIL);
    scene.balancer.signal(libc::SIGUSR2);
    scene.balancer.wait_for_log("died: exit status");
    assert!(send_signal(before[1], libc::SIGKILL));
    scene.balancer.wait_for_log("served by 1 worker of before until another upgrade");
    wait_until("it is tried again", || scene.balancer.log().matches("upgrade: asking ").count() == 2);
}

/// The watchdog did not check the old workers after a failed upgrade.
#[test]
fn a_rollback_supervisor_replaces_a_worker_that_stands_still() {
    let scene = Scene::new(Mode::Mp, &["--watchdog", "2s"]);
    scene.script("", &format!(": > {}", scene.config().display()), "");
    scene.fail("upgrade: refused: the new program cannot start: ");
    let before = scene.balancer.workers();
    scene.script("", "", "");
    scene.directory.put("lb.json", &config(&scene.backends));
    assert!(send_signal(before[0], libc::SIGSTOP));
    scene.balancer.wait_for_log(&format!("worker pid {} stands still for ", before[0]));
    scene.balancer.wait_for_log("upgrade: done: ");
    wait_until("there are new ones", || scene.balancer.workers().iter().all(|worker| !before.contains(worker)));
    assert_eq!(scene.balancer.workers().len(), 2);
    assert_eq!(scene.balancer.stop(), Exit::Status(0));
}

/// Released addresses occupy their slots for a while. Until then the old plan applies, and an upgrade takes
/// over with it.
#[test]
fn an_upgrade_waits_for_room_with_the_plan_of_before() {
    for mode in modes() {
        let scene = Scene::new(mode, &[]);
        let backends: Vec<String> = (1..=1000).map(|n| format!("\"10.1.{}.{}:80\"", n / 256, n % 256)).collect();
        let all = |host: &str| format!("{{\"backends\": [{}]}}", backends.join(", ").replace("10.1.", host));
        // The first file has two other backends.
        for count in 1..=SLOTS / 1000 {
            fs::write(scene.config(), all(&format!("10.{count}."))).expect("it can be written");
            wait_until("it is followed", || scene.balancer.log().matches("info config: ").count() == count);
        }
        fs::write(scene.config(), all("10.99.")).expect("it can be written");
        scene.balancer.wait_for_log("too many addresses have changed");
        scene.upgrade();
        assert!(!scene.balancer.log().contains("refused"), "{mode:?}: {}", scene.balancer.log());
    }
}

/// A program that cannot read the header of the shared memory creates its own, and leaves none behind.
#[test]
fn memory_that_cannot_be_read_is_not_taken_over() {
    for mode in modes() {
        let scene = Scene::new(mode, &[]);
        let (known, other) = (MAGIC.to_le_bytes(), (MAGIC + 1).to_le_bytes());
        let mut program = fs::read(PROGRAM).expect("the program can be read");
        let places: Vec<usize> = (0..program.len() - 8).filter(|&at| program[at..at + 8] == known).collect();
        assert!(!places.is_empty(), "the number is in the program");
        places.iter().for_each(|&at| program[at..at + 8].copy_from_slice(&other));
        let fresh = scene.directory.file("other");
        fs::write(&fresh, &program).expect("it can be written");
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).expect("it can be made a program");
        fs::rename(&fresh, scene.directory.file("lb")).expect("it can be renamed");
        (0..5).for_each(|_| drop(scene.balancer.get("/a/1")));
        scene.upgrade();
        let workers = if mode == Mode::Mp { 2 } else { 0 };
        wait_until("those of before have ended", || children(scene.balancer.pid()).len() == workers);
        let log = scene.balancer.log();
        assert!(log.contains("counts and health start from zero"), "{mode:?}: {log}");
        assert_eq!(segments(scene.balancer.pid()), 1, "{mode:?}");
        assert!(scene.balancer.metric("zzz_lb_requests_total", "code=\"2xx\"") < 5, "{mode:?}");
        assert!(scene.balancer.metric("process_start_time_seconds", "") > 1_600_000_000, "{mode:?}");
        assert_eq!(scene.balancer.metric("zzz_lb_upgrade_generation", ""), 1, "{mode:?}");
        assert_eq!(scene.balancer.stop(), Exit::Status(0), "{mode:?}");
    }
}

/// The number of shared memory segments of a process.
fn segments(pid: i32) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process runs");
    maps.lines().filter(|line| line.contains("/SYSV")).count()
}

/// A hanging preflight ends with the process in every case, and delays no shutdown.
#[test]
fn a_preflight_that_hangs_ends_with_the_process() {
    for mode in modes() {
        for signal in [libc::SIGKILL, libc::SIGTERM] {
            let mut scene = Scene::new(mode, &[]);
            scene.script("exec sleep 60", "", "");
            let before = children(scene.balancer.pid());
            scene.balancer.signal(libc::SIGUSR2);
            let asked = || children(scene.balancer.pid()).into_iter().find(|child| !before.contains(child));
            wait_until("it is asked", || asked().is_some());
            let (asked, _) = asked().expect("just seen");
            assert!(scene.balancer.get("/a/1").len() > 1, "{mode:?}");
            scene.balancer.signal(signal);
            let exit = scene.balancer.wait();
            assert_eq!(exit, if signal == libc::SIGKILL { Exit::Signal(signal) } else { Exit::Status(0) }, "{mode:?}");
            wait_until("what was asked has ended", || !alive(asked));
        }
    }
}

/// A signal that arrived just before the process became the new program was lost.
#[test]
fn a_term_at_any_moment_of_an_upgrade_takes_effect() {
    for mode in modes() {
        let backend = Backend::named("a");
        let mut whole = Duration::ZERO;
        for round in 0..20 {
            let mut balancer = Balancer::before(mode, &[&backend], &[]);
            let begun = Instant::now();
            balancer.signal(libc::SIGUSR2);
            if round == 0 {
                balancer.wait_for_log("upgrade: done: ");
                whole = begun.elapsed();
            } else {
                // There is no condition to wait for: the signal must come at a random moment.
                std::thread::sleep(whole * round / 20);
            }
            balancer.signal(libc::SIGTERM);
            assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}, {round}");
        }
    }
}

#[test]
fn a_preflight_that_hangs_is_given_up_in_sp_too() {
    let scene = Scene::new(Mode::Sp, &[]);
    scene.script("exec sleep 60", "", "");
    scene.balancer.signal(libc::SIGUSR2);
    wait_until("it is asked", || children(scene.balancer.pid()).len() == 1);
    assert!(scene.balancer.get("/a/1").len() > 1);
    scene.balancer.wait_for_log("did not say within 10 s whether it can take over; this program goes on");
    wait_until("it has ended", || children(scene.balancer.pid()).is_empty());
    scene.script("", "", "");
    scene.upgrade();
    assert_eq!(scene.balancer.stop(), Exit::Status(0));
}
