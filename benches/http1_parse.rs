//! Benchmarks the parsing of HTTP/1 heads. The `scan` rows are the byte scanners of the parser, with each
//! implementation that this processor supports, over the runs of real heads. The `request` and `response` rows
//! are whole heads.

mod timer;

use std::hint::black_box;
use std::process::ExitCode;

use timer::Timer;
use zzz_lb::http::framing;
use zzz_lb::http::head::{Head, HeadRef};
use zzz_lb::http1::parse;
use zzz_lb::http1::scan::Scanner;

/// The request of a load generator: the smallest realistic head.
const SMALL: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: wrk/4.2.0\r\n\r\n";

/// The request of a browser.
const BROWSER: &[u8] = b"GET /static/app/main.4f2a9c1e.js?v=20260102&lang=en-GB HTTP/1.1\r\n\
Host: www.example.com\r\n\
Connection: keep-alive\r\n\
Cache-Control: max-age=0\r\n\
sec-ch-ua: \"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n\
sec-ch-ua-mobile: ?0\r\n\
sec-ch-ua-platform: \"Linux\"\r\n\
Upgrade-Insecure-Requests: 1\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Sec-Fetch-Site: same-origin\r\n\
Sec-Fetch-Mode: navigate\r\n\
Sec-Fetch-User: ?1\r\n\
Sec-Fetch-Dest: document\r\n\
Referer: https://www.example.com/\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
Cookie: session=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N; theme=dark\r\n\r\n";

/// The response of a server.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx/1.22.1\r\n\
Date: Mon, 23 Nov 2026 08:50:01 GMT\r\n\
Content-Type: text/html; charset=utf-8\r\n\
Content-Length: 1024\r\n\
Connection: keep-alive\r\n\
ETag: \"65a1b2c3-400\"\r\n\
Vary: Accept-Encoding\r\n\r\n";

/// Makes every scanner call that a parser would make for the head. Returns the number of bytes in the runs.
#[inline(always)]
fn walk(head: &[u8], scanner: Scanner) -> usize {
    let mut runs = scanner.token_end(head);
    let mut at = runs + 1;
    runs += scanner.target_end(&head[at..]);
    at += scanner.line_feed(&head[at..]).unwrap_or(0) + 1;
    while head[at] != b'\r' {
        let name = scanner.token_end(&head[at..]);
        at += name + 2;
        let value = scanner.value_end(&head[at..]);
        at += value + 2;
        runs += name + value;
    }
    runs
}

fn scan_rows(timer: &mut Timer) {
    for scanner in Scanner::available() {
        let level = scanner.name();
        // Opaque to the compiler, so that each call selects the implementation, as in the parser.
        let opaque = || black_box(scanner);
        timer.row(&format!("scan/{level}/small"), 1, SMALL.len(), || walk(black_box(SMALL), opaque()));
        timer.row(&format!("scan/{level}/browser"), 1, BROWSER.len(), || walk(black_box(BROWSER), opaque()));
    }
    timer.row("scan/small", 1, SMALL.len(), || walk(black_box(SMALL), Scanner::chosen()));
    timer.row("scan/browser", 1, BROWSER.len(), || walk(black_box(BROWSER), Scanner::chosen()));
}

fn parse_rows(timer: &mut Timer) {
    let mut head = Head::default();
    for (name, text) in [("request/small", SMALL), ("request/browser", BROWSER)] {
        timer.row(name, 1, text.len(), || parse::request(black_box(text), &mut head));
    }
    timer.row("request/browser_in_two", 1, BROWSER.len(), || {
        let first = parse::request(black_box(&BROWSER[..BROWSER.len() / 2]), &mut head);
        (first, parse::request(black_box(BROWSER), &mut head))
    });
    timer.row("response", 1, RESPONSE.len(), || parse::response(black_box(RESPONSE), &mut head));
    let framed = |text, head: &mut Head| {
        let _ = parse::request(text, head);
        framing::request(HeadRef { bytes: text, head })
    };
    timer.row("request/browser_framed", 1, BROWSER.len(), || framed(black_box(BROWSER), &mut head));
}

fn main() -> ExitCode {
    let mut timer = Timer::new();
    scan_rows(&mut timer);
    parse_rows(&mut timer);
    timer.finish()
}
