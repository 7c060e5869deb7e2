//! The differences of two configurations as a log line: the backends that were added, removed and
//! changed, and the options with their old and new values. The line is ASCII and bounded.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::{Backend, Config, Setting};
use crate::args::FLAGS;
use crate::collections::order;
use crate::limits::{CHANGED_NAMES, SHOWN_CHARS};

/// The differences; none if nothing has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
    options: Vec<String>,
    /// A statement about the options that have changed and need more than a reload.
    later: String,
}

impl Changes {
    /// From the configuration `before` to the one `after` it. `fixed` options keep their values, so they are no
    /// changes. Those of them in `later` are named as such.
    pub fn between(before: &Config, after: &Config, fixed: &[&str], later: &[&str]) -> Changes {
        let mut changes = Changes { options: options(&before.changed, &after.changed, fixed), ..Changes::default() };
        let known: BTreeMap<&str, &Backend> = order::map(before.backends.iter().map(|one| (one.name.as_str(), one)));
        let kept: BTreeMap<&str, &Backend> = order::map(after.backends.iter().map(|one| (one.name.as_str(), one)));
        for backend in &after.backends {
            match known.get(backend.name.as_str()) {
                None => changes.added.push(backend.name.clone()),
                Some(one) if *one != backend => changes.changed.push(change(one, backend)),
                Some(_) => {}
            }
        }
        let gone = before.backends.iter().filter(|backend| !kept.contains_key(backend.name.as_str()));
        let needs = |names: &[&str], needed: &str| match names {
            [] => None,
            names => Some(format!("{} cannot change while it runs: that needs {needed}", names.join(", "))),
        };
        // After an upgrade the account stays the same.
        let (user, others): (Vec<&str>, Vec<&str>) = later.iter().partition(|name| **name == "user");
        let needs = [needs(&others, "an upgrade (SIGUSR2)"), needs(&user, "another start")];
        changes.later = needs.into_iter().flatten().collect::<Vec<_>>().join("; ");
        changes.removed = gone.map(|backend| backend.name.clone()).collect();
        changes
    }

    /// True if an option has changed that needs more than a reload.
    pub fn are_incomplete(&self) -> bool {
        !self.later.is_empty()
    }
}

/// A changed backend with its changes.
fn change(before: &Backend, after: &Backend) -> String {
    let mut parts = Vec::new();
    let mut note = |name: &str, old: &dyn fmt::Display, new: &dyn fmt::Display, differs: bool| {
        if differs {
            parts.push(format!("{name} {old} -> {new}"));
        }
    };
    note("weight", &before.weight, &after.weight, before.weight != after.weight);
    note("max", &Most(before.max), &Most(after.max), before.max != after.max);
    note("backup", &OnOff(before.backup), &OnOff(after.backup), before.backup != after.backup);
    note("tls", &OnOff(before.tls), &OnOff(after.tls), before.tls != after.tls);
    note("for", &For(before), &For(after), before.routes != after.routes);
    note("h2c", &OnOff(before.h2c), &OnOff(after.h2c), before.h2c != after.h2c);
    if parts.is_empty() { after.name.clone() } else { format!("{} ({})", after.name, parts.join(", ")) }
}

struct For<'a>(&'a Backend);

impl fmt::Display for For<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes: Vec<String> = self.0.routes.iter().map(ToString::to_string).collect();
        f.write_str(if routes.is_empty() { "off" } else { "" })?;
        f.write_str(&routes.join(" "))
    }
}

struct OnOff(bool);

impl fmt::Display for OnOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "on" } else { "off" })
    }
}

struct Most(u32);

impl fmt::Display for Most {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("off") } else { write!(f, "{}", self.0) }
    }
}

/// The options, other than backends, that have other values.
fn options(before: &[Setting], after: &[Setting], fixed: &[&str]) -> Vec<String> {
    let values = |settings: &[Setting], name: &str| -> Option<String> {
        let own: Vec<&str> = settings.iter().filter(|one| one.name == name).map(|one| one.value.as_str()).collect();
        (!own.is_empty()).then(|| own.join(" "))
    };
    let changeable = FLAGS.iter().filter(|flag| flag.long != "backend" && !fixed.contains(&flag.long));
    let changed = changeable.filter_map(|flag| {
        let (old, new) = (values(before, flag.long), values(after, flag.long));
        let shown = |value: Option<String>| match value {
            Some(value) => value,
            None if flag.default.text().is_empty() => "off".into(),
            None => flag.default.text().into(),
        };
        (old != new).then(|| format!("{} {} -> {}", flag.long, shown(old), shown(new)))
    });
    changed.collect()
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Changes { added, removed, changed, options, later } = self;
        write!(f, "+{} -{} ~{} backends: ", added.len(), removed.len(), changed.len())?;
        let mut parts = Vec::new();
        for (what, names) in [("added", added), ("removed", removed), ("changed", changed), ("options", options)] {
            if !names.is_empty() {
                parts.push(format!("{what} {}", List(names)));
            }
        }
        if !later.is_empty() {
            parts.push(later.clone());
        }
        if parts.is_empty() { f.write_str("nothing has changed") } else { f.write_str(&parts.join("; ")) }
    }
}

/// Some of the names, and how many more there are.
struct List<'a>(&'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.0.iter().take(CHANGED_NAMES).enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            for (count, one) in name.chars().enumerate() {
                match one {
                    _ if count == SHOWN_CHARS => {
                        f.write_str("...")?;
                        break;
                    }
                    ' '..='~' => f.write_char(one)?,
                    other => write!(f, "{}", other.escape_unicode())?,
                }
            }
        }
        let more = self.0.len().saturating_sub(CHANGED_NAMES);
        if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, parse};
    use crate::config::resolve;

    fn config(line: &str) -> Config {
        match parse(line.split_whitespace().map(Into::into), &|_| None) {
            Ok(Command::Run(options)) => resolve(options).expect(line),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn told(before: &str, after: &str) -> String {
        Changes::between(&config(before), &config(after), &["port"], &[]).to_string()
    }

    #[test]
    fn names_are_told_of_all_that_has_changed() {
        assert_eq!(
            told("-b a:1 -b b:2,weight=2 -b c:3", "-b b:2,weight=5,backup -b c:3 -b d:4 -s random -p 9 -t"),
            "+1 -1 ~1 backends: added d:4; removed a:1; changed b:2 (weight 2 -> 5, backup off -> on); \
             options strategy round_robin -> random, trace off -> on"
        );
        assert_eq!(told("-b a:1", "-b a:1,max=3"), "+0 -0 ~1 backends: changed a:1 (max off -> 3)");
        assert_eq!(told("-b a:1 --trust ::1", "-b a:1"), "+0 -0 ~0 backends: options trust ::1 -> none");
    }

    #[test]
    fn a_reload_without_changes_is_told_as_such() {
        assert_eq!(told("-b a:1 -b b:2", "-b b:2 -b a:1 -p 9"), "+0 -0 ~0 backends: nothing has changed");
    }

    #[test]
    fn an_option_that_stays_is_a_part_of_the_line() {
        let told = |before: &str, after: &str, later: &[&str]| {
            Changes::between(&config(before), &config(after), later, later).to_string()
        };
        let needs = "port, host cannot change while it runs: that needs an upgrade (SIGUSR2)";
        let only = told("-b a:1", "-b a:1 -p 9", &["port", "host"]);
        assert_eq!(only, format!("+0 -0 ~0 backends: {needs}"));
        let user = "user cannot change while it runs: that needs another start";
        let both = told("-b a:1", "-b a:1,max=3 -p 9", &["port", "host", "user"]);
        assert_eq!(both, format!("+0 -0 ~1 backends: changed a:1 (max off -> 3); {needs}; {user}"));
    }

    #[test]
    fn the_line_is_ascii_and_bounded() {
        let many: String = (1..=100).map(|port| format!(" -b host-{port}:80")).collect();
        let line = told(&many, "-b unix:/\u{e9}");
        assert!(line.is_ascii() && line.contains(" and 80 more") && line.len() < 1000, "{line}");
        let long = format!("-b unix:/{}", "x".repeat(100));
        assert!(told("-b a:1", &long).len() < 200);
    }
}
