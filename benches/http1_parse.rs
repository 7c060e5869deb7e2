//! Parsing HTTP/1 heads. The `scan` rows are the byte scanners under the parser, by each
//! implementation that this processor has, over the runs that heads are made of.

mod timer;

use std::hint::black_box;

use timer::Timer;
use zzz_lb::http1::scan::{self, Scanner};

/// What a load generator sends: the smallest head worth parsing.
const SMALL: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: wrk/4.2.0\r\n\r\n";

/// What a browser sends.
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

/// Every call of a scanner that a parser would make for the head; how many bytes were in the runs.
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

/// The runs of a head's field lines, each with all that follows it in the head, in an order that
/// branch predictors cannot learn: `(names, values)`.
fn runs(head: &[u8]) -> (Vec<&[u8]>, Vec<&[u8]>) {
    let (mut names, mut values) = (Vec::new(), Vec::new());
    let mut at = scan::line_feed(head).map_or(0, |end| end + 1);
    while head[at] != b'\r' {
        names.push(&head[at..]);
        at += scan::token_end(&head[at..]) + 2;
        values.push(&head[at..]);
        at += scan::value_end(&head[at..]) + 2;
    }
    (shuffled(&names), shuffled(&values))
}

const SHUFFLED: usize = 4096;

fn shuffled<'a>(runs: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let mut state = 1_u64;
    let mut any = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    (0..SHUFFLED).map(|_| runs[any() % runs.len()]).collect()
}

fn total(slices: &[&[u8]], end: impl Fn(&[u8]) -> usize) -> usize {
    slices.iter().map(|slice| end(slice)).sum()
}

fn scan_rows(timer: &mut Timer) {
    let (names, values) = runs(BROWSER);
    let name_bytes = total(&names, scan::token_end);
    let value_bytes = total(&values, scan::value_end);
    for scanner in Scanner::available() {
        let level = scanner.name();
        // Opaque, so that the level is looked at in each call, as it is by a parser.
        let opaque = || black_box(scanner);
        timer.row(&format!("scan/{level}/name"), SHUFFLED, name_bytes, || {
            let scanner = opaque();
            total(black_box(&names), |slice| scanner.token_end(slice))
        });
        timer.row(&format!("scan/{level}/value"), SHUFFLED, value_bytes, || {
            let scanner = opaque();
            total(black_box(&values), |slice| scanner.value_end(slice))
        });
        timer.row(&format!("scan/{level}/small_head"), 1, SMALL.len(), || walk(black_box(SMALL), opaque()));
        timer.row(&format!("scan/{level}/browser_head"), 1, BROWSER.len(), || walk(black_box(BROWSER), opaque()));
    }
    timer.row("scan/name", SHUFFLED, name_bytes, || total(black_box(&names), scan::token_end));
    timer.row("scan/value", SHUFFLED, value_bytes, || total(black_box(&values), scan::value_end));
    timer.row("scan/small_head", 1, SMALL.len(), || walk(black_box(SMALL), Scanner::chosen()));
    timer.row("scan/browser_head", 1, BROWSER.len(), || walk(black_box(BROWSER), Scanner::chosen()));
    timer.row("scan/chosen", 1, 0, Scanner::chosen);
}

fn main() {
    let mut timer = Timer::new();
    scan_rows(&mut timer);
    timer.finish();
}
