//! HPACK with the stories of hpack-test-case, which are expected beside the repository: every block decodes to
//! its fields, and so does the output of our encoder for every list.

use std::path::PathBuf;

use crate::support::corpus;
use zzz_lb::hpack::{self, Decoder};
use zzz_lb::json::{self, Kind, Value};

/// The limit of the field list; no story comes near it.
const LIST_BYTES: usize = 1 << 20;

fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match &value.kind {
        Kind::Object(members) => members.iter().find(|member| member.key == name).map(|member| &member.value),
        _ => None,
    }
}

fn items(value: Option<&Value>) -> &[Value] {
    match value.map(|value| &value.kind) {
        Some(Kind::Array(items)) => items,
        _ => panic!("a list was expected"),
    }
}

fn text(value: &Value) -> &str {
    match &value.kind {
        Kind::String(text) => text,
        other => panic!("a string was expected, not {}", other.name()),
    }
}

type Fields = Vec<(String, String)>;

/// A story: each block, if it is encoded, and its fields.
fn story(path: &PathBuf) -> Vec<(Option<Vec<u8>>, Fields)> {
    let parsed = json::parse(&std::fs::read(path).expect("a story can be read")).expect("a story is JSON");
    let case = |case: &Value| {
        let wire = member(case, "wire").map(|wire| {
            let digits = text(wire).as_bytes().chunks(2);
            let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).expect("hexadecimal digits");
            digits.map(byte).collect()
        });
        let field = |field: &Value| match &field.kind {
            Kind::Object(members) => (members[0].key.clone(), text(&members[0].value).to_owned()),
            other => panic!("a field was expected, not {}", other.name()),
        };
        (wire, items(member(case, "headers")).iter().map(field).collect())
    };
    items(member(&parsed, "cases")).iter().map(case).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Fields {
    let mut fields = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the stories are text");
    let done = decoder.decode(block, LIST_BYTES, |name, value| fields.push((text(name), text(value))));
    done.unwrap_or_else(|error| panic!("{error}"));
    fields
}

#[test]
fn every_story_and_its_re_encoding_decode_to_its_fields() {
    let Some(directory) = corpus("hpack-test-case") else { return };
    let (mut decoded, mut encoded) = (0, 0);
    for encoder in ["nghttp2", "nghttp2-change-table-size", "raw-data"] {
        let entries = std::fs::read_dir(directory.join(encoder)).unwrap_or_else(|error| panic!("{encoder}: {error}"));
        for path in entries.flatten().map(|entry| entry.path()) {
            let mut decoder = Decoder::new(4096);
            for (wire, fields) in story(&path) {
                if let Some(wire) = wire {
                    assert_eq!(decode(&mut decoder, &wire), fields, "{}", path.display());
                    decoded += 1;
                }
                let mut block = Vec::new();
                fields.iter().for_each(|(name, value)| hpack::encode(&mut block, name.as_bytes(), value.as_bytes()));
                assert_eq!(decode(&mut Decoder::new(4096), &block), fields, "{}", path.display());
                encoded += 1;
            }
        }
    }
    assert!(decoded > 1000 && encoded > decoded, "only {decoded} blocks and {encoded} lists were found");
    println!("{decoded} blocks decoded, {encoded} encoded");
}
