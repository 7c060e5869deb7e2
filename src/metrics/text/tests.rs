//! The text format, checked line by line.

use super::*;
use crate::metrics::private;
use std::collections::BTreeSet;

/// The README's table: a line for each family.
fn readme_table() -> String {
    let backends = "`backend`";
    let tables = [
        (SlotCount::METRICS, backends),
        (SlotTime::METRICS, backends),
        (SlotState::METRICS, backends),
        (Count::METRICS, ""),
        (OwnTime::METRICS, ""),
        (Global::METRICS, ""),
        (PairState::METRICS, "`certificate`"),
    ];
    let mut table = "| metric | labels | meaning |\n|---|---|---|\n".to_string();
    for (metrics, shared) in tables {
        for family in metrics.chunk_by(|one, next| one.family == next.family) {
            if table.contains(&format!("| `{}` |", Name(family[0].family))) {
                // The master and the workers count it together.
                continue;
            }
            let own = family[0].label.split_once('=').map(|(name, _)| format!("`{name}`"));
            let address = (family[0].family == "healthy").then_some("`address`");
            let labels = [own.as_deref(), address, Some(shared).filter(|shared| !shared.is_empty())];
            let labels = labels.into_iter().flatten().collect::<Vec<_>>().join(", ");
            let _ = writeln!(table, "| `{}` | {labels} | {} |", Name(family[0].family), family[0].help);
        }
    }
    table
}

#[test]
fn readme_has_the_table_of_metrics() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).expect("README.md stands beside Cargo.toml");
    let table = readme.split_once("<!-- metrics -->\n").and_then(|(_, rest)| rest.split_once("<!-- /metrics -->"));
    let expected = readme_table();
    assert!(
        table.is_some_and(|(table, _)| table == expected),
        "README.md must have this between the lines `<!-- metrics -->` and `<!-- /metrics -->`:\n\n{expected}"
    );
}

fn text(enough: usize) -> String {
    text_of(Detail::Address, enough)
}

fn text_of(detail: Detail, enough: usize) -> String {
    let workers = [private(4), private(4)];
    for (n, block) in workers.iter().enumerate() {
        block.add(Count::Clients, 3 + n as u64);
        block.set(Count::CpuTime, 1_500_000);
        block.adopt(1, 7);
        block.adopt(2, 8);
        block.add_response(1, 200 + n as u16 * 300);
        block.add_response(2, 200);
        block.observe_slot(SlotTime::Response, 1, 700);
        block.observe(OwnTime::Request, 700);
    }
    let mut listing = Listing::new(detail);
    listing.add("a\"b\\c\nd", "10.0.0.1:80", Place { slot: 1, generation: 7 }, 2, 5);
    listing.add("unix:/s", "/s", Place { slot: 2, generation: 9 }, 1, 0);
    listing.add_unresolved("api:443");
    let listing = Arc::new(listing);
    // Of the first no certificate was seen.
    let state = |state, one: Place| if state == SlotState::Expiry { one.slot as u64 - 1 } else { one.slot as u64 };
    let sources = Sources { workers: &workers, globals: private(0), state: &state };
    let mut exposition = Exposition::new(listing);
    let mut whole = String::new();
    loop {
        let mut portion = String::new();
        let more = exposition.write(&sources, &mut portion, enough);
        whole += &portion;
        if !more {
            return whole;
        }
    }
}

#[test]
fn portions_make_the_same_text_as_one_go() {
    let whole = text(usize::MAX);
    assert!([1, 100, 5000].into_iter().all(|enough| text(enough) == whole));
    let whole = text_of(Detail::Backend, usize::MAX);
    assert!([1, 100, 5000].into_iter().all(|enough| text_of(Detail::Backend, enough) == whole));
}

#[test]
fn workers_are_added_up_and_other_generations_left_out() {
    let text = text(usize::MAX);
    let has = |line: &str| assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    has("zzz_lb_client_connections_total 7");
    has("process_cpu_seconds_total 3");
    has(r#"zzz_lb_requests_total{backend="a\"b\\c\nd",address="10.0.0.1:80",code="2xx"} 1"#);
    has(r#"zzz_lb_requests_total{backend="a\"b\\c\nd",address="10.0.0.1:80",code="5xx"} 1"#);
    has(r#"zzz_lb_requests_total{backend="unix:/s",address="/s",code="2xx"} 0"#);
    has(r#"zzz_lb_requests_total{backend="api:443",code="2xx"} 0"#);
    has(r#"zzz_lb_healthy{backend="api:443"} 0"#);
    has(r#"zzz_lb_addresses{backend="api:443"} 0"#);
    has(r#"zzz_lb_max{backend="a\"b\\c\nd"} 5"#);
    assert_eq!(text.matches("zzz_lb_max{").count(), 1, "{text}");
    has("zzz_lb_request_duration_seconds_count 2");
    has(r#"zzz_lb_request_duration_seconds_bucket{le="0.001"} 2"#);
    has(r#"zzz_lb_certificate_expiry_timestamp_seconds{backend="unix:/s",address="/s"} 1"#);
    assert_eq!(text.matches("certificate_expiry_timestamp_seconds{").count(), 1, "{text}");
    has(r#"zzz_lb_response_duration_seconds_bucket{backend="a\"b\\c\nd",address="10.0.0.1:80",le="0.0005"} 0"#);
    has(r#"zzz_lb_response_duration_seconds_bucket{backend="a\"b\\c\nd",address="10.0.0.1:80",le="0.001"} 2"#);
    has(r#"zzz_lb_response_duration_seconds_count{backend="a\"b\\c\nd",address="10.0.0.1:80"} 2"#);
    has(r#"zzz_lb_response_duration_seconds_sum{backend="a\"b\\c\nd",address="10.0.0.1:80"} 0.0014"#);
}

#[test]
fn a_backend_has_the_counts_of_all_its_addresses_and_of_those_it_had() {
    let block = private(4);
    let mut listing = Listing::new(Detail::Backend);
    for slot in 0..3 {
        let place = Place { slot, generation: 5 };
        block.adopt(slot, 5);
        block.add_response(slot, 200);
        block.observe_slot(SlotTime::Response, slot, 30_000);
        if slot < 2 {
            listing.add("api:80", &format!("10.0.0.{slot}:80"), place, 1, 0)
        } else {
            listing.add_gone("api:80", place)
        }
    }
    // Its slot has another owner by now.
    listing.add_gone("api:80", Place { slot: 3, generation: 4 });
    let sources = Sources { workers: &[block], globals: private(0), state: &|_, _| 1 };
    let text = portions_of(Arc::new(listing), &sources, usize::MAX, |_| {}).concat();
    check(&text);
    let has = |line: &str| assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    has(r#"zzz_lb_requests_total{backend="api:80",code="2xx"} 3"#);
    has(r#"zzz_lb_healthy{backend="api:80",address="10.0.0.1:80"} 1"#);
    has(r#"zzz_lb_addresses{backend="api:80"} 2"#);
    has(r#"zzz_lb_response_duration_seconds_bucket{backend="api:80",le="0.01"} 0"#);
    has(r#"zzz_lb_response_duration_seconds_bucket{backend="api:80",le="0.05"} 3"#);
    has(r#"zzz_lb_response_duration_seconds_bucket{backend="api:80",le="+Inf"} 3"#);
}

#[test]
fn a_thousand_busy_backends_make_a_megabyte_and_a_half() {
    let (block, mut listing) = (private(1000), Listing::new(Detail::Backend));
    for slot in 0..1000 {
        let name = format!("10.20.{}.{}:8080", 100 + slot / 200, 50 + slot % 200);
        listing.add(&name, &name, Place { slot, generation: 1 }, 1, 100);
        block.adopt(slot, 1);
        let counts = SlotCount::ALL.iter().zip(SlotCount::METRICS).filter(|(_, one)| one.kind != Kind::Rare);
        counts.for_each(|(&count, _)| block.add_slot(count, slot, 1_234_567));
        block.add_slot(SlotCount::FromBackend, slot, 1 << 40);
        (0..1000).for_each(|n| block.observe_slot(SlotTime::Response, slot, n * 1000));
    }
    let sources = Sources { workers: &[block], globals: private(0), state: &|_, _| 1 };
    let text = portions_of(Arc::new(listing), &sources, 16 << 10, |_| {}).concat();
    assert!(text.len() <= 1_500_000, "{}", text.len());
    check(&text);
}

type Labels<'a> = Vec<(&'a str, String)>;

/// A sample's name and its labels, `le` apart.
fn parsed(series: &str) -> (&str, Labels<'_>, Option<String>) {
    let (name, mut rest) = series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest));
    let (mut labels, mut bound) = (Vec::new(), None);
    assert!(rest.is_empty() || rest.ends_with('}'), "{series}");
    while !rest.is_empty() && rest != "}" {
        let (label, quoted) = rest.split_once("=\"").unwrap_or_else(|| panic!("{series}"));
        assert!(label.bytes().all(|b| b.is_ascii_lowercase()), "{series}");
        let (mut value, mut escaped, mut end) = (String::new(), false, None);
        for (at, c) in quoted.char_indices() {
            match (escaped, c) {
                (true, 'n') => value.push('\n'),
                (true, '\\' | '"') => value.push(c),
                (true, _) => panic!("{series}: \\{c}"),
                (false, '\\') => {}
                (false, '"') => {
                    end = Some(at);
                    break;
                }
                (false, _) => value.push(c),
            }
            escaped = !escaped && c == '\\';
        }
        rest = &quoted[end.unwrap_or_else(|| panic!("{series}: not closed")) + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
        if label == "le" { bound = Some(value) } else { labels.push((label, value)) }
    }
    (name, labels, bound)
}

/// Panics if a text violates the exposition format.
fn check(text: &str) {
    assert!(text.ends_with('\n'));
    let (mut families, mut series) = (BTreeSet::new(), BTreeSet::new());
    let (mut family, mut kind) = ("", "");
    // Of the histogram that is being read: labels, last bound, and how much lies below it.
    let mut below: Option<(Labels<'_>, f64, u64)> = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(named) = line.strip_prefix("# HELP ") {
            let help;
            (family, help) = named.split_once(' ').unwrap();
            assert!(families.insert(family) && !help.is_empty(), "{line}");
            assert!(family.starts_with("zzz_lb_") || family.starts_with("process_"), "{line}");
            assert!(family.bytes().all(|b| b == b'_' || b.is_ascii_lowercase() || b.is_ascii_digit()), "{line}");
            let typed = lines.next().and_then(|line| line.strip_prefix("# TYPE ")).unwrap();
            kind = typed.strip_prefix(family).unwrap().trim_start();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{typed}");
            assert_eq!(family.ends_with("_total"), kind == "counter", "{typed}");
            continue;
        }
        let (name, number) = line.rsplit_once(' ').unwrap();
        assert!(series.insert(name), "{name} comes twice");
        assert!(number.parse::<f64>().is_ok_and(|number| number >= 0.0), "{line}");
        let (name, labels, bound) = parsed(name);
        match name.strip_prefix(family).unwrap_or_else(|| panic!("{line} stands with {family}")) {
            "" => assert!(kind != "histogram" && bound.is_none(), "{line}"),
            "_bucket" => {
                let bound = bound.unwrap().replace("+Inf", "inf").parse::<f64>().unwrap();
                let (of, last, count) = below.take().unwrap_or((labels.clone(), 0.0, 0));
                let number = number.parse().unwrap();
                assert!(of == labels && last < bound && count <= number, "{line}");
                below = Some((labels, bound, number));
            }
            "_sum" => assert_eq!(below.as_ref().map(|below| &below.0), Some(&labels), "{line}"),
            "_count" => {
                assert_eq!(below.take(), Some((labels, f64::INFINITY, number.parse().unwrap())), "{line}")
            }
            _ => panic!("{line} stands with {family}"),
        }
    }
}

#[test]
fn nothing_is_malformed_and_no_series_comes_twice() {
    let text = text(usize::MAX);
    check(&text);
    let count = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!(count("# HELP "), count("# TYPE "));
    assert_eq!(count("zzz_lb_response_duration_seconds_bucket{"), 3 * (BOUNDS_US.len() + 1));
    assert!(parsed(r#"x{backend="a\"b\\c\nd"}"#).1.contains(&("backend", "a\"b\\c\nd".to_string())));
}

/// The portions of a text, with an action before each.
fn portions_of(
    listing: Arc<Listing>,
    sources: &Sources<'_>,
    enough: usize,
    mut before: impl FnMut(usize),
) -> Vec<String> {
    let (mut exposition, mut portions) = (Exposition::new(listing), Vec::new());
    loop {
        before(portions.len());
        let mut portion = String::new();
        let more = exposition.write(sources, &mut portion, enough);
        portions.push(portion);
        if !more {
            return portions;
        }
    }
}

/// The portions of a text about this many backends.
fn portions(workers: &[Block], slots: usize, enough: usize, before: impl FnMut(usize)) -> Vec<String> {
    let mut listing = Listing::new(Detail::Address);
    (0..slots).for_each(|slot| listing.add(&format!("b{slot}"), "/s", Place { slot, generation: 1 }, 1, 0));
    let sources = Sources { workers, globals: private(0), state: &|_, _| 1 };
    portions_of(Arc::new(listing), &sources, enough, before)
}

#[test]
fn a_portion_is_bounded_in_bytes() {
    let portions = portions(&[private(300)], 300, 16 << 10, |_| {});
    assert!(portions.len() > 30);
    assert!(portions.iter().all(|portion| portion.len() < (16 << 10) + 4096 && !portion.is_empty()));
    check(&portions.concat());
}

#[test]
fn a_portion_is_bounded_in_cells_that_are_read() {
    let workers = vec![private(8); 2000];
    let portions = portions(&workers, 8, usize::MAX, |_| {});
    // One histogram of this many workers takes more cells than a portion may.
    const { assert!(2000 * Histogram::CELLS > METRICS_CELLS) };
    assert!(portions.iter().all(|portion| portion.matches("_sum{").count() <= 1));
    check(&portions.concat());
}

#[test]
fn no_backends_are_no_trouble() {
    let text = portions(&[], 0, usize::MAX, |_| {}).concat();
    check(&text);
    assert!(text.contains("# TYPE zzz_lb_healthy gauge\n") && !text.contains("backend="));
}

#[test]
fn slots_may_change_hands_while_a_text_is_made() {
    let block = private(20);
    (0..20).for_each(|slot| block.adopt(slot, 1));
    (0..20).for_each(|slot| block.observe_slot(SlotTime::Response, slot, 5));
    // More slots than the block has cells for. One after another gets another owner.
    let text = portions(&[block], 25, 1, |n| block.adopt(n % 20, 2)).concat();
    check(&text);
    assert!(text.contains("zzz_lb_response_duration_seconds_count{backend=\"b3\",address=\"/s\"} 0\n"));
}
