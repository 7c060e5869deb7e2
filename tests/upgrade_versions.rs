//! Upgrades from the program of an earlier version to this one, and back. That program knows only form 2 of the
//! handover.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::support::traffic::{self, KINDS, Target, Traffic};
use crate::support::{Balancer, Directory, VACANT, Wire, command, modes, skipped, wait_until};

/// The last commit whose program knows only form 2.
const COMMIT: &str = "84a93449756526059c1305145f5eafdaefb5f7be";

fn git(args: &[&str]) -> Option<Output> {
    let mut git = Command::new("git");
    git.args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
    git.output().ok().filter(|output| output.status.success())
}

/// The program of the earlier version, built once and kept in the target directory. `None`, with a message, if the
/// history is absent.
fn earlier_program() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("version-{}", &COMMIT[..7]));
        let program = directory.join("load_balancer");
        if !program.exists() {
            let Some(Output { stdout: archive, .. }) = git(&["archive", COMMIT]) else {
                skipped(format_args!("commit {} is not in the history of this repository", &COMMIT[..7]));
                return None;
            };
            build(&archive, &directory, &program);
        }
        Some(program)
    });
    built.as_deref()
}

/// Builds the program of an archive of the source.
fn build(archive: &[u8], directory: &Path, program: &Path) {
    let (source, target) = (directory.join("source"), directory.join("target"));
    std::fs::create_dir_all(&source).expect("it can be created");
    let packed = directory.join("source.tar");
    std::fs::write(&packed, archive).expect("it can be written");
    let unpacked = Command::new("tar").arg("-xf").arg(&packed).arg("-C").arg(&source).status().expect("tar runs");
    assert!(unpacked.success());
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "--offline", "--bin", "load_balancer"]);
    let output = cargo.current_dir(&source).arg("--target-dir").arg(&target).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = ["debug", "x86_64-unknown-linux-musl/debug", "x86_64-unknown-linux-gnu/debug"];
    let found = found.iter().map(|place| target.join(place).join("load_balancer")).find(|path| path.exists());
    // Renamed last, so that a build that was interrupted is not taken for a finished one.
    std::fs::rename(found.expect("cargo has built it"), program).expect("it can be renamed");
    let _ = [source, target].map(std::fs::remove_dir_all);
    let _ = std::fs::remove_file(packed);
}

/// The sum of a family's samples on the admin port whose labels contain `having`.
fn metric(balancer: &Balancer, family: &str, having: &str) -> u64 {
    let text = Wire::tcp(balancer.admin()).get("/metrics").text();
    let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
    let named = samples.filter(|(name, _)| name.split('{').next() == Some(family) && name.contains(having));
    named.map(|(_, value)| value.parse::<u64>().expect("a number")).sum()
}

#[test]
fn an_upgrade_from_the_earlier_version_and_back_loses_nothing() {
    let own = Path::new(env!("CARGO_BIN_EXE_load_balancer"));
    let Some(earlier) = earlier_program() else { return };
    for mode in modes() {
        let backend = traffic::backend();
        let directory = Directory::new();
        let put = |program: &Path| {
            let bytes = std::fs::read(program).expect("the program exists");
            directory.put_program("lb", &bytes, 0o755)
        };
        let (inner, mut started) = (command(&[]), Command::new(put(earlier)));
        // One failure takes the dead backend down. It stays down, because no probe is due soon.
        started.args(["-p", "0", "--host", "127.0.0.1", "--admin", "0", "--health-fails", "1", "--health-interval"]);
        started.args(["1m", "-b", &backend.spec(), "-b", VACANT]).args(mode.args()).env_clear();
        started.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let balancer = Balancer::spawn(started);
        let healthy = || ["", VACANT].map(|having| metric(&balancer, "zzz_lb_healthy", having));
        let traffic = Traffic::start(Target::plain(balancer.address()), &KINDS, 2, 1);
        wait_until("the dead backend is down", || healthy() == [1, 0]);
        for (program, generation) in [(own, 1), (earlier, 2), (own, 3)] {
            let before = traffic.completed().iter().sum::<u64>();
            wait_until("clients go on", || traffic.completed().iter().sum::<u64>() > before + 50);
            put(program);
            balancer.signal(libc::SIGUSR2);
            balancer.wait_for_log(&format!("(generation {generation})"));
            assert_eq!(healthy(), [1, 0], "{mode:?}, generation {generation}");
        }
        let tally = traffic.stop();
        tally.assert_nothing_lost(&format!("{mode:?}"));
        wait_until("each version's requests are counted", || {
            metric(&balancer, "zzz_lb_requests_total", "") >= tally.total()
        });
        assert_eq!(metric(&balancer, "zzz_lb_upgrade_generation", ""), 3, "{mode:?}");
        assert_eq!(metric(&balancer, "zzz_lb_upgrades_refused_total", ""), 0, "{mode:?}");
        assert!(!balancer.log().contains("start from zero"), "{}", balancer.log());
    }
}
