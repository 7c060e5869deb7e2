//! A whole exchange through the proxy, in memory: a request from a kept-alive client, to a
//! pooled backend connection, and the response back. What a request costs besides its system
//! calls.

mod timer;

use std::net::SocketAddr;

use timer::Timer;
use zzz_lb::args::{self, Command};
use zzz_lb::collections::slab::Key;
use zzz_lb::config;
use zzz_lb::dns::hosts::Hosts;
use zzz_lb::log::{Level, Log};
use zzz_lb::proxy::{Output, Proxy};

const REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nHost: 127.0.0.1:8100\r\n\r\n";

/// A proxy with one client and one backend, both in memory.
struct World {
    proxy: Proxy,
    client: Key,
    backend: Option<Key>,
}

impl World {
    fn new() -> World {
        let argv = ["-b", "127.0.0.1:9001"].map(Into::into);
        let Ok(Command::Run(options)) = args::parse(argv, &|_: &str| None) else { panic!("options that parse") };
        let config = config::resolve(options, &Hosts::default()).expect("options that make sense");
        let mut proxy = Proxy::new(&config, 0, 1, 0, Log::new(Level::Err));
        let client = proxy.accept(SocketAddr::from(([127, 0, 0, 1], 50_000)));
        World { proxy, client, backend: None }
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
                    self.proxy.connected(key);
                }
                Output::Send(key) => {
                    while let Some(n) = self.proxy.queued(key).map(|queue| queue.len()).filter(|&n| n > 0) {
                        self.proxy.sent(key, n);
                    }
                }
                Output::Receive(_) | Output::Finish(_) => {}
                Output::Close(key) | Output::Reset(key) => assert_ne!(key, self.client, "the client is kept"),
            }
        }
    }

    fn exchange(&mut self, response: &[u8]) {
        self.receive(self.client, REQUEST);
        let backend = self.backend.expect("the request has gone to a backend");
        self.receive(backend, response);
    }
}

fn fixed(size: usize) -> Vec<u8> {
    let mut text =
        format!("HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\n\r\n");
    text.extend(std::iter::repeat_n('x', size));
    text.into_bytes()
}

fn chunked(size: usize, chunks: usize) -> Vec<u8> {
    let mut text = String::from("HTTP/1.1 200 OK\r\nServer: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..chunks {
        text.push_str(&format!("{size:x}\r\n"));
        text.extend(std::iter::repeat_n('x', size));
        text.push_str("\r\n");
    }
    text.push_str("0\r\n\r\n");
    text.into_bytes()
}

fn main() {
    let mut timer = Timer::new();
    let rows = [
        ("exchange/1KiB", fixed(1024)),
        ("exchange/1MiB", fixed(1 << 20)),
        ("exchange/chunked/64x1KiB", chunked(1024, 64)),
        ("exchange/chunked/16x64KiB", chunked(65_536, 16)),
    ];
    for (name, response) in rows {
        let mut world = World::new();
        timer.row(name, 1, response.len(), || world.exchange(&response));
    }
    timer.finish();
}
