//! Benchmarks a whole exchange through the proxy in memory: a request of a kept-alive client to a pooled
//! backend connection, and the response back. This is the cost of a request without its system calls.

mod timer;

use std::net::SocketAddr;
use std::process::ExitCode;

use timer::Timer;
use zzz_lb::collections::slab::Key;
use zzz_lb::config::Plan;
use zzz_lb::log::{Level, Log};
use zzz_lb::proxy::{Output, Proxy, Shared};

const REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nHost: 127.0.0.1:8100\r\n\r\n";
/// The time between two exchanges. The clock advances, so that deadlines move as in production.
const EXCHANGE_US: u64 = 50;

/// A proxy with one client and one backend, both in memory.
struct World {
    proxy: Proxy,
    client: Key,
    backend: Option<Key>,
    now_us: u64,
}

impl World {
    fn new() -> World {
        let plan = Plan::over([SocketAddr::from(([127, 0, 0, 1], 9001))]);
        let mut proxy = Proxy::new(&plan, Shared::private(1), 0, 1, 0, Log::new(Level::Err));
        let client = proxy.accept(SocketAddr::from(([127, 0, 0, 1], 50_000)));
        World { proxy, client, backend: None, now_us: 0 }
    }

    fn receive(&mut self, key: Key, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(room) = self.proxy.room(key) else { return };
            let n = room.len().min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            self.proxy.received(key, n);
            self.settle();
        }
    }

    fn settle(&mut self) {
        while let Some(output) = self.proxy.next_output() {
            match output {
                Output::Connect(key, _) => {
                    self.backend = Some(key);
                    self.proxy.connected(key, false);
                }
                Output::Send(key) | Output::SendLater(key) => {
                    while let Some(n) = self.proxy.queued(key).map(|queue| queue.len()).filter(|&n| n > 0) {
                        self.proxy.sent(key, n);
                    }
                }
                Output::Receive(_) | Output::Check(_) | Output::Finish(_) | Output::Measure(..) => {}
                Output::Close(key) | Output::Reset(key) => assert_ne!(key, self.client, "the client is kept"),
            }
        }
    }

    fn exchange(&mut self, request: &[u8], response: &[u8]) {
        self.now_us += EXCHANGE_US;
        self.proxy.set_clock(self.now_us, self.now_us);
        self.receive(self.client, request);
        let backend = self.backend.expect("the request has gone to a backend");
        self.receive(backend, response);
        assert_eq!(self.proxy.requests(), 0, "the exchange is over");
    }
}

/// A message with a Content-Length.
fn fixed(start: &str, size: usize) -> Vec<u8> {
    let mut text = format!("{start}Content-Type: text/plain\r\nContent-Length: {size}\r\n\r\n");
    text.extend(std::iter::repeat_n('x', size));
    text.into_bytes()
}

/// A message with chunked content.
fn chunked(start: &str, size: usize, chunks: usize) -> Vec<u8> {
    let mut text = format!("{start}Transfer-Encoding: chunked\r\n\r\n");
    for _ in 0..chunks {
        text.push_str(&format!("{size:x}\r\n"));
        text.extend(std::iter::repeat_n('x', size));
        text.push_str("\r\n");
    }
    text.push_str("0\r\n\r\n");
    text.into_bytes()
}

fn main() -> ExitCode {
    const PUT: &str = "PUT /up HTTP/1.1\r\nHost: 127.0.0.1:8100\r\n";
    const OK: &str = "HTTP/1.1 200 OK\r\nServer: x\r\n";
    let mut timer = Timer::new();
    let downloads = [
        ("exchange/1KiB", fixed(OK, 1024)),
        ("exchange/64KiB", fixed(OK, 65_536)),
        ("exchange/1MiB", fixed(OK, 1 << 20)),
        ("exchange/chunked/64x1KiB", chunked(OK, 1024, 64)),
        ("exchange/chunked/16x64KiB", chunked(OK, 65_536, 16)),
    ];
    for (name, response) in downloads {
        let mut world = World::new();
        timer.row(name, 1, response.len(), || world.exchange(REQUEST, &response));
    }
    let uploads =
        [("exchange/upload/64KiB", fixed(PUT, 65_536)), ("exchange/upload/chunked/64x1KiB", chunked(PUT, 1024, 64))];
    let response = fixed(OK, 0);
    for (name, request) in uploads {
        let mut world = World::new();
        timer.row(name, 1, request.len(), || world.exchange(&request, &response));
    }
    timer.finish()
}
