//! Drops root privileges permanently.

#![allow(unsafe_code)]

use std::io;

/// The effective user and group id of this process.
pub fn current() -> (u32, u32) {
    // SAFETY: both calls take nothing, access no memory of ours and cannot fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Becomes user `uid` and group `gid` without supplementary groups, and verifies that root cannot be regained.
/// EPERM if the process is neither root nor already that account.
pub fn become_account(uid: u32, gid: u32) -> io::Result<()> {
    if current() == (uid, gid) && uid != 0 {
        return Ok(());
    }
    // Groups come first, because they cannot be changed after the user. SAFETY: with a count of 0 the list is
    // not read.
    check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: takes three integers.
    check(unsafe { libc::setresgid(gid, gid, gid) })?;
    // SAFETY: takes three integers.
    check(unsafe { libc::setresuid(uid, uid, uid) })?;
    let (mut real, mut effective, mut saved) = (0, 0, 0);
    // SAFETY: each call writes three ids, to three live locals of that type.
    check(unsafe { libc::getresuid(&mut real, &mut effective, &mut saved) })?;
    let users_changed = [real, effective, saved] == [uid; 3];
    // SAFETY: as above.
    check(unsafe { libc::getresgid(&mut real, &mut effective, &mut saved) })?;
    let groups_changed = [real, effective, saved] == [gid; 3];
    // SAFETY: takes an integer. The call is expected to fail.
    let way_back = uid != 0 && unsafe { libc::setuid(0) } == 0;
    if users_changed && groups_changed && !way_back {
        Ok(())
    } else {
        Err(io::Error::other("privileges were not given up"))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
