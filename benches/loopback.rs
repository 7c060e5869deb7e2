//! The whole balancer on loopback: a request and its response through the built binary, held
//! against the same request sent to the backend directly, in the same run.

#[allow(dead_code, reason = "the one row here has a reference of its own")]
mod timer;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use timer::{Against, Timer};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
/// Wider than that of rows without system calls: the scheduler has its say in each.
const TOLERANCE: f64 = 0.5;

/// Answers requests that come whole, on threads that end with this process.
fn backend() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; 4096];
    while stream.read(&mut request)? > 0 {
        stream.write_all(RESPONSE)?;
    }
    Ok(())
}

/// Ends the balancer with the bench, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn balancer(backend: SocketAddr) -> std::io::Result<(Running, String)> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_load_balancer"))
        .args(["-p", "0", "--host", "127.0.0.1", "--mode", "sp", "-b", &backend.to_string()])
        .stderr(Stdio::piped())
        .spawn()?;
    let stderr = child.stderr.take();
    let running = Running(child);
    let lines = BufReader::new(stderr.expect("it was asked for")).lines();
    for line in lines.map_while(Result::ok) {
        if let Some((_, rest)) = line.split_once("listening on ") {
            return Ok((running, rest.split(' ').next().unwrap_or_default().to_owned()));
        }
    }
    Err(std::io::Error::other("the balancer did not start"))
}

fn client(address: &str) -> std::io::Result<impl FnMut() -> usize + use<>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut response = [0; 4096];
    Ok(move || {
        stream.write_all(REQUEST).expect("a backend that goes on");
        let mut read = 0;
        while read < RESPONSE.len() {
            read += match stream.read(&mut response[read..]) {
                Ok(n) if n > 0 => n,
                end => panic!("the response ended early: {end:?}"),
            };
        }
        read
    })
}

fn main() -> std::io::Result<()> {
    let mut timer = Timer::new();
    let backend = backend()?;
    let (_running, address) = balancer(backend)?;
    let direct = Against { steps: 1, tolerance: TOLERANCE, run: client(&backend.to_string())? };
    timer.row_against("loopback/request", 1, 0, client(&address)?, direct);
    timer.finish();
    Ok(())
}
