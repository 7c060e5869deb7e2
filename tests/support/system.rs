//! System calls that std does not offer, and the data of /proc about a process.

#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use super::wait_until;

/// A process id.
pub type Pid = i32;

/// Sends `signal` to a process, or with a negative id to a process group. False if there is none.
pub fn send_signal(pid: Pid, signal: i32) -> bool {
    assert!(pid.unsigned_abs() > 1, "never to everyone");
    // SAFETY: kill takes two integers and accesses no memory of ours.
    unsafe { libc::kill(pid, signal) == 0 }
}

/// Makes the next close of a socket send RST and discard queued data.
pub fn reset_on_close(socket: BorrowedFd<'_>) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the pointer and the length are those of a live local of the type that SO_LINGER takes.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "SO_LINGER: {}", std::io::Error::last_os_error());
}

/// Limits the data that a socket, or the connections of a listener, accept before it is read.
pub fn shrink_room(socket: BorrowedFd<'_>, bytes: libc::c_int) {
    // SAFETY: the pointer and the length are those of a live local of the type that SO_RCVBUF takes.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "SO_RCVBUF: {}", std::io::Error::last_os_error());
}

/// Shortens a listener's queue.
pub fn shrink_queue(listener: BorrowedFd<'_>, backlog: i32) {
    // SAFETY: the descriptor is borrowed, and therefore open.
    let result = unsafe { libc::listen(listener.as_raw_fd(), backlog) };
    assert_eq!(result, 0, "listen: {}", std::io::Error::last_os_error());
}

/// Shortens a listener's queue to the minimum and fills it, so that the kernel drops every further SYN, like a
/// host that does not answer. Returns the connections that fill it, to be kept.
pub fn ignore_when_full(listener: &TcpListener) -> (SocketAddr, Vec<TcpStream>) {
    shrink_queue(listener.as_fd(), 0);
    let address = listener.local_addr().expect("a bound listener has an address");
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        held.push(stream);
        assert!(held.len() < 64, "the queue does not fill");
    }
    (address, held)
}

/// The fields of /proc/PID/stat from the state on; `None` if there is no such process.
fn stat(pid: Pid) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split_whitespace().map(str::to_string).collect())
}

/// True if a process exists and has not ended. A zombie has ended.
pub fn alive(pid: Pid) -> bool {
    stat(pid).is_some_and(|fields| !matches!(fields[0].as_str(), "Z" | "X"))
}

/// The children of a process including zombies, oldest first: each with true if it is alive.
pub fn children(parent: Pid) -> Vec<(Pid, bool)> {
    let entries = std::fs::read_dir("/proc").expect("/proc is mounted");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found: Vec<(Pid, bool)> = pids
        .filter_map(|pid: Pid| {
            let fields = stat(pid)?;
            (fields[1].parse() == Ok(parent)).then_some((pid, !matches!(fields[0].as_str(), "Z" | "X")))
        })
        .collect();
    found.sort_unstable();
    found
}

/// Clock ticks (1/100 s) of processor time that a process has used.
pub fn processor_ticks(pid: Pid) -> u64 {
    let fields = stat(pid).expect("the process runs");
    fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
}

/// A process's resident memory in KiB.
pub fn resident_kib(pid: Pid) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
}

/// A process's share of anonymous memory in KiB; 0 once it has ended. Pages of the program itself do not count, because
/// programs of other tests share them.
pub fn anonymous_kib(pid: Pid) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
}

/// The number of open descriptors of a process; 0 once it has ended.
pub fn open_descriptors(pid: Pid) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count())
}

/// Leaves a process no descriptor in addition to its open ones.
pub fn use_up_descriptors(pid: Pid) {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs").flatten();
    let open: Vec<u64> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // The limit applies to their numbers.
    limit_descriptors(pid, (0..).find(|number| !open.contains(number)).expect("there are more numbers"));
}

/// Limits a process to descriptors below this number, or to its hard limit.
pub fn limit_descriptors(pid: Pid, count: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one rlimit to a live local of that type, which is then read.
    let result = unsafe {
        libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limit);
        limit.rlim_cur = count.min(limit.rlim_max);
        libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut())
    };
    assert_eq!(result, 0, "prlimit: {}", std::io::Error::last_os_error());
}

/// Makes fork fail in this command's program if its user has this many processes. Root may always fork.
pub fn limit_processes(command: &mut Command, count: u64) {
    let limit = libc::rlimit { rlim_cur: count, rlim_max: count };
    // SAFETY: between fork and exec the child makes one system call, which reads a value of its own.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// Stops a process. Returns once it is stopped.
#[track_caller]
pub fn stop(pid: Pid) {
    assert!(send_signal(pid, libc::SIGSTOP), "there is no process {pid}");
    wait_until("it is stopped", || stat(pid).is_none_or(|fields| matches!(fields[0].as_str(), "T" | "Z" | "X")));
}

/// The ports of clients that are connected to `port` of this machine by sockets of a process.
pub fn clients_of(pid: Pid, port: u16) -> Vec<u16> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let links = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let sockets: BTreeSet<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let clients = table.lines().skip(1).filter_map(|line| {
        // The row has its number, the local and the remote address, and the inode as the tenth field.
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port_of = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
        let ours = port_of(fields.get(1)?)? == port && sockets.contains(&format!("socket:[{}]", fields.get(9)?));
        // A listener's own row has port 0.
        ours.then(|| port_of(fields[2]))?.filter(|&port| port != 0)
    });
    clients.collect()
}

/// True if a worker watches this number of listeners: its poller has them under small numbers from 4 on. With
/// the kqueue of `tests/kqueue` the system does not report it.
pub fn watches_listeners(pid: Pid, count: usize) -> bool {
    let files = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("the process runs");
    let texts = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    let is_listener = |line: &str| {
        let token = line.strip_prefix("tfd:").and_then(|rest| rest.split("data:").nth(1)?.split_whitespace().next());
        token.and_then(|token| u64::from_str_radix(token, 16).ok()).is_some_and(|token| (3..256).contains(&token))
    };
    let watched: usize = texts.map(|text| text.lines().filter(|line| is_listener(line)).count()).sum();
    cfg!(feature = "kqueue") || watched == count
}

/// The user ids of a process: real, effective, saved, and that of the file system.
pub fn user_ids(pid: Pid) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = text.lines().find_map(|line| line.strip_prefix("Uid:")).expect("a process has ids");
    line.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// True if a process waits and is not runnable.
pub fn is_asleep(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// The bytes of the connection from `client` that the program listening on a port has not read.
pub fn unread(port: u16, client: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux tells of its connections");
    let (own, other) = (format!(":{port:04X}"), format!(":{client:04X}"));
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut rows = rows.filter(|row| row.len() > 4 && row[1].ends_with(&own) && row[2].ends_with(&other));
    let queues = rows.next().and_then(|row| row[4].split_once(':').map(|(_, received)| received.to_owned()));
    queues.and_then(|received| u64::from_str_radix(&received, 16).ok()).unwrap_or(0)
}
