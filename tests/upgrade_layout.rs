//! Upgrades to a program with another layout of the shared memory, because it has an additional metric: counts
//! and health are copied by name.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support::{Backend, Balancer, Directory, Mode, VACANT, Wire, command, modes, wait_until};

/// The program with an additional metric, built once.
pub(crate) fn with_another_metric() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // A separate directory, so that it does not replace the program of the other tests.
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("extra-metric");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--locked", "--offline", "--bin", "load_balancer", "--features", "extra-metric"]);
        build.current_dir(env!("CARGO_MANIFEST_DIR")).arg("--target-dir").arg(&target);
        let output = build.output().expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found = ["debug", "x86_64-unknown-linux-musl/debug", "x86_64-unknown-linux-gnu/debug"];
        let found = found.iter().map(|place| target.join(place).join("load_balancer")).find(|path| path.exists());
        found.expect("cargo has built it")
    })
}

/// A balancer that runs from a replaceable file.
struct Scene {
    directory: Directory,
    balancer: Balancer,
}

impl Scene {
    fn new(mode: Mode, args: &[&str]) -> Scene {
        let directory = Directory::new();
        let program = std::fs::read(env!("CARGO_BIN_EXE_load_balancer")).expect("it is there");
        let copy = directory.put_program("lb", &program, 0o755);
        let (inner, mut started) = (command(&[]), Command::new(&copy));
        started.args(["-p", "0", "--host", "127.0.0.1"]).args(mode.args()).args(args).env_clear();
        started.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Scene { directory, balancer: Balancer::spawn(started) }
    }

    /// Replaces the program file, and upgrades.
    fn upgrade_to(&self, program: &Path, generation: usize) {
        self.directory.put_program("lb", &std::fs::read(program).expect("it is there"), 0o755);
        self.balancer.signal(libc::SIGUSR2);
        self.balancer.wait_for_log(&format!("(generation {generation})"));
    }
}

#[test]
fn counts_and_health_survive_an_upgrade_that_adds_a_metric() {
    let own = Path::new(env!("CARGO_BIN_EXE_load_balancer"));
    // Built before a client waits.
    with_another_metric();
    for mode in modes() {
        let backend = Backend::named("a");
        // One failure takes the dead backend down. It stays down, because the probes that could restore it fail
        // too.
        let args = ["-b", &backend.spec(), "-b", VACANT, "--health-fails", "1", "--health-interval", "1m"];
        let scene = Scene::new(mode, &args);
        let balancer = &scene.balancer;
        let served = Cell::new(0);
        let ask = |client: &mut Wire| {
            assert_eq!(client.get("/").text(), "a", "{mode:?}");
            served.set(served.get() + 1);
        };
        let requests = || balancer.metric("zzz_lb_requests_total", "code=\"2xx\"");
        let counted = |what: &str| {
            let durations = |kind: &str| balancer.metric(&format!("zzz_lb_{kind}_duration_seconds_count"), "");
            let counts = [requests(), durations("request"), durations("response")];
            assert_eq!(counts, [served.get(); 3], "{mode:?}: {what}");
            balancer.metric("zzz_lb_connect_failures_total", VACANT)
        };
        let healthy = || (balancer.metric("zzz_lb_healthy", ""), balancer.metric("zzz_lb_healthy", VACANT));
        (0..41).for_each(|_| ask(&mut balancer.connect()));
        wait_until("it is down", || healthy() == (1, 0));
        let failures = counted("at first");
        // A client of the old program continues, and is counted in the old memory.
        let mut old = balancer.connect();
        ask(&mut old);
        scene.upgrade_to(with_another_metric(), 1);
        assert!(balancer.log().contains("has another layout: counts and health are copied"), "{}", balancer.log());
        // An old worker may accept connections until it gets the signal.
        let is_other = || balancer.get("/metrics").contains("\nzzz_lb_extra_total 0\n");
        wait_until("the other program answers", is_other);
        assert_eq!((healthy(), counted("after an upgrade")), ((1, 0), failures), "{mode:?}");
        (0..10).for_each(|_| ask(&mut balancer.connect()));
        // The old worker counts this request, closes the connection, and ends.
        ask(&mut old);
        drop(old);
        wait_until("the old worker's last counts have come", || requests() == served.get());
        counted("when the old worker has ended");
        // Back again while a client of the second program continues, and once more.
        let mut between = balancer.connect();
        ask(&mut between);
        scene.upgrade_to(own, 2);
        scene.upgrade_to(with_another_metric(), 3);
        ask(&mut between);
        drop(between);
        wait_until("the last counts have come over two upgrades", || requests() == served.get());
        assert_eq!((healthy(), counted("in the end")), ((1, 0), failures), "{mode:?}");
        assert_eq!(balancer.metric("zzz_lb_upgrade_generation", ""), 3, "{mode:?}");
    }
}
