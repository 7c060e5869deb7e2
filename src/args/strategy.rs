//! The notation of a strategy: a name, or `hash:` and the part of a request whose hash decides.

use super::nearest::nearest;
use super::value::{Fault, is_token};
use crate::balance::strategy::Strategy;
use crate::http::affinity::HashKey;
use crate::limits::NAME_BYTES;

/// The notations of a strategy.
pub(super) const STRATEGIES: [&str; 8] = [
    "round_robin",
    "weighted",
    "random",
    "least_requests",
    "hash:client",
    "hash:path",
    "hash:header:NAME",
    "hash:cookie:NAME",
];

/// Parses a strategy, and the part of a request whose hash decides.
pub(super) fn strategy(text: &str) -> Result<(Strategy, Option<HashKey>), Fault> {
    let unknown = |text: &str| Fault::Unknown(nearest(text, STRATEGIES.into_iter()));
    let Some(key) = text.strip_prefix("hash:") else {
        let known = Strategy::named(text).filter(|&one| one != Strategy::by_hash());
        return known.map(|strategy| (strategy, None)).ok_or_else(|| unknown(text));
    };
    match HashKey::named(key) {
        Some(HashKey::Header(name) | HashKey::Cookie(name)) if !is_token(&name) || name.len() > NAME_BYTES => {
            Err(Fault::HashName)
        }
        Some(key) => Ok((Strategy::by_hash(), Some(key))),
        None if matches!(key, "header" | "cookie") => Err(Fault::HashName),
        None => {
            let (kind, name) = key.split_once(':').map_or((key, ""), |(kind, _)| (kind, ":NAME"));
            Err(unknown(&format!("hash:{kind}{name}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategies_have_names_and_what_is_hashed_stands_behind_a_colon() {
        let named = |text: &str| strategy(text).map(|(strategy, key)| (strategy.name, key.map(|key| key.to_string())));
        assert_eq!(named("weighted"), Ok(("round_robin", None)));
        for key in ["client", "path", "header:X-User", "cookie:a.b"] {
            let text = format!("hash:{key}");
            assert_eq!(named(&text), Ok(("hash", Some(key.to_owned()))));
        }
        for (text, nearest) in [
            ("round_robbin", Some("round_robin")),
            ("hash", Some("hash:path")),
            ("hash:clinet", Some("hash:client")),
            ("hash:heder:X", Some("hash:header:NAME")),
            ("hash:Cookie:x", Some("hash:cookie:NAME")),
            ("fastest_first", None),
        ] {
            assert_eq!(named(text), Err(Fault::Unknown(nearest)), "{text}");
        }
        for text in ["hash:header", "hash:header:", "hash:cookie:a b", "hash:cookie:a=b", "hash:header:X:Y"] {
            assert_eq!(named(text), Err(Fault::HashName), "{text}");
        }
    }
}
