//! `--user`: from `NAME[:GROUP]`, each a name or a number, to ids. The files are read here, not by
//! the C library, whose lookup loads code that a static binary has not got.

use std::fs;

use crate::process::exit::{Failure, USAGE};

/// The account to run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::process) struct Account {
    /// The user.
    pub(in crate::process) uid: u32,
    /// The group.
    pub(in crate::process) gid: u32,
}

/// Finds an account in /etc/passwd and /etc/group; a missing file is an empty one.
pub(in crate::process) fn look_up(spec: &str) -> Result<Account, Failure> {
    let read = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    resolve(spec, &read("/etc/passwd"), &read("/etc/group"))
        .map_err(|reason| Failure::new(USAGE, format!("--user {spec}: {reason}")))
}

fn resolve(spec: &str, passwd: &str, groups: &str) -> Result<Account, String> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    // A name goes before a number, as it does for chown(1) (POSIX).
    let entry = user_entry(passwd, |name, _| name == user)
        .or_else(|| user.parse().ok().and_then(|uid: u32| user_entry(passwd, |_, id| id == uid)));
    let uid = match entry {
        Some(account) => account.uid,
        None => id(user).ok_or_else(|| format!("there is no user '{user}' in /etc/passwd"))?,
    };
    let gid = match (group, entry) {
        (Some(group), _) => group_id(groups, group)
            .or_else(|| id(group))
            .ok_or_else(|| format!("there is no group '{group}' in /etc/group"))?,
        (None, Some(account)) => account.gid,
        (None, None) => {
            return Err(format!("user {uid} is not in /etc/passwd, so its group is needed too: {uid}:GROUP"));
        }
    };
    Ok(Account { uid, gid })
}

/// A number that is an id: the largest means "no change" to the system.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&id| id != u32::MAX)
}

/// The first entry that `wanted` accepts, of lines `name:password:uid:gid:...`.
fn user_entry(passwd: &str, wanted: impl Fn(&str, u32) -> bool) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, id(fields.next()?)?, id(fields.next()?)?);
        wanted(name, uid).then_some(Account { uid, gid })
    })
}

/// The id of a group by its name, of lines `name:password:gid:members`.
fn group_id(groups: &str, wanted: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, id(fields.next()?)?);
        (name == wanted).then_some(gid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:34::/var/www:/bin/false\n";
    const GROUPS: &str = "root:x:0:\nnet:x:77:www\n";

    fn resolved(spec: &str) -> Result<(u32, u32), String> {
        resolve(spec, PASSWD, GROUPS).map(|account| (account.uid, account.gid))
    }

    #[test]
    fn a_user_brings_its_group() {
        assert_eq!(resolved("www"), Ok((33, 34)));
        assert_eq!(resolved("33"), Ok((33, 34)));
    }

    #[test]
    fn a_group_may_be_given_by_name_or_number() {
        assert_eq!(resolved("www:net"), Ok((33, 77)));
        assert_eq!(resolved("www:5"), Ok((33, 5)));
        assert_eq!(resolved("1000:1001"), Ok((1000, 1001)));
    }

    #[test]
    fn unknown_names_are_refused() {
        assert!(resolved("nobody").unwrap_err().contains("no user 'nobody'"));
        assert!(resolved("www:wheel").unwrap_err().contains("no group 'wheel'"));
        for spec in ["", ":", "www:", "broken", "-1", "4294967295", "4294967295:1", "1:4294967295"] {
            assert!(resolved(spec).is_err(), "{spec}");
        }
    }

    #[test]
    fn a_number_without_an_entry_needs_a_group() {
        assert!(resolved("1000").unwrap_err().contains("1000:GROUP"));
    }
}
