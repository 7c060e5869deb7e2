//! The fuzz targets on a stable compiler. Each runs for up to a second over its seeds, their mutations, and random bytes.
//! This keeps the targets building and finds shallow faults. A fixed seed makes a failure repeatable. One target, the
//! canary, has a planted panic that no seed triggers: if it is not found, the harness is blind and the test fails.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[path = "../fuzz/targets/args.rs"]
mod args;
#[path = "../fuzz/targets/certificate.rs"]
mod certificate;
#[path = "../fuzz/targets/client_hello.rs"]
mod client_hello;
#[path = "../fuzz/targets/config.rs"]
mod config;
#[path = "../fuzz/targets/dns.rs"]
mod dns;
#[path = "../fuzz/targets/forwarding.rs"]
mod forwarding;
#[path = "../fuzz/targets/handover.rs"]
mod handover;
#[path = "../fuzz/targets/hpack.rs"]
mod hpack;
#[path = "../fuzz/targets/http1.rs"]
mod http1;
#[path = "../fuzz/targets/http2.rs"]
mod http2;
#[path = "../fuzz/targets/json.rs"]
mod json;
#[path = "../fuzz/targets/plan.rs"]
mod plan;
#[path = "../fuzz/targets/proxy/mod.rs"]
mod proxy;
#[path = "../fuzz/targets/proxy_header.rs"]
mod proxy_header;
#[path = "../fuzz/targets/scan.rs"]
mod scan;

/// A fuzz target. A new one needs a `mod` line above, an entry in [`TARGETS`] and a test.
struct Target {
    name: &'static str,
    run: fn(&[u8]),
    /// Interesting inputs, from which mutations start.
    seeds: &'static [&'static [u8]],
    expected: Expected,
}

#[derive(Clone, Copy)]
enum Expected {
    Passes,
    Panics,
}

const TARGETS: &[Target] = &[
    Target {
        name: "scan",
        run: scan::run,
        seeds: &[
            b"GET /a%20b?c=d HTTP/1.1\r\nHost: example.com\r\nAccept-Encoding: gzip, deflate, br\r\n\r\n",
            b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ: \t\x80\xff\r\n",
        ],
        expected: Expected::Passes,
    },
    Target {
        name: "http1",
        run: http1::run,
        seeds: &[
            b"\x80GET /a?b HTTP/1.1\r\nHost: a:1\r\nContent-Length: 2\r\n\r\nxyGET http://b HTTP/1.0\r\n\r\n",
            b"\x20\r\nPOST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nxy\r\n0\r\nX: y\r\n\r\n",
            b"\xa0HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\nzHTTP/1.0 200\r\n\r\nall",
            b"\x075\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\n",
        ],
        expected: Expected::Passes,
    },
    Target {
        name: "json",
        run: json::run,
        seeds: &[
            b"{\"backends\": [{\"host\": \"a\", \"port\": 9001, \"backup\": true}], \"via\": null}",
            b"\r\n[-0, 1.5e+3, -12E-3, 18446744073709551615, \"\\u00e9\\ud834\\udd1e\\n\xc3\xa9\", [[]], {}]\t",
        ],
        expected: Expected::Passes,
    },
    Target {
        name: "proxy",
        run: proxy::run,
        seeds: &[
            // Accepts, receives a GET, connects, sends, receives a response; then the same on the pooled
            // connection.
            b"\x00\x00\x05\x00\x03\x01\x0a\x01\x55\x01\x0a\x00\x05\x00\x0a\x01\x55\x01\x0a\x00\xff\x00",
            // A chunked upload and a chunked response, both incomplete; a tunnel; failures and time.
            b"\x00\x00\x25\x00\x03\x01\x0a\x01\xa5\x00\x65\x01\xa5\x01\x0a\x00\x0b\x00\xfd\x00",
            b"\x00\x00\x45\x00\x03\x01\x0a\x01\x85\x01\xb5\x00\xb5\x01\x0a\x00\x0a\x01\x0b\x00\x0b\x01\xfd\x00",
            // A tagged request with its response, then another on the same connections.
            b"\x00\x00\x07\x00\x46\x01\x0a\x01\x07\x01\x0a\x00\x17\x00\x0a\x01\x07\x01\x0a\x00",
            // A tagged POST, answered.
            b"\x00\x00\x17\x00\x46\x01\x0a\x01\x07\x01\x0a\x00",
            b"\x00\x00\x15\x00\x03\x01\x4c\x01\xb5\x00\x0c\x01\x05\x00\x00\x01\x05\x00\x08\x00\x9d\x00",
            // A reload moves a request to an idle connection that is about to time out.
            b"\x00\x00\x45\x00\x0b\x01\x0a\x0d\x0a\x01\x4f\xff\x2c\xfe\x00\xff\xf5\x0b\x01\x0a\x0d\x0a\xfd\x00",
            OVER_HTTP2,
            // A POST over HTTP/2 by ALPN, and a HEAD beside it, to backends of both versions.
            b"\xe0\x00\x17\x00\x27\x00\x46\x01\x86\x02\x0a\x01\x0a\x02\x07\x01\x07\x02\x0a\x00\xfd\x00",
        ],
        expected: Expected::Passes,
    },
    Target {
        name: "dns",
        run: dns::run,
        seeds: &[
            // A response with an alias and an address; one with only a SOA record.
            b"ab\x81\x80\0\x01\0\x02\0\0\0\0\x01a\x01b\0\0\x01\0\x01\xc0\x0c\0\x05\0\x01\0\0\0\x09\0\x02\xc0\x0e\
              \xc0\x0e\0\x01\0\x01\0\0\0\x09\0\x04\x0a\0\0\x01",
            b"\x03\x10\xc0\x0e\0\x06\0\x01\0\0\0\x09\0\x16\0\0\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x09",
            // Files.
            b"nameserver 10.0.0.1\nnameserver [::1]:5353\nsearch a.b c\noptions ndots:2 timeout:1 attempts:3 rotate\n",
            b"127.0.0.1 localhost a # b\n::1 a\n",
            // Adds names, answers some, advances the time, removes them.
            b"\0\x47\x5c\0\x6c\x01\x5c\0\x03\0\x03\0\x2c\0\x04\0\x02\x50\x15\0\0\x03\x03\0",
            // Truncated, so repeated over TCP, which fails or answers; other files.
            b"\0\x05\x18\0\x20\0\0\0\x25\x01\xfc\x01\x18\0\x20\0\0\0\x05\x01\x14\x01\x24\x02\x0d\0\x03\0\0\0",
        ],
        expected: Expected::Passes,
    },
    Target {
        name: "hpack",
        run: hpack::run,
        seeds: &[
            // RFC 7541, C.3.3, C.4.1 and C.2.3, and a change of the table's size.
            b"\x82\x87\x85\xbf\x40\x0acustom-key\x0ccustom-value",
            b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
            b"\x3f\xe1\x1f\x10\x08password\x06secret\x82",
        ],
        expected: Expected::Passes,
    },
    Target {
        name: "http2",
        run: http2::run,
        seeds: &[
            // A client's preface, settings and request; a server's settings and response.
            b"\x01\x18PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x09\0\0\0\x04\0\0\0\0\0\x0d\0\0\x04\x01\x05\0\0\0\x01\x82\x86\x84\x41",
            b"\0\x09\0\0\0\x04\0\0\0\0\0\x81\x0a\0\0\x01\x01\x04\0\0\0\x01\x88\x0e\0\0\x05\0\x01\0\0\0\x01hello",
            // A window of nothing for each stream; a request with content on one.
            b"\0\x0f\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0\x80\x86",
            // A part of an unknown frame was taken for a frame.
            b"\0\xf5\0\x08\0\0\0\x04\0\0\0\0\0\x81\n\0\0\x01\x01tttttttttt\x04\0\0\x90\0\x01\0\0\x04\0\0\
              \0\0\xbe\xbe\0\xb2\x91\xa7\xa7\xa7tttttttt\x04\0\0\x90\0\x01\0\0\x04\0\0\0\0\xbe\xbe\0\xb2\
              \x91\xa7\xa7\xa7\xa7\xa7\xa7\xa7\xa7\xb2\0\t\0\0\0\0\x04\0\0\0\0\x81\n\0\0\xf8\0\x04\0\0\0\
              \x01\xf8\0\x04\0\0\0\xa7\xa7\xa7\xa7\xa7\xb2\0\t\0\0\0\x04\0\0\0\0\0\x81\n\0\0\xf8\0\x04\0\
              \0\0\x01\xf8\0\x04\0\0\0\x01\x88\n\0\0\x03W\x03\xff\xffPRI * HTTP\xf5\xf5\0\x89\xf5\xf5\
              \x88\x0e\x01\0\0P\x0b\0\xfb\xff\xffPRI * HT\xff\0\0\x04\0\0\0\0\xbe\xbe\xbe\xbe\xbe",
        ],
        expected: Expected::Passes,
    },
    Target {
        name: "certificate",
        run: certificate::run,
        seeds: &[
            // A whole certificate; a subject and names for one.
            b"0k0d\xa0\x03\x02\x01\x02\x02\x01\x010\x000\x0c1\x0a0\x08\x06\x03U\x04\x03\x0c\x01r\
              0 \x17\x0d200101000000Z\x18\x0f21000101000000Z0\x0c1\x0a0\x08\x06\x03U\x04\x03\
              \x0c\x01a0\0\xa3\x180\x160\x14\x06\x03U\x1d\x11\x04\x0d0\x0b\x82\x03a.b\x87\x04\
              \x0a\0\0\x010\0\x03\x01\0",
            b"\x0e1\x0c0\x0a\x06\x03U\x04\x03\x0c\x03a,b\x82\x03*.b\x87\x10\0\0\0\0\0\0\0\0\0\
              \0\0\0\0\0\0\0",
        ],
        expected: Expected::Passes,
    },
    Target {
        name: "forwarding",
        run: forwarding::run,
        seeds: &[
            b"\x0fPOST http://a/b?c HTTP/1.1\r\nHost: a\r\nConnection: x, TE\r\nX: y\r\nTE: trailers\r\n\
              Transfer-Encoding: chunked\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n",
            b"\0OPTIONS * HTTP/1.0\r\nContent-Length: 3\r\nKeep-Alive: x\r\nProxy-Connection: close\r\n\r\n",
            b"\0GET ?q HTTP/1.1\r\nhost: [::1]:80\r\nConnection: Upgrade\r\nUpgrade: websocket, b/2\r\n\r\n",
            b"\x01HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: a, close\r\nA: b\r\nUpgrade: c\r\n\r\n",
            b"\x08HTTP/1.0 304\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"\0HTTP/1.1 103 Early Hints\r\nConnection: Link\r\nLink: </a>\r\nTE: x\r\nContent-Length: 1\r\n\r\n",
        ],
        expected: Expected::Passes,
    },
    Target {
        name: "config",
        run: config::run,
        seeds: &[
            b"{\"port\": 80, \"backends\": [{\"host\": \"a\", \"port\": 1, \"tls\": true}, \"h2c://[::1]:2,weight=3\"]}",
            b"{\"health_path\": \"/up\", \"retry_budget\": \"20%\", \"trust\": [\"10.0.0.0/8\"], \"strategy\": \"random\"}",
            b"{\"connect_timeout\": \"2s\", \"backends\": [{\"host\": \"a\", \"max\": 3, \"backup\": true, \"a\": 1}]}",
        ],
        expected: Expected::Passes,
    },
    Target {
        name: "args",
        run: args::run,
        seeds: &[
            b"-p\n8080\n--backend=http://a:80,weight=2,backup\n-b\nunix:/a b\n--trust\n10.0.0.0/8\n\nLB_MODE=mp",
            b"healthcheck\n--port\n1\n\nLB_PORT=tcp://1\nLB_HEALTH_PATH=/a",
            b"--check\n--health-status=200-299,404\n--via\nx\n--insecure\n--strategy\nhash:header:X\n--\nstray",
        ],
        expected: Expected::Passes,
    },
    Target {
        name: "proxy_header",
        run: proxy_header::run,
        seeds: &[
            b"PROXY TCP4 192.0.2.1 198.51.100.2 1000 443\r\nGET / HTTP/1.1\r\n",
            b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
            b"PROXY UNKNOWN\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\x30\x39\x01\xbb\x16\x03\x01",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\xc0\0\x02\x01\xc6\x33\x64\x02\x30\x39\x01\xbb\x04\0\x04abcd",
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        ],
        expected: Expected::Passes,
    },
    Target {
        name: "client_hello",
        run: client_hello::run,
        seeds: &[
            // A valid one, split at three places; one with another version of its record; others.
            b"\x06\0\x01\0\x05\0\x09",
            b"\x0a\0\x03\0\x06\0\x07\0\x40\0\x80\0\x01\x02",
            b"\x03\0\x02GET / HTTP/1.1\r\n\r\n",
            b"\x03\0\x04\x16\x03\x01\0\x05\x01\0\0\x01\x03\x16\x03\x01\0\x01\x03",
        ],
        expected: Expected::Passes,
    },
    Target {
        name: "plan",
        run: plan::run,
        seeds: &[b"\x06", b"\xd4\0\x01\x02\0\x20\xff", b"\x01\x08\0\0\0\0\0\0\0random"],
        expected: Expected::Passes,
    },
    Target {
        name: "handover",
        run: handover::run,
        seeds: &[
            b"2 pid=7 generation=3 segment=12 address=[::1]:8080 listeners=5,6 listeners=7 activated=1 \
              admin=9@127.0.0.1:9090 elder=11:1:2:99 elder=12:-:0:- demo=127.0.0.1:1 again=1",
            b"3 pid=7 generation=3 segment=12 listener=[::1]:8080/traffic:5,6/7 listener=[::1]:81/traffic+activated:8 \
              listener=127.0.0.1:9090/admin:9 elder=11:1@8:2:99 older=8 demo=127.0.0.1:1 again=1",
            b"2\n7",
        ],
        expected: Expected::Passes,
    },
    Target { name: "canary", run: canary, seeds: &[b"canary"], expected: Expected::Panics },
];

/// The limit of all kept corpora together.
const CORPORA_BYTES: usize = 1_500_000;
/// The duration of one target.
const TIME: Duration = Duration::from_secs(1);
/// The number of inputs that ends a target early.
const INPUTS: u64 = 100_000;
/// The longest random input, in bytes. Mutations may exceed it.
const LONGEST_RANDOM: u64 = 512;
/// The limit to which mutations grow an input, in bytes.
const LONGEST: usize = 4096;

/// Fails on an input that is one changed byte away from a seed.
fn canary(data: &[u8]) {
    if let [b'c', b'a', b'n', fourth, ..] = data {
        assert!(*fourth < 0x80, "the planted panic");
    }
}

/// An input at which a target panicked.
#[derive(Debug)]
struct Finding {
    number: u64,
    input: Vec<u8>,
    message: String,
}

/// Returns the text of a panic.
fn message(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().unwrap_or(&"(no text)").to_string(),
    }
}

/// Feeds the target until its time or number of inputs is used up, or until it panics.
fn smoke(target: &Target) -> Result<u64, Finding> {
    let deadline = Instant::now() + TIME;
    let mut random = Xorshift(0x2545_f491_4f6c_dd1d);
    let mut input = Vec::new();
    for number in 0..INPUTS {
        // The seeds always run, and at least one more input, even if the target is slow.
        if number > target.seeds.len() as u64 && Instant::now() >= deadline {
            return Ok(number);
        }
        input.clear();
        match target.seeds.get(number as usize) {
            Some(seed) => input.extend_from_slice(seed),
            None => random_input(&mut random, target.seeds, &mut input),
        }
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| (target.run)(&input))) {
            return Err(Finding { number, input, message: message(payload) });
        }
    }
    Ok(INPUTS)
}

fn random_input(random: &mut Xorshift, seeds: &[&[u8]], input: &mut Vec<u8>) {
    if seeds.is_empty() || random.below(8) == 0 {
        let length = random.below(LONGEST_RANDOM);
        input.extend((0..length).map(|_| random.any() as u8));
        return;
    }
    input.extend_from_slice(seeds[random.below(seeds.len() as u64) as usize]);
    for _ in 0..=random.below(4) {
        mutate(random, seeds, input);
    }
    input.truncate(LONGEST);
}

fn mutate(random: &mut Xorshift, seeds: &[&[u8]], input: &mut Vec<u8>) {
    /// Bytes and runs that parsers treat specially.
    const WORDS: [&[u8]; 12] = [
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b":",
        b" ",
        b"\t",
        b",",
        b";",
        b"0",
        b"\xff\xff\xff\xff",
        b"18446744073709551616",
    ];
    let length = input.len() as u64;
    let at = random.below(length + 1) as usize;
    let to = at + random.below((length - at as u64).min(32) + 1) as usize;
    match random.below(8) {
        0 | 1 if length > 0 => input[at.min(length as usize - 1)] = random.any() as u8,
        2 if length > 0 => input[at.min(length as usize - 1)] ^= 1 << random.below(8),
        3 => input.truncate(at),
        4 => drop(input.drain(at..to)),
        5 => {
            let copy = input[at..to].to_vec();
            input.splice(at..at, copy);
        }
        6 if !seeds.is_empty() => {
            let seed = seeds[random.below(seeds.len() as u64) as usize];
            let from = random.below(seed.len() as u64 + 1) as usize;
            input.truncate(at);
            input.extend_from_slice(&seed[from..]);
        }
        _ => {
            let word = WORDS[random.below(WORDS.len() as u64) as usize];
            input.splice(at..at, word.iter().copied());
        }
    }
}

/// A seeded generator of its own, so that a change elsewhere does not change the inputs.
struct Xorshift(u64);

impl Xorshift {
    fn any(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The low bits of the state alone are weak.
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8
    }

    /// A number below `bound`; 0 for 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.any() % bound.max(1)
    }
}

fn check(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("the target is registered");
    let found = smoke(target);
    match (&found, target.expected) {
        (Ok(_), Expected::Passes) | (Err(_), Expected::Panics) => (),
        (Ok(inputs), Expected::Panics) => panic!("fuzz target {name}: no panic in {inputs} inputs"),
        (Err(Finding { number, input, message }), Expected::Passes) => {
            panic!("fuzz target {name}, input {number}, \"{}\": {message}", input.escape_ascii())
        }
    }
}

#[test]
fn scan_agrees_with_its_predicates() {
    check("scan");
}

#[test]
fn http1_reads_the_same_for_every_split() {
    check("http1");
}

#[test]
fn json_has_positions_and_survives_a_round_trip() {
    check("json");
}

#[test]
fn the_proxy_bounds_its_queues_and_loses_nothing() {
    check("proxy");
}

#[test]
fn names_are_read_within_bounds_and_no_lookup_is_lost() {
    check("dns");
}

#[test]
fn hpack_decodes_deterministically_and_decodes_its_own_output() {
    check("hpack");
}

#[test]
fn http2_keeps_its_bounds_in_either_role() {
    check("http2");
}

#[test]
fn certificates_are_read_within_bounds() {
    check("certificate");
}

#[test]
fn forwarding_keeps_the_framing() {
    check("forwarding");
}

#[test]
fn configuration_files_are_read_or_refused_in_words() {
    check("config");
}

#[test]
fn arguments_are_read_the_same_twice() {
    check("args");
}

#[test]
fn proxy_headers_are_read_within_bounds_and_mean_the_same_again() {
    check("proxy_header");
}

#[test]
fn the_first_message_of_a_tls_client_means_the_same_for_every_split() {
    check("client_hello");
}

#[test]
fn plans_survive_their_way_to_the_workers() {
    check("plan");
}

#[test]
fn handovers_survive_a_round_trip() {
    check("handover");
}

/// A client over HTTP/2 sends a tagged GET, which a backend answers.
const OVER_HTTP2: &[u8] = b"\xe0\x01\x07\x00\x46\x01\x0a\x01\x07\x01\x0a\x00";

/// Changes the bytes to a client over HTTP/2, which begin with SETTINGS, if they end with a tagged response.
fn to_client(text: &mut Vec<u8>, change: impl Fn(&mut Vec<u8>, usize)) {
    let last = text.len().saturating_sub(9 + 16);
    if text.get(3..5) == Some(&[4, 0]) && text.get(last..last + 5) == Some(&[0, 0, 16, 0, 1]) {
        change(text, last);
    }
}

/// Appends to these bytes.
fn behind(text: &mut Vec<u8>, tail: &[u8]) {
    to_client(text, |text, _| text.extend(tail));
}

/// True if a target panics on one of its own seeds with a planted fault.
fn notices(name: &str, run: impl Fn(&[u8])) -> bool {
    let target = TARGETS.iter().find(|target| target.name == name).expect("the target is registered");
    target.seeds.iter().any(|seed| catch_unwind(AssertUnwindSafe(|| run(seed))).is_err())
}

#[test]
fn each_oracle_notices_a_planted_fault() {
    // A response with the tag, and one with the content, of another request.
    let plants: [fn(&mut Vec<u8>); 2] =
        [|text| replace(text, b"X-Tag: 1", b"X-Tag: 2"), |text| _ = text.last_mut().map(|last| *last ^= 1)];
    for plant in plants {
        assert!(notices("proxy", |seed| proxy::run_with(seed, proxy::Plants { answer: plant, ..proxy::Plants::NONE })));
    }
    // A request that is not idempotent is delivered twice; a request gets two final heads.
    let plants: [fn(&mut Vec<u8>); 2] =
        [|text| repeat(text, b"POST /r/"), |text| repeat(text, b"HTTP/1.1 200 OK\r\nX-Tag")];
    for sent in plants {
        assert!(notices("proxy", |seed| proxy::run_with(seed, proxy::Plants { sent, ..proxy::Plants::NONE })));
    }
    // Over HTTP/2: four faults of content, and three of windows.
    type Change = fn(&mut Vec<u8>);
    let plants: [(Change, &str); 7] = [
        (|text| to_client(text, |text, _| _ = text.last_mut().map(|last| *last ^= 1)), ""),
        (|text| to_client(text, |text, last| text.extend_from_within(last..)), ""),
        (|text| to_client(text, |text, last| text[last + 8] += 2), ""),
        (|text| to_client(text, |text, last| _ = (text[last + 2] = 15, text.pop())), ""),
        (|text| behind(text, b"\0\0\0\x04\x01\0\0\0\0"), "that were not sent"),
        (|text| behind(text, b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\xff\xff"), "a window of"),
        (|text| behind(text, &[&b"\0\x40\0\0\0\0\0\0\x01"[..], &[0; 16_384]].concat().repeat(5)), "too many"),
    ];
    for (sent, expected) in plants {
        let run = || proxy::run_with(OVER_HTTP2, proxy::Plants { sent, ..proxy::Plants::NONE });
        let text = message(catch_unwind(AssertUnwindSafe(run)).expect_err("it is noticed"));
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(notices("http1", |seed| http1::run_with(seed, false)));
    assert!(notices("http2", |seed| http2::run_with(seed, false)));
    // A second length, an unfinished head, and a response that only the next hop sees as chunked.
    let plants: [fn(&mut Vec<u8>); 3] = [
        |text| drop(text.splice(text.len() - 2.., *b"Content-Length: 7\r\n\r\n")),
        |text| text.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n"),
        |text| drop(text.splice(text.len() - 2.., *b"Transfer-Encoding: chunked\r\n\r\n")),
    ];
    for plant in plants {
        assert!(notices("forwarding", |seed| forwarding::run_with(seed, plant)));
    }
    assert!(notices("config", |seed| config::run_with(seed, |bytes| _ = bytes.pop())));
    assert!(notices("args", |seed| args::run_with(seed, |words| drop(words.pop()))));
    assert!(notices("plan", |seed| plan::run_with(seed, |bytes| _ = bytes.pop())));
    assert!(notices("client_hello", |seed| client_hello::run_with(seed, |bytes| _ = bytes.pop())));
    assert!(notices("proxy_header", |seed| proxy_header::run_with(seed, |bytes| _ = bytes.pop())));
    assert!(notices("handover", |seed| handover::run_with(seed, |line| _ = line.pop())));
}

/// Appends a message to itself if it begins so.
fn repeat(text: &mut Vec<u8>, start: &[u8]) {
    if text.starts_with(start) {
        text.extend_from_within(..);
    }
}

fn replace(text: &mut Vec<u8>, from: &[u8], to: &[u8]) {
    if let Some(at) = text.windows(from.len()).position(|window| window == from) {
        text.splice(at..at + from.len(), to.iter().copied());
    }
}

/// The kept inputs of a target.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(files) = std::fs::read_dir(format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"))) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("the folder can be read").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("an input can be read"))).collect()
}

#[test]
fn the_kept_corpora_replay() {
    let mut total = 0;
    for target in TARGETS.iter().filter(|target| target.name != "canary") {
        let kept = corpus(target.name);
        assert!(!kept.is_empty(), "nothing is kept for {}", target.name);
        for (path, input) in kept {
            total += input.len();
            let result = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
            assert!(result.is_ok(), "fuzz target {}, input {}", target.name, path.display());
        }
    }
    assert!(total <= CORPORA_BYTES, "{total} bytes are kept: minimise them (make fuzz-min)");
}

#[test]
fn the_canary_is_found_by_mutation() {
    check("canary");
    let canary = TARGETS.iter().find(|target| target.name == "canary").expect("the canary is registered");
    let finding = smoke(canary).expect_err("the canary panics");
    assert!(finding.message.contains("the planted panic"), "{}", finding.message);
    assert!(finding.number >= canary.seeds.len() as u64, "a seed itself set the canary off");
}

#[test]
fn every_target_file_is_registered() {
    let listed = |folder: &str| {
        let folder = format!("{}/fuzz/{folder}", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(&folder).expect("the folder is part of the repository");
        let mut names: Vec<String> = files
            .map(|file| file.expect("the folder can be read").path())
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        names.sort();
        names
    };
    let mut registered: Vec<&str> = TARGETS.iter().map(|target| target.name).filter(|name| *name != "canary").collect();
    registered.sort_unstable();
    assert_eq!(listed("targets"), registered);
    assert_eq!(listed("fuzz_targets"), registered);
}
