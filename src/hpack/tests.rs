//! Tests the decoder with the examples of RFC 7541, Appendix C, and with invalid blocks, and the encoder with
//! the decoder.

use super::*;
use crate::limits::H2_STRING_BYTES;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Error> {
    let mut fields = Vec::new();
    decoder.decode(block, 10_000, |name, value| {
        fields.push(format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
    })?;
    Ok(fields)
}

#[test]
fn literals_are_read_in_every_representation() {
    // RFC 7541, C.2.
    for (block, field) in [
        ("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", "custom-key: custom-header"),
        ("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path"),
        ("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret"),
        ("82", ":method: GET"),
    ] {
        assert_eq!(decode(&mut Decoder::new(4096), &hex(block)).unwrap(), [field]);
    }
}

#[test]
fn requests_in_a_row_use_the_table_of_those_before() {
    // RFC 7541, C.3 and, with Huffman, C.4.
    for blocks in [
        [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ],
        [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ],
    ] {
        let mut decoder = Decoder::new(4096);
        let mut next = |block: &str| decode(&mut decoder, &hex(block)).unwrap();
        let common = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
        assert_eq!(next(blocks[0]), common);
        assert_eq!(next(blocks[1]), [&common[..], &["cache-control: no-cache"]].concat());
        let last = [":method: GET", ":scheme: https", ":path: /index.html", ":authority: www.example.com"];
        assert_eq!(next(blocks[2]), [&last[..], &["custom-key: custom-value"]].concat());
    }
}

#[test]
fn a_full_table_drops_its_oldest() {
    // RFC 7541, C.6, whose table holds 256 bytes.
    let mut decoder = Decoder::new(256);
    let mut next = |block: &str| decode(&mut decoder, &hex(block)).unwrap();
    let first = next(
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
    );
    let date = "date: Mon, 21 Oct 2013 20:13:21 GMT";
    assert_eq!(first, [":status: 302", "cache-control: private", date, "location: https://www.example.com"]);
    let second = next("4883 640e ffc1 c0bf");
    assert_eq!(second, [":status: 307", "cache-control: private", date, "location: https://www.example.com"]);
    let third = next(
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    );
    assert_eq!(third[0], ":status: 200");
    assert_eq!(third[5], "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
}

#[test]
fn malformed_blocks_are_refused() {
    for (block, error) in [
        ("80", Error::Index),
        ("be", Error::Index),
        ("7f 00 01 61", Error::Index),
        ("ff ff ff ff ff ff", Error::Integer),
        ("00", Error::Short),
        ("00 05 61", Error::Short),
        ("00 01 61 05 62", Error::Short),
        ("00 ff", Error::Short),
        ("82 20", Error::TableSize),
        ("20 20 20 82", Error::TableSize),
        ("3f e2 1f", Error::TableSize),
        ("00 01 61 84 ff ff ff ff", Error::HuffmanEnd),
        ("00 01 61 81 00", Error::HuffmanPadding),
    ] {
        assert_eq!(decode(&mut Decoder::new(4096), &hex(block)), Err(error), "{block}");
    }
}

#[test]
fn the_table_s_size_changes_at_a_block_s_front() {
    let mut decoder = Decoder::new(4096);
    assert_eq!(decode(&mut decoder, &hex("40 01 61 01 62 be")).unwrap(), ["a: b", "a: b"]);
    assert_eq!(decode(&mut decoder, &hex("20 3f e1 1f 82")).unwrap(), [":method: GET"], "to 0, and to 4,096");
    assert_eq!(decode(&mut decoder, &hex("be")), Err(Error::Index), "it was emptied");
}

#[test]
fn a_bomb_is_counted_and_not_built() {
    let mut decoder = Decoder::new(4096);
    // A field of 4,000 bytes, referred to thirty times.
    let mut block = hex("40 01 61 7f");
    let length = 4000 - 127;
    block.extend([(length & 0x7f) as u8 | 0x80, (length >> 7) as u8]);
    block.extend([b'x'; 4000]);
    block.extend([0xbe; 30]);
    let mut given = 0;
    assert_eq!(decoder.decode(&block, 65_536, |_, value| given += value.len()), Err(Error::ListTooLarge));
    assert_eq!(given, 16 * 4000);
    assert_eq!(decode(&mut decoder, &[0x82]).unwrap(), [":method: GET"], "the next block can be decoded");
    assert_eq!(decoder.decode(&[0xbe; 1000], 65_536, |_, _| {}), Err(Error::Excessive));
    // A long name, and two bytes that have it copied twice, again and again.
    let mut block = hex("40 7f");
    block.extend([(length & 0x7f) as u8 | 0x80, (length >> 7) as u8]);
    block.extend([b'x'; 4000]);
    block.push(0);
    block.extend(hex("7e 00").repeat(30_000));
    let mut decoder = Decoder::new(4096);
    assert_eq!(decoder.decode(&block, 65_536, |_, _| {}), Err(Error::Excessive));
}

#[test]
fn a_long_string_holds_no_memory_once_its_block_is_read() {
    let mut decoder = Decoder::new(4096);
    let mut block = Vec::new();
    encode(&mut block, b"x", &vec![b'y'; 100_000]);
    assert_eq!(decoder.decode(&block, 200_000, |_, value| assert_eq!(value.len(), 100_000)), Ok(()));
    assert!(decoder.name.capacity() + decoder.value.capacity() <= 2 * H2_STRING_BYTES);
}

#[test]
fn encoded_fields_decode_and_use_the_static_table() {
    let long = "x".repeat(300);
    for (name, value, length) in [
        (":method", "GET", 1),
        (":status", "404", 1),
        (":status", "599", 5),
        ("Accept-Encoding", "gzip, deflate", 1),
        ("Content-Type", "text/html", 12),
        ("X-Thing", "\u{7f}\u{7f}", 12),
        ("X", "", 4),
        ("Host", long.as_str(), 305),
    ] {
        let mut block = Vec::new();
        encode(&mut block, name.as_bytes(), value.as_bytes());
        let fields = decode(&mut Decoder::new(0), &block).unwrap();
        assert_eq!(fields, [format!("{}: {value}", name.to_ascii_lowercase())]);
        assert_eq!(block.len(), length, "{name}: {value}");
    }
    let mut block = Vec::new();
    table_size(&mut block, 0);
    encode(&mut block, b"a", b"b");
    assert_eq!(decode(&mut Decoder::new(4096), &block).unwrap(), ["a: b"]);
}

#[test]
fn secrets_are_never_to_be_indexed() {
    for name in ["Authorization", "cookie", "Set-Cookie", "proxy-authorization"] {
        let mut block = Vec::new();
        encode(&mut block, name.as_bytes(), b"secret");
        assert_eq!(block[0] & 0xf0, 0x10, "{name}");
    }
    let mut block = Vec::new();
    encode(&mut block, b"user-agent", b"x");
    assert_eq!(block[0] & 0xf0, 0x00);
}

#[test]
fn pseudo_header_fields_have_their_indices() {
    for (index, name) in
        [(AUTHORITY, ":authority"), (METHOD, ":method"), (PATH, ":path"), (SCHEME, ":scheme"), (STATUS, ":status")]
    {
        for value in ["GET", "/index.html", "https", "304", "other"] {
            let (mut direct, mut found) = (Vec::new(), Vec::new());
            encode_indexed(&mut direct, index, value.as_bytes());
            encode(&mut found, name.as_bytes(), value.as_bytes());
            assert_eq!(direct, found, "{name}");
            assert_eq!(decode(&mut Decoder::new(0), &direct).unwrap(), [format!("{name}: {value}")]);
        }
    }
}
