//! The options of the cookie that names a backend: its name and its attributes (RFC 6265, 4.1).

use super::nearest::nearest;
use super::value::{Fault, is_name, is_token, number};
use crate::limits::{COOKIE_AGE_S, NAME_BYTES};

/// The name of the cookie if none is given.
const DEFAULT_COOKIE: &str = "zzz_lb";

/// The attributes that a user may set.
const NAMES: [&str; 7] = ["path", "domain", "max-age", "samesite", "secure", "httponly", "partitioned"];

/// The attributes of a cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieAttributes {
    /// All of them except `Secure`, as they stand behind the value of the cookie.
    pub text: String,
    /// True if `Secure` is always there. Otherwise it is there under https.
    pub secure: bool,
    /// True if the cookie is one of the whole host: `Path=/` without `Domain`, which the prefix `__Host-` needs.
    pub whole_host: bool,
}

impl Default for CookieAttributes {
    fn default() -> CookieAttributes {
        CookieAttributes { text: "; Path=/; HttpOnly; SameSite=Lax".into(), secure: false, whole_host: true }
    }
}

/// Parses `cookie`, `cookie=NAME` or `off`. Returns the name of the cookie.
pub(super) fn sticky(text: &str) -> Result<Option<String>, Fault> {
    match text.split_once('=') {
        None if text == "off" => Ok(None),
        None if text == "cookie" => Ok(Some(DEFAULT_COOKIE.into())),
        Some(("cookie", name)) if is_token(name) && name.len() <= NAME_BYTES => Ok(Some(name.into())),
        Some(("cookie", _)) => Err(Fault::Malformed),
        other => Err(Fault::Unknown(nearest(other.map_or(text, |(kind, _)| kind), ["cookie", "off"].into_iter()))),
    }
}

/// Parses attributes with semicolons between them. They replace the defaults with the same name.
pub(super) fn attributes(text: &str) -> Result<CookieAttributes, Fault> {
    let mut values: [Option<&str>; NAMES.len()] = [None; NAMES.len()];
    for part in text.split(';').map(str::trim) {
        let (name, value) =
            part.split_once('=').map_or((part, None), |(name, value)| (name.trim(), Some(value.trim())));
        let Some(at) = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)) else {
            return Err(Fault::Attribute(nearest(name, NAMES.into_iter())));
        };
        if values[at].replace(value.unwrap_or_default()).is_some() {
            return Err(Fault::AttributeTwice);
        }
        let is_valid = match (NAMES[at], value) {
            ("path", Some(path)) => path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()),
            ("domain", Some(host)) => is_name(host),
            ("max-age", Some(seconds)) => number(seconds, 1, COOKIE_AGE_S).is_ok(),
            ("samesite", Some(site)) => same_site(site).is_some(),
            ("secure" | "httponly" | "partitioned", value) => value.is_none(),
            _ => false,
        };
        if !is_valid {
            return Err(Fault::CookieAttributeValue);
        }
    }
    let [path, domain, age, site, secure, _, partitioned] = values;
    let site = site.and_then(same_site).unwrap_or("Lax");
    let mut text = format!("; Path={}", path.unwrap_or("/"));
    domain.iter().for_each(|domain| text += &format!("; Domain={domain}"));
    age.iter().for_each(|age| text += &format!("; Max-Age={age}"));
    text += &format!("; HttpOnly; SameSite={site}");
    text += if partitioned.is_some() { "; Partitioned" } else { "" };
    // Browsers refuse these two without Secure.
    let secure = secure.is_some() || partitioned.is_some() || site == "None";
    Ok(CookieAttributes { text, secure, whole_host: domain.is_none() && path.unwrap_or("/") == "/" })
}

/// Returns a value of SameSite in its usual spelling.
fn same_site(text: &str) -> Option<&'static str> {
    ["Strict", "Lax", "None"].into_iter().find(|known| known.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_may_be_named() {
        assert_eq!(sticky("off"), Ok(None));
        assert_eq!(sticky("cookie"), Ok(Some("zzz_lb".into())));
        assert_eq!(sticky("cookie=__Host-lb"), Ok(Some("__Host-lb".into())));
        assert_eq!(sticky("cokie=a"), Err(Fault::Unknown(Some("cookie"))));
        assert_eq!(sticky("header"), Err(Fault::Unknown(None)));
        for text in ["cookie=", "cookie=a b", "cookie=a;b", "cookie=a=b", "cookie=\u{e9}"] {
            assert_eq!(sticky(text), Err(Fault::Malformed), "{text}");
        }
    }

    #[test]
    fn attributes_replace_the_defaults() {
        let parsed = |text| attributes(text).map(|given| (given.text, given.secure, given.whole_host));
        let default = CookieAttributes::default();
        assert_eq!(attributes("SameSite=Lax"), Ok(default));
        let text = "; Path=/; Max-Age=60; HttpOnly; SameSite=Strict";
        assert_eq!(parsed("SameSite=Strict; Max-Age=60"), Ok((text.into(), false, true)));
        let text = "; Path=/app; Domain=a.test; HttpOnly; SameSite=None; Partitioned";
        assert_eq!(parsed("partitioned;samesite = none;DOMAIN=a.test;path=/app"), Ok((text.into(), true, false)));
        assert_eq!(parsed("Secure").map(|(_, secure, _)| secure), Ok(true));
    }

    #[test]
    fn malformed_attributes_are_refused() {
        for (text, fault) in [
            ("", Fault::Attribute(None)),
            ("SameSite=Lax;", Fault::Attribute(None)),
            ("SameSit=Lax", Fault::Attribute(Some("samesite"))),
            ("Expires=0", Fault::Attribute(None)),
            ("Secure; secure", Fault::AttributeTwice),
            ("SameSite=Loose", Fault::CookieAttributeValue),
            ("SameSite", Fault::CookieAttributeValue),
            ("Secure=1", Fault::CookieAttributeValue),
            ("Max-Age=0", Fault::CookieAttributeValue),
            ("Max-Age=-1", Fault::CookieAttributeValue),
            ("Max-Age=1d", Fault::CookieAttributeValue),
            ("Path=app", Fault::CookieAttributeValue),
            ("Path=/a\nb", Fault::CookieAttributeValue),
            ("Domain=a b", Fault::CookieAttributeValue),
            ("Domain=.a", Fault::CookieAttributeValue),
        ] {
            assert_eq!(attributes(text), Err(fault), "{text:?}");
        }
    }
}
