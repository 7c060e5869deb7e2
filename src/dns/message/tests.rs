//! Hand-made messages: the content that is accepted, and the content that is not.

use super::*;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn question() -> Question {
    Question { id: 0x1234, name: name("www.example.com"), family: Family::V4 }
}

/// A response to `question` with these flags in addition to RESPONSE, and encoded records.
fn message(flags: u16, answers: &[Vec<u8>], authorities: &[Vec<u8>]) -> Vec<u8> {
    let mut message = question().query();
    message[2..4].copy_from_slice(&(RESPONSE | RECURSION_AVAILABLE | flags).to_be_bytes());
    message[6..8].copy_from_slice(&(answers.len() as u16).to_be_bytes());
    message[8..10].copy_from_slice(&(authorities.len() as u16).to_be_bytes());
    answers.iter().chain(authorities).for_each(|record| message.extend(record));
    message
}

fn record(owner: &[u8], record_type: u16, ttl_s: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = owner.to_vec();
    bytes.extend(record_type.to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    bytes.extend(ttl_s.to_be_bytes());
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn soa(ttl_s: u32, minimum: u32) -> Vec<u8> {
    let mut data = b"\x02ns\0\x04root\0".to_vec();
    [1, 2, 3, 4, minimum].iter().for_each(|n: &u32| data.extend(n.to_be_bytes()));
    record(b"\x07example\x03com\0", TYPE_SOA, ttl_s, &data)
}

fn parse(message: &[u8]) -> Reply {
    Reply::parse(message, &question())
}

fn found(addresses: &[&str], ttl_s: u32) -> Reply {
    Reply::Found { addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(), ttl_s }
}

/// A pointer to the question's name.
const ASKED: &[u8] = b"\xc0\x0c";

#[test]
fn a_query_is_a_header_and_a_question() {
    let query = Question { id: 0x1234, name: name("wWw.a."), family: Family::V6 }.query();
    assert_eq!(query, b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x01a\0\0\x1c\0\x01");
}

#[test]
fn names_have_labels_of_bounded_length() {
    assert_eq!(name("A.b").0, b"\x01a\x01b\0");
    for refused in ["", ".", "..", "a..b", ".a", "a..", &"x".repeat(64), &"abcdefg.".repeat(32)] {
        assert_eq!(Name::parse(refused), None, "{refused}");
    }
    let longest = "x.".repeat(127);
    assert_eq!(name(&longest).0.len(), DNS_NAME_BYTES);
    assert_eq!(name("a").below(&name("b.c")), Some(name("a.b.c")));
    assert_eq!(name("a").below(&name(&longest)), None);
}

#[test]
fn addresses_come_with_the_shortest_ttl() {
    let answers = [record(ASKED, TYPE_A, 60, &[10, 0, 0, 1]), record(ASKED, TYPE_A, 30, &[10, 0, 0, 2])];
    assert_eq!(parse(&message(0, &answers, &[])), found(&["10.0.0.1", "10.0.0.2"], 30));
    let question = Question { family: Family::V6, ..question() };
    let mut answer = message(0, &[record(ASKED, TYPE_AAAA, 1 << 31, &[1; 16]), answers[0].clone()], &[]);
    assert_eq!(parse(&answer), found(&["10.0.0.1"], 60));
    answer[HEADER_BYTES + 17 + 1] = TYPE_AAAA as u8;
    assert_eq!(Reply::parse(&answer, &question), found(&["101:101:101:101:101:101:101:101"], 0));
}

#[test]
fn only_the_answer_to_the_question_counts() {
    let answer = message(0, &[record(ASKED, TYPE_A, 60, &[10, 0, 0, 1])], &[]);
    let changed = |at: usize, byte: u8| {
        let mut message = answer.clone();
        message[at] = byte;
        parse(&message)
    };
    assert_eq!(changed(14, b'W'), found(&["10.0.0.1"], 60), "case does not count");
    for (at, byte) in [(0, 0x13), (1, 0), (2, 0), (2, 0x88), (5, 0), (5, 2), (13, b'v'), (30, 28), (32, 3)] {
        assert_eq!(changed(at, byte), Reply::Stray, "{at}");
    }
    for length in 0..HEADER_BYTES + 21 {
        assert_eq!(parse(&answer[..length]), Reply::Stray, "{length}");
    }
    for length in HEADER_BYTES + 21..answer.len() {
        assert_eq!(parse(&answer[..length]), Reply::Malformed, "{length}");
    }
}

#[test]
fn aliases_are_followed_in_any_order_and_no_further_than_the_bound() {
    let a = record(b"\x01b\0", TYPE_A, 60, &[10, 0, 0, 1]);
    let chain = [a.clone(), record(b"\x01A\0", TYPE_CNAME, 20, b"\x01b\0"), record(ASKED, TYPE_CNAME, 40, b"\x01a\0")];
    assert_eq!(parse(&message(0, &chain, &[])), found(&["10.0.0.1"], 20));
    let circle = [record(ASKED, TYPE_CNAME, 40, ASKED), a.clone()];
    assert_eq!(parse(&message(0, &circle, &[])), Reply::None { exists: true, ttl_s: None });
    let long = |links: u8| -> Vec<Vec<u8>> {
        let link = |n: u8| {
            let owner = if n == 0 { ASKED.to_vec() } else { vec![1, n, 0] };
            record(
                &owner,
                TYPE_CNAME,
                9,
                if n + 1 == links { b"\x01b\0".to_vec() } else { vec![1, n + 1, 0] }.as_slice(),
            )
        };
        (0..links).map(link).chain([a.clone()]).collect()
    };
    assert_eq!(parse(&message(0, &long(DNS_CNAMES as u8), &[])), found(&["10.0.0.1"], 9));
    let reply = parse(&message(0, &long(DNS_CNAMES as u8 + 1), &[]));
    assert_eq!(reply, Reply::None { exists: true, ttl_s: None });
}

#[test]
fn addresses_of_other_names_classes_and_kinds_are_not_taken() {
    let mut chaos = record(ASKED, TYPE_A, 60, &[10, 0, 0, 1]);
    chaos[5] = 3;
    let answers = [
        chaos,
        record(b"\x01x\0", TYPE_A, 60, &[10, 0, 0, 2]),
        record(ASKED, TYPE_AAAA, 60, &[1; 16]),
        record(ASKED, 46, 60, b"signature"),
    ];
    assert_eq!(parse(&message(0, &answers, &[])), Reply::None { exists: true, ttl_s: None });
}

#[test]
fn nothing_holds_for_as_long_as_the_soa_record_says() {
    assert_eq!(parse(&message(0, &[], &[soa(600, 30)])), Reply::None { exists: true, ttl_s: Some(30) });
    assert_eq!(parse(&message(3, &[], &[soa(20, 30)])), Reply::None { exists: false, ttl_s: Some(20) });
    assert_eq!(parse(&message(3, &[], &[])), Reply::None { exists: false, ttl_s: None });
    // The name that does not exist is the last one of a chain.
    let answers = [record(ASKED, TYPE_CNAME, 5, b"\x01b\0"), record(ASKED, TYPE_A, 5, &[10, 0, 0, 1])];
    assert_eq!(parse(&message(3, &answers, &[soa(9, 9)])), Reply::None { exists: false, ttl_s: Some(9) });
    let mut short = soa(600, 30);
    let length = short.len();
    short.truncate(length - 4);
    short[22] -= 4;
    assert_eq!(parse(&message(0, &[], &[short])), Reply::Malformed);
}

#[test]
fn server_failures_are_distinguished() {
    assert_eq!(parse(&message(2, &[], &[])), Reply::Failed(2));
    assert_eq!(parse(&message(5, &[], &[])), Reply::Failed(5));
    let mut unrepeated = message(1, &[], &[])[..HEADER_BYTES].to_vec();
    unrepeated[5] = 0;
    assert_eq!(parse(&unrepeated), Reply::Failed(1));
    unrepeated[3] = 3;
    assert_eq!(parse(&unrepeated), Reply::Stray, "that there is no such name must be said of a name");
    let mut referral = message(0, &[], &[record(b"\0", 2, 60, b"\x01a\0")]);
    assert_eq!(parse(&referral), Reply::None { exists: true, ttl_s: None });
    referral[3] = 0;
    assert_eq!(parse(&referral), Reply::Failed(0));
}

#[test]
fn a_truncated_answer_is_not_looked_at() {
    let answers = [record(ASKED, TYPE_A, 60, &[10, 0, 0, 1])];
    let whole = message(TRUNCATED, &answers, &[]);
    assert_eq!(parse(&whole), Reply::Truncated);
    assert_eq!(parse(&whole[..40]), Reply::Truncated);
}

#[test]
fn pointers_go_backwards_and_only_so_often() {
    let with_owner = |owner: &[u8]| parse(&message(0, &[record(owner, TYPE_A, 60, &[10, 0, 0, 1])], &[]));
    let end = question().query().len() as u8;
    assert_eq!(end, 33);
    assert_eq!(with_owner(b"\x03www\xc0\x10"), found(&["10.0.0.1"], 60));
    // A pointer to itself, forwards, into its own label, and a loop of two.
    for owner in [&[0xc0, end][..], &[0xc0, end + 2], &[0xff, 0xff], &[1, b'a', 0xc0, end], &[0xc0, end + 1]] {
        assert_eq!(with_owner(owner), Reply::Malformed, "{owner:?}");
    }
    assert_eq!(with_owner(b"\x40a\0"), Reply::Malformed);
    assert_eq!(with_owner(b"\x80a\0"), Reply::Malformed);
    // A chain of pointers in the data of an irrelevant record.
    let chain = |pointers: u8| {
        let mut data = ASKED.to_vec();
        let start = end + 12;
        (0..pointers).for_each(|n| data.extend([0xc0, start + n * 2]));
        let last = [0xc0, start + pointers * 2];
        parse(&message(0, &[record(ASKED, 99, 60, &data), record(&last, TYPE_A, 60, &[10, 0, 0, 1])], &[]))
    };
    assert_eq!(chain(8), found(&["10.0.0.1"], 60));
    assert_eq!(chain(100), found(&["10.0.0.1"], 60));
}

#[test]
fn more_pointers_than_a_name_has_labels_are_refused() {
    let start = question().query().len() as u16 + 12;
    let chain = |pointers: u16| {
        let mut data = ASKED.to_vec();
        (0..pointers - 2).for_each(|n| data.extend((0xc000 | (start + n * 2)).to_be_bytes()));
        let last = (0xc000 | (start + (pointers - 2) * 2)).to_be_bytes();
        parse(&message(0, &[record(ASKED, 99, 60, &data), record(&last, TYPE_A, 60, &[10, 0, 0, 1])], &[]))
    };
    assert_eq!(chain(DNS_POINTERS as u16), found(&["10.0.0.1"], 60));
    assert_eq!(chain(DNS_POINTERS as u16 + 1), Reply::Malformed);
}

#[test]
fn a_name_that_grows_too_long_is_refused() {
    let label = [&[63][..], &[b'x'; 63]].concat();
    let owner =
        |labels: usize, last: usize| [label.repeat(labels), vec![last as u8], vec![b'y'; last], vec![0]].concat();
    let with_owner = |owner: &[u8]| parse(&message(0, &[record(owner, TYPE_A, 60, &[10, 0, 0, 1])], &[]));
    assert_eq!(with_owner(&owner(3, 61)), Reply::None { exists: true, ttl_s: None });
    assert_eq!(with_owner(&owner(3, 62)), Reply::Malformed);
}

#[test]
fn data_of_the_wrong_length_is_refused() {
    for data in [&[10, 0, 0][..], &[10, 0, 0, 1, 0]] {
        assert_eq!(parse(&message(0, &[record(ASKED, TYPE_A, 60, data)], &[])), Reply::Malformed);
    }
    assert_eq!(parse(&message(0, &[record(ASKED, TYPE_CNAME, 60, b"\x01a\0b")], &[])), Reply::Malformed);
    let mut long = record(ASKED, TYPE_A, 60, &[10, 0, 0, 1]);
    long[11] = 5;
    assert_eq!(parse(&message(0, &[long], &[])), Reply::Malformed);
}

#[test]
fn records_past_the_bound_are_passed_over() {
    let records: Vec<_> = (0..DNS_RECORDS + 10).map(|n| record(ASKED, TYPE_A, 60, &(n as u32).to_be_bytes())).collect();
    match parse(&message(0, &records, &[])) {
        Reply::Found { addresses, .. } => assert_eq!(addresses.len(), DNS_RECORDS),
        other => panic!("{other:?}"),
    }
}
