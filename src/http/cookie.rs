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

/// Returns the field without the cookies of this name; `None` if it has none. All other bytes stay, except white space
/// before a pair that comes first now. Empty if nothing is left.
pub fn without(field: &[u8], name: &str) -> Option<Vec<u8>> {
    let is_named = |pair: &&[u8]| value_of(pair, name.as_bytes()).is_some();
    let pairs = || field.split(|&byte| byte == b';');
    if !pairs().any(|pair| is_named(&pair)) {
        return None;
    }
    let mut kept = Vec::with_capacity(field.len());
    for pair in pairs().filter(|pair| !is_named(pair)) {
        if kept.is_empty() {
            kept.extend_from_slice(trim(pair));
        } else {
            kept.push(b';');
            kept.extend_from_slice(pair);
        }
    }
    Some(kept)
}

/// True if a Set-Cookie field sets a cookie of this name.
pub fn sets(field: &[u8], name: &str) -> bool {
    field.split(|&byte| byte == b';').next().is_some_and(|pair| value_of(pair, name.as_bytes()).is_some())
}

#[cfg(test)]
mod tests {
    use super::super::fields::{Field, Span};
    use super::super::head::Head;
    use super::*;

    #[test]
    fn a_cookie_is_removed_wherever_it_stands_and_the_others_keep_their_bytes() {
        let without = |field: &str| super::without(field.as_bytes(), "lb").map(|kept| String::from_utf8(kept).unwrap());
        for (field, kept) in [
            ("lb=1", ""),
            ("lb=1; a=b;  c=\"d;\";", "a=b;  c=\"d;\";"),
            ("a=b; lb=1", "a=b"),
            ("a=b; lb=1;c=d; lb=2 ; e", "a=b;c=d; e"),
            ("lb=1; lb=2", ""),
            (" lb = 1; LB=2", "LB=2"),
            (";lb=1", ""),
        ] {
            assert_eq!(without(field).as_deref(), Some(kept), "{field}");
        }
        for field in ["", "a=lb", "lbx=1; xlb=2", "lb", "a=\"b\"; c"] {
            assert_eq!(without(field), None, "{field}");
        }
        assert!(sets(b"lb=1; Path=/", "lb") && !sets(b"a=1; lb=2", "lb") && !sets(b"lb", "lb"));
    }

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
