//! The Cookie field (RFC 6265, 4.2): pairs of a name and a value, with semicolons between them.

use super::fields::{Name, trim};
use super::head::HeadRef;

/// Returns the value of a pair if it has this name.
fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let equals = pair.iter().position(|&byte| byte == b'=')?;
    (trim(&pair[..equals]) == name).then(|| trim(&pair[equals + 1..]))
}

/// Returns the values of all cookies with this name in a head.
pub fn values<'a>(head: HeadRef<'a>, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = head.values(Name::Cookie).flat_map(|field| field.split(|&byte| byte == b';'));
    pairs.filter_map(|pair| value_of(pair, name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::fields::{Field, Span};
    use super::super::head::Head;
    use super::*;

    #[test]
    fn values_are_found_in_every_field_and_by_their_whole_name() {
        let fields = ["a=1; b=2;c = 3 ;aa=4;", "A=5", "a", "a=\"6=7\"; d=", " ; =8"];
        let bytes = fields.concat().into_bytes();
        let mut start = 0;
        let fields = fields.map(|field| {
            start += field.len();
            let value_span = Span::new(start - field.len(), start);
            Field { name: Name::Cookie, name_span: Span::default(), value_span }
        });
        let head = Head { fields: fields.to_vec(), ..Head::default() };
        let head = HeadRef { bytes: &bytes, head: &head };
        let found = |name| values(head, name).map(|value| String::from_utf8_lossy(value).into_owned()).collect();
        for (name, expected) in [
            ("a", vec!["1", "\"6=7\""]),
            ("c", vec!["3"]),
            ("A", vec!["5"]),
            ("d", vec![""]),
            ("e", vec![]),
            ("b=2", vec![]),
        ] {
            let found: Vec<String> = found(name);
            assert_eq!(found, expected, "{name}");
        }
    }
}
