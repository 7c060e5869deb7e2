//! The cookie that names the backend of a session, as it is configured.

use std::fmt;

use crate::args::{Given, Options, Source};

/// The cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// The name.
    pub name: String,
    /// The attributes except `Secure`, as they stand behind the value.
    pub attributes: String,
    /// True if `Secure` is always there. Otherwise it is there under https.
    pub secure: bool,
}

/// The prefixes of names that make browsers demand attributes (RFC 6265bis, 4.1.3).
const SECURE_PREFIX: &str = "__Secure-";
const HOST_PREFIX: &str = "__Host-";

/// True if a name begins with a prefix. Browsers ignore case here.
fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

impl Sticky {
    /// Takes the cookie out of the options; `None` if there is none.
    pub(super) fn of(options: &Options) -> Option<Sticky> {
        let name = options.sticky.as_ref()?.value.clone()?;
        let attributes = options.sticky_attributes.as_ref().map(|given| given.value.clone()).unwrap_or_default();
        let secure = attributes.secure || [SECURE_PREFIX, HOST_PREFIX].iter().any(|prefix| has_prefix(&name, prefix));
        Some(Sticky { name, attributes: attributes.text, secure })
    }
}

/// The reason why options of the cookie contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StickyError {
    /// An option has no effect without the cookie.
    WithoutCookie {
        /// The source of that option.
        source: Source,
    },
    /// Browsers refuse the cookie, because its attributes do not fit to its name.
    HostPrefix {
        /// The source of the name.
        source: Source,
        /// The name.
        name: String,
        /// The source of the attributes.
        attributes: Source,
    },
}

impl fmt::Display for StickyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StickyError::WithoutCookie { source } => {
                write!(f, "{source}: has no effect without a cookie; accepted: with --sticky cookie")
            }
            StickyError::HostPrefix { source, name, attributes } => write!(
                f,
                "{source} 'cookie={name}': browsers refuse this name with the attributes of {}; accepted: Path=/ and no \
                 Domain, or another name",
                attributes.place()
            ),
        }
    }
}

/// Finds contradictions between individually valid options.
pub(super) fn contradictions(options: &Options) -> Vec<StickyError> {
    let key = options.sticky_key.as_ref().map(|given| &given.source);
    let attributes = options.sticky_attributes.as_ref();
    match &options.sticky {
        Some(Given { value: Some(name), source }) => {
            let bad = attributes.filter(|given| has_prefix(name, HOST_PREFIX) && !given.value.whole_host);
            let error = |given: &Given<_>| StickyError::HostPrefix {
                source: source.clone(),
                name: name.clone(),
                attributes: given.source.clone(),
            };
            bad.map(error).into_iter().collect()
        }
        _ => {
            let sources = key.into_iter().chain(attributes.map(|given| &given.source));
            sources.map(|source| StickyError::WithoutCookie { source: source.clone() }).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, parse};
    use crate::config::resolve;

    fn sticky(line: &str) -> Result<Option<Sticky>, Vec<String>> {
        match parse(line.split_whitespace().map(Into::into), &|_| None) {
            Ok(Command::Run(options)) => match resolve(options) {
                Ok(config) => Ok(config.sticky),
                Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
            },
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn a_cookie_has_defaults_and_is_secure_if_its_name_needs_it() {
        let cookie = |name: &str, secure| {
            Ok(Some(Sticky { name: name.into(), attributes: "; Path=/; HttpOnly; SameSite=Lax".into(), secure }))
        };
        assert_eq!((sticky(""), sticky("--sticky off")), (Ok(None), Ok(None)));
        assert_eq!(sticky("--sticky cookie"), cookie("zzz_lb", false));
        assert_eq!(sticky("--sticky cookie=__secure-a"), cookie("__secure-a", true));
        assert_eq!(sticky("--sticky cookie=__Host-a"), cookie("__Host-a", true));
        assert_eq!(sticky("--sticky cookie --sticky-attributes Secure"), cookie("zzz_lb", true));
    }

    #[test]
    fn options_without_effect_and_a_name_that_browsers_refuse_are_errors() {
        let refused = |line: &str| sticky(line).expect_err(line);
        assert!(refused("--sticky-key a")[0].starts_with("--sticky-key: has no effect without a cookie"));
        assert_eq!(refused("--sticky off --sticky-key a --sticky-attributes Secure").len(), 2);
        let errors = refused("--sticky cookie=__Host-a --sticky-attributes Path=/x");
        assert!(errors[0].starts_with("--sticky 'cookie=__Host-a': browsers refuse"), "{errors:?}");
    }
}
