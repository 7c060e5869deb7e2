//! Benchmarks the whole balancer on loopback: requests and responses through the built binary, compared with
//! the same requests sent to the backend directly, in the same run.
//!
//! Everything runs on one processor. On several, the placement of threads by the scheduler decides more than
//! the balancer: the same code gave ratios from 0.9 to 3.9. On one processor, the time of a round is the sum of
//! all work, and the ratio is a ratio of work: about 2 if the balancer costs as much as client and backend
//! together. Many requests are in flight at once, so that a switch between processes serves more than one, as
//! under load.
//!
//! Two rows count the cost of a 1 MiB response with strace: system calls, and reads per MiB. They are the
//! difference of two runs of different length, so the start does not count. Without strace they are omitted.

#[allow(dead_code, reason = "the rows here have a reference of their own")]
mod timer;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use timer::{Against, TOLERANCE, Timer};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
/// Requests in flight at once.
const CONNECTIONS: usize = 32;
/// The tolerance if the bench could not be bound to one processor.
const UNBOUND_TOLERANCE: f64 = 0.5;
/// The duration of a batch: a few rounds, and longer than a time slice.
const BATCH: Duration = Duration::from_millis(10);
/// The time after which the bench gives up on a response.
const PATIENCE: Duration = Duration::from_secs(10);

/// A response whose body is read and sent in many pieces.
const LARGE_BYTES: usize = 1 << 20;
const LARGE_REQUEST: &[u8] = b"GET /1MiB HTTP/1.1\r\nHost: a\r\n\r\n";
/// Requests in the shorter counted run, and the additional requests of the longer one.
const COUNTED: usize = 8;

/// Answers requests that arrive whole, on threads that end with this process.
fn backend() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; 4096];
    let mut large = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE_BYTES}\r\n\r\n").into_bytes();
    large.resize(large.len() + LARGE_BYTES, b'x');
    loop {
        match stream.read(&mut request)? {
            0 => return Ok(()),
            _ if request.starts_with(b"GET /1MiB ") => stream.write_all(&large)?,
            _ => stream.write_all(RESPONSE)?,
        }
    }
}

/// A balancer that ends with the bench, and its address.
struct Balancer {
    child: Child,
    address: String,
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Balancer {
    fn start(mode: &str, backend: SocketAddr) -> io::Result<Balancer> {
        Balancer::start_by(Command::new(env!("CARGO_BIN_EXE_load_balancer")), mode, backend)
    }

    fn start_by(mut command: Command, mode: &str, backend: SocketAddr) -> io::Result<Balancer> {
        let child = command
            .args(["-p", "0", "--host", "127.0.0.1", "--workers", "1", "--mode", mode])
            .args(["-b", &backend.to_string()])
            .stderr(Stdio::piped())
            .spawn()?;
        let mut balancer = Balancer { child, address: String::new() };
        let stderr = balancer.child.stderr.take().expect("it was asked for");
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("listening on ") {
                rest.split(' ').next().unwrap_or_default().clone_into(&mut balancer.address);
                return Ok(balancer);
            }
        }
        Err(io::Error::other("the balancer did not start"))
    }
}

/// The system calls of a balancer that serves some large responses, and those among them that read from
/// sockets. `None` if strace is missing or not allowed to trace.
fn counted_calls(backend: SocketAddr, requests: usize) -> io::Result<Option<(usize, usize)>> {
    let path = std::env::temp_dir().join(format!("zzz-lb-bench-{}", std::process::id()));
    let mut strace = Command::new("strace");
    // With -D the balancer is our child, so dropping it ends it.
    strace.args(["-D", "-f", "-q", "-e", "signal=none", "-o"]).arg(&path).arg(env!("CARGO_BIN_EXE_load_balancer"));
    let Ok(balancer) = Balancer::start_by(strace, "sp", backend) else { return Ok(None) };
    let stream = TcpStream::connect(&balancer.address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut stream = BufReader::new(stream);
    let mut body = vec![0; LARGE_BYTES];
    for _ in 0..requests {
        stream.get_mut().write_all(LARGE_REQUEST)?;
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        stream.read_exact(&mut body)?;
    }
    drop(balancer);
    let begun = Instant::now();
    let mut calls = String::new();
    while !calls.contains("+++ killed") && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
        calls = std::fs::read_to_string(&path)?;
    }
    std::fs::remove_file(&path)?;
    Ok(Some((calls.lines().count(), calls.lines().filter(|line| line.contains(" recvfrom(")).count())))
}

/// The two rows of counts, for one response of 1 MiB.
fn count_large(timer: &mut Timer, backend: SocketAddr) -> io::Result<()> {
    const ROWS: [&str; 2] = ["loopback/1MiB/system_calls", "loopback/1MiB/reads"];
    if !ROWS.iter().any(|row| timer.measures(row)) {
        return Ok(());
    }
    let counted = counted_calls(backend, COUNTED)?.zip(counted_calls(backend, 2 * COUNTED)?);
    let Some((short, long)) = counted else {
        println!("{:<34} (no strace)", ROWS[0]);
        return Ok(());
    };
    for (row, count) in ROWS.into_iter().zip([long.0.abs_diff(short.0), long.1.abs_diff(short.1)]) {
        timer.count(row, count as f64 / COUNTED as f64);
    }
    Ok(())
}

/// A round of requests, one on each of some persistent connections.
fn client(address: &str) -> io::Result<impl FnMut() -> usize + use<>> {
    let connect = |_| {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    let mut streams = (0..CONNECTIONS).map(connect).collect::<io::Result<Vec<_>>>()?;
    Ok(move || {
        for stream in &mut streams {
            stream.write_all(REQUEST).expect("a peer that goes on");
        }
        streams.iter_mut().map(response).sum()
    })
}

/// Reads one response and returns its length.
fn response(stream: &mut TcpStream) -> usize {
    let (mut bytes, mut read) = ([0; 4096], 0);
    while read < RESPONSE.len() {
        read += match stream.read(&mut bytes[read..]) {
            Ok(n) if n > 0 => n,
            end => panic!("the response ended early: {end:?}"),
        };
    }
    assert!(bytes.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&bytes[..read]));
    read
}

/// The processors that this process may use, in Linux's notation.
fn processors() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim().to_owned())
}

/// Restarts this program on the last of its processors if it may use several. Returns true if it runs on one.
fn bind() -> bool {
    let Some(list) = processors() else { return false };
    let Some((_, last)) = list.rsplit_once([',', '-']) else { return true };
    let Ok(program) = std::env::current_exe() else { return false };
    let error = Command::new("taskset").args(["-c", last]).arg(program).args(std::env::args_os().skip(1)).exec();
    eprintln!("loopback: not bound to one processor, so noise counts for more: taskset: {error}");
    false
}

fn main() -> io::Result<ExitCode> {
    let tolerance = if bind() { TOLERANCE } else { UNBOUND_TOLERANCE };
    let mut timer = Timer::new();
    let backend = backend()?;
    for mode in ["sp", "mp"] {
        let balancer = Balancer::start(mode, backend)?;
        let reference = Against {
            steps: CONNECTIONS as u64,
            tolerance,
            most: None,
            batch: BATCH,
            run: client(&backend.to_string())?,
        };
        timer.row_against(&format!("loopback/{mode}"), CONNECTIONS, 0, client(&balancer.address)?, reference);
    }
    count_large(&mut timer, backend)?;
    Ok(timer.finish())
}
