//! The program under test as a child process: started on a free port, watched, and ended with the test.

use super::system::{Pid, alive, children, send_signal};
use super::{Backend, DEADLINE, Front, Wire, wait_until};
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The process model of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A master with two workers.
    Mp,
    /// One process.
    Sp,
}

impl Mode {
    /// The arguments for the mode.
    pub fn args(self) -> &'static [&'static str] {
        match self {
            Mode::Mp => &["--mode", "mp", "-w", "2"],
            Mode::Sp => &["--mode", "sp"],
        }
    }
}

/// Both modes, for a behaviour that must hold in each.
pub fn modes() -> [Mode; 2] {
    [Mode::Mp, Mode::Sp]
}

/// The way in which the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// An exit status.
    Status(i32),
    /// A signal.
    Signal(i32),
}

/// The binary under test, without this process's environment.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_load_balancer"));
    // Backends count their requests, so probes are off unless a test turns them on.
    command.args(args).env_clear().env("LB_HEALTH_INTERVAL", "off").stdin(Stdio::null());
    command
}

/// Runs the binary until it ends by itself.
pub fn run(args: &[&str]) -> Output {
    run_command(command(args))
}

fn run_command(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut pipes = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let errors = std::thread::spawn(move || pipes.1.read_to_end(&mut stderr).map(|_| stderr));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if start.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} did not end by itself");
        }
        std::thread::sleep(std::time::Duration::from_millis(3));
    };
    pipes.0.read_to_end(&mut stdout).expect("stdout can be read");
    Output { status, stdout, stderr: errors.join().expect("the reader ends").expect("stderr can be read") }
}

/// The lines written so far, with a notification for each further one.
#[derive(Default)]
struct Written {
    text: Mutex<String>,
    more: Condvar,
    following: AtomicUsize,
}

impl Written {
    fn follow(self: &Arc<Self>, from: impl Read + Send + 'static) {
        let written = self.clone();
        written.following.fetch_add(1, SeqCst);
        std::thread::spawn(move || {
            let mut lines = BufReader::new(from);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                written.text.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                written.more.notify_all();
                line.clear();
            }
            written.following.fetch_sub(1, SeqCst);
        });
    }

    /// Waits until `find` returns something for the text.
    fn wait<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let start = Instant::now();
        let mut text = self.text.lock().unwrap();
        loop {
            if let Some(found) = find(&text) {
                return Some(found);
            }
            let left = DEADLINE.checked_sub(start.elapsed())?;
            text = self.more.wait_timeout(text, left).unwrap().0;
        }
    }
}

/// A running balancer. Dropping it kills all its processes.
pub struct Balancer {
    child: Child,
    address: SocketAddr,
    /// The address of the gateway or the other listener for clients, if there is one.
    front: Option<SocketAddr>,
    written: Arc<Written>,
    ended: Option<Exit>,
}

impl Balancer {
    /// Starts the program in `mode` on a free loopback port. Returns once it listens.
    pub fn start(mode: Mode, args: &[&str]) -> Balancer {
        Balancer::spawn(mode_command(mode, args))
    }

    /// Starts it with `backends`.
    pub fn before(mode: Mode, backends: &[&Backend], args: &[&str]) -> Balancer {
        let specs: Vec<String> = backends.iter().map(|backend| backend.spec()).collect();
        let mut all: Vec<&str> = specs.iter().flat_map(|spec| ["-b", spec]).collect();
        all.extend_from_slice(args);
        Balancer::start(mode, &all)
    }

    /// Starts it in sp with a limit of open files.
    pub fn with_open_files(limit: u32, args: &[&str]) -> Balancer {
        let inner = mode_command(Mode::Sp, args);
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(format!("ulimit -n {limit}; exec \"$0\" \"$@\""));
        shell.arg(inner.get_program()).args(inner.get_args()).env_clear().stdin(Stdio::null());
        shell.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Balancer::spawn(shell)
    }

    /// Starts a prepared command, which must print `listening on ADDRESS`.
    pub fn spawn(mut command: Command) -> Balancer {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn();
        let mut child = child.expect("the binary starts");
        let written = Arc::new(Written::default());
        written.follow(child.stdout.take().expect("piped"));
        written.follow(child.stderr.take().expect("piped"));
        let address = "0.0.0.0:0".parse().expect("an address");
        let mut balancer = Balancer { child, address, front: None, written, ended: None };
        let start = Instant::now();
        loop {
            if let Some(address) = listening_on(&balancer.log()) {
                balancer.address = address;
                break;
            }
            let late = start.elapsed() > DEADLINE;
            assert!(balancer.runs() && !late, "{command:?} never said where it listens:\n{}", balancer.log());
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        balancer
    }

    /// Starts a prepared command whose log the test itself reads, or leaves unread.
    pub fn read_by_hand(mut command: Command) -> (Balancer, BufReader<PipeReader>) {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let child = command.stderr(writer).process_group(0).spawn().expect("the binary starts");
        // This also closes our copy of the write end.
        drop(command);
        let address = "0.0.0.0:0".parse().expect("an address");
        let mut balancer = Balancer { child, address, front: None, written: Arc::default(), ended: None };
        let (mut reader, mut read) = (BufReader::new(reader), String::new());
        while balancer.address.port() == 0 {
            assert!(reader.read_line(&mut read).expect("a log of text") > 0, "it never said where it listens:\n{read}");
            balancer.address = listening_on(&read).unwrap_or(address);
        }
        (balancer, reader)
    }

    /// The address of the listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of a listener, in the order of the options.
    #[track_caller]
    pub fn listener(&self, nth: usize) -> SocketAddr {
        let found = self.written.wait(|text| {
            let whole = &text[..text.rfind('\n')?];
            let mut rest = whole.split("listening on ").skip(1 + nth);
            rest.next()?.split(|c: char| c.is_whitespace()).next()?.parse().ok()
        });
        found.unwrap_or_else(|| panic!("no listener {nth}:\n{}", self.log()))
    }

    /// Lets clients use another listener.
    pub fn through(mut self, address: SocketAddr) -> Balancer {
        self.front = Some(address);
        self
    }

    /// The address of the admin port, with `--admin`.
    #[track_caller]
    pub fn admin(&self) -> SocketAddr {
        let log = self.wait_for_log("admin on ");
        let (_, rest) = log.split_once("admin on ").expect("just seen");
        rest.split(": ").next().and_then(|text| text.parse().ok()).expect("an address")
    }

    /// Lets clients come over another protocol.
    pub fn behind(mut self, front: &Front) -> Balancer {
        self.front = Some(front.open(self.address, false));
        self
    }

    /// Lets clients come over another protocol, and share one connection if it is HTTP/2.
    pub fn behind_one(mut self, front: &Front) -> Balancer {
        self.front = Some(front.open(self.address, true));
        self
    }

    /// Opens a client connection.
    pub fn connect(&self) -> Wire {
        Wire::tcp(self.front.unwrap_or(self.address))
    }

    /// Sends one GET on a new connection. Returns the body of the 200 response.
    #[track_caller]
    pub fn get(&self, path: &str) -> String {
        let response = self.connect().get(path);
        assert_eq!(response.status(), 200, "GET {path}: {response:?}\n{}", self.log());
        response.text()
    }

    /// The sum of a family's samples in /metrics whose labels contain `having`.
    #[track_caller]
    pub fn metric(&self, family: &str, having: &str) -> u64 {
        let text = self.get("/metrics");
        let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
        let named = samples.filter(|(name, _)| name.split('{').next() == Some(family) && name.contains(having));
        named.map(|(name, value)| value.parse::<u64>().unwrap_or_else(|_| panic!("{name} {value}"))).sum()
    }

    /// Lets the only client send content until the backend accepts no more. The rest is small, so the balancer
    /// has read everything. On a slow machine this can only stop earlier.
    pub fn fill(&self, client: &Wire) {
        let sent = || self.metric("zzz_lb_sent_bytes_total", "");
        let (before, mut given, mut taken) = (sent(), 0, true);
        while taken {
            client.send([b'u'; 1 << 14]);
            given += 1 << 14;
            let since = Instant::now();
            taken = false;
            while !taken && since.elapsed() < Duration::from_millis(300) {
                taken = sent() - before >= given;
            }
        }
    }

    /// Starts it with a configuration file and no other backend.
    pub fn with_file(mode: Mode, file: &Path, args: &[&str]) -> Balancer {
        let mut all = vec!["-c", file.to_str().expect("a path of ours")];
        all.extend_from_slice(args);
        Balancer::start(mode, &all)
    }

    /// The process that was started: the master, or the only one.
    pub fn pid(&self) -> Pid {
        self.child.id() as Pid
    }

    /// The live workers; none in sp.
    pub fn workers(&self) -> Vec<Pid> {
        children(self.pid()).into_iter().filter(|&(_, lives)| lives).map(|(pid, _)| pid).collect()
    }

    /// The serving processes: the workers, or the only process.
    pub fn serving(&self) -> Vec<Pid> {
        let workers = self.workers();
        if workers.is_empty() { vec![self.pid()] } else { workers }
    }

    /// Everything written to stdout and stderr so far.
    pub fn log(&self) -> String {
        self.written.text.lock().unwrap().clone()
    }

    /// The whole output, once the program and all processes with its output have ended.
    #[track_caller]
    pub fn whole_log(&self) -> String {
        wait_until("its output ends", || self.written.following.load(SeqCst) == 0);
        self.log()
    }

    /// Waits until the log contains `part`. Returns the log.
    #[track_caller]
    pub fn wait_for_log(&self, part: &str) -> String {
        match self.written.wait(|text| text.contains(part).then(|| text.to_string())) {
            Some(text) => text,
            None => panic!("{part:?} is not in the log:\n{}", self.log()),
        }
    }

    /// Sends a signal to the master, or the only process.
    pub fn signal(&self, signal: i32) {
        assert!(send_signal(self.pid(), signal), "the balancer is gone:\n{}", self.log());
    }

    /// True if the started process still runs.
    pub fn runs(&mut self) -> bool {
        self.try_exit().is_none()
    }

    /// The way in which it ended, if it has.
    pub fn try_exit(&mut self) -> Option<Exit> {
        if self.ended.is_none() {
            let status = self.child.try_wait().expect("a child can be waited for")?;
            self.ended = Some(match status.code() {
                Some(code) => Exit::Status(code),
                None => Exit::Signal(status.signal().unwrap_or_default()),
            });
        }
        self.ended
    }

    /// Waits until it ends.
    #[track_caller]
    pub fn wait(&mut self) -> Exit {
        let start = Instant::now();
        loop {
            if let Some(exit) = self.try_exit() {
                return exit;
            }
            assert!(start.elapsed() < DEADLINE, "it does not end:\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
    }

    /// Ends it with TERM, checks that no process is left, and returns the way in which it ended.
    #[track_caller]
    pub fn stop(mut self) -> Exit {
        let workers = self.workers();
        self.signal(libc::SIGTERM);
        let exit = self.wait();
        wait_until("the workers are gone", || workers.iter().all(|&pid| !alive(pid)));
        exit
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // Kills its process group, so that workers end too in any state of the master.
        send_signal(-self.pid(), libc::SIGKILL);
        if self.ended.is_none() {
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the balancer ---\n{}---", self.log());
        }
    }
}

fn mode_command(mode: Mode, args: &[&str]) -> Command {
    let mut all = vec!["-p", "0", "--host", "127.0.0.1"];
    all.extend_from_slice(mode.args());
    all.extend_from_slice(args);
    command(&all)
}

/// The address after the first `listening on` of a complete line.
fn listening_on(text: &str) -> Option<SocketAddr> {
    let whole = &text[..text.rfind('\n')?];
    let (_, rest) = whole.split_once("listening on ")?;
    let word = rest.split(|c: char| c.is_whitespace() || c == ',').next()?;
    word.trim_start_matches("http://").trim_start_matches("https://").trim_end_matches(['/', '.', ';']).parse().ok()
}
