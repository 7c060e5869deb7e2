//! Suggestions for misspelled names.

use crate::limits::COMPARED_BYTES;

/// The nearest of `known` to `given`, if one is near. A third of its letters may differ (at least one), or one
/// may be a prefix of the other. Case is ignored.
pub(crate) fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if given.is_empty() || given.len() > COMPARED_BYTES {
        return None;
    }
    let given = given.to_ascii_lowercase();
    known
        .map(|name| (distance(given.as_bytes(), name.as_bytes()), name))
        .filter(|&(distance, name)| {
            let begins = given.len() > 1 && (name.starts_with(&given) || given.starts_with(name));
            distance <= (given.len() / 3).max(1) && distance < name.len() || begins
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

/// The number of insertions, deletions, replacements and swaps of neighbours that turn one word into the other
/// (the restricted Damerau-Levenshtein distance).
fn distance(a: &[u8], b: &[u8]) -> usize {
    // Three rows of the table of distances between prefixes: for `a` up to i - 2, i - 1 and i.
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut row = above.clone();
    for i in 1..=a.len() {
        row[0] = i;
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        std::mem::swap(&mut before, &mut above);
        std::mem::swap(&mut above, &mut row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits_and_swaps() {
        assert_eq!(distance(b"port", b"port"), 0);
        assert_eq!(distance(b"prot", b"port"), 1);
        assert_eq!(distance(b"pot", b"port"), 1);
        assert_eq!(distance(b"ports", b"port"), 1);
        assert_eq!(distance(b"kitten", b"sitting"), 3);
        assert_eq!(distance(b"", b"abc"), 3);
        assert_eq!(distance(b"abc", b""), 3);
    }

    #[test]
    fn suggests_only_near_names() {
        let of = |given| nearest(given, ["err", "warn", "info", "debug"].into_iter());
        assert_eq!(of("warning"), Some("warn"));
        assert_eq!(of("INFO"), Some("info"));
        assert_eq!(of("error"), Some("err"));
        assert_eq!(of("de"), Some("debug"));
        assert_eq!(of("chatty"), None);
        assert_eq!(of(""), None);
        assert_eq!(of(&"i".repeat(1000)), None);
    }
}
