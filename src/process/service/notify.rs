//! Notifies a service manager by datagrams to the socket in NOTIFY_SOCKET (sd_notify(3)). It is optional:
//! without a listener, nothing is sent and nothing is wrong. If the manager does not keep up, notifications are
//! queued in order, except heartbeats.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::ErrorKind;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::limits::{NOTIFY_RETRY_US, NOTIFY_WAITING};
use crate::sys::clock;

/// Notifies the service manager, if there is one.
pub(in crate::process) struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// The interval of the heartbeats that it expects, in microseconds.
    beat_us: Option<u64>,
    /// The time of the next heartbeat.
    next_us: u64,
    /// Notifications that could not be sent yet.
    waiting: VecDeque<String>,
    /// The time of the next attempt, in microseconds.
    retry_us: u64,
    /// True if it was notified of the shutdown. No other state follows.
    stopping: bool,
}

impl Notify {
    /// The manager in the environment.
    pub(in crate::process) fn from_env() -> Notify {
        let socket = std::env::var_os("NOTIFY_SOCKET");
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let beat_us = beat_us(number("WATCHDOG_USEC"), number("WATCHDOG_PID"), std::process::id().into());
        Notify::new(socket.as_deref(), beat_us)
    }

    fn new(socket: Option<&OsStr>, beat_us: Option<u64>) -> Notify {
        let to = socket.and_then(address).and_then(|address| {
            let own = UnixDatagram::unbound().ok()?;
            own.set_nonblocking(true).ok()?;
            Some((own, address))
        });
        let next_us = if to.is_some() && beat_us.is_some() { 0 } else { u64::MAX };
        Notify { to, beat_us, next_us, waiting: VecDeque::new(), retry_us: u64::MAX, stopping: false }
    }

    /// Queues a notification and sends the queue.
    fn tell(&mut self, text: String) {
        // Of states that follow each other the last ones count.
        if self.waiting.len() == NOTIFY_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(text);
        self.tell_waiting(clock::monotonic_us());
    }

    fn tell_waiting(&mut self, now_us: u64) {
        while self.waiting.front().is_some_and(|text| self.send(text)) {
            self.waiting.pop_front();
        }
        self.retry_us = if self.waiting.is_empty() { u64::MAX } else { now_us + NOTIFY_RETRY_US };
    }

    /// True if the notification need not be repeated.
    fn send(&self, text: &str) -> bool {
        let Some((own, address)) = &self.to else { return true };
        !own.send_to_addr(text.as_bytes(), address).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// It serves, as the status says.
    pub(in crate::process) fn ready(&mut self, status: impl Display) {
        if !self.stopping {
            self.tell(format!("READY=1\nSTATUS={status}\n"));
        }
    }

    /// It takes up another configuration or program; `ready` follows.
    pub(in crate::process) fn reloading(&mut self) {
        if !self.stopping {
            self.tell(format!("RELOADING=1\nMONOTONIC_USEC={}\n", clock::monotonic_us()));
        }
    }

    /// Notifies of the shutdown. A later reload does not make the program ready again.
    pub(in crate::process) fn stopping(&mut self) {
        self.stopping = true;
        self.tell("STOPPING=1\nSTATUS=draining\n".to_owned());
    }

    /// The time of the next `beat`, in microseconds.
    pub(in crate::process) fn next_us(&self) -> u64 {
        self.next_us.min(self.retry_us)
    }

    /// Sends a heartbeat if it is due, and queued notifications.
    pub(in crate::process) fn beat(&mut self, now_us: u64) {
        if now_us >= self.retry_us {
            self.tell_waiting(now_us);
        }
        if let Some(beat_us) = self.beat_us.filter(|_| now_us >= self.next_us) {
            self.send("WATCHDOG=1\n");
            self.next_us = now_us + beat_us;
        }
    }
}

/// A socket's address: a path, or a name of no file, which begins with `@`.
fn address(socket: &OsStr) -> Option<SocketAddr> {
    match socket.as_bytes() {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        [b'@', name @ ..] => <SocketAddr as SocketAddrExt>::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(socket).ok(),
        _ => None,
    }
}

/// Half the interval in which a manager expects heartbeats, if it expects them from this process.
fn beat_us(within_us: Option<u64>, pid: Option<u64>, own: u64) -> Option<u64> {
    within_us.filter(|&us| us > 0 && pid.is_none_or(|pid| pid == own)).map(|us| (us / 2).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 500];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    fn by(name: &str, manager: &UnixDatagram) {
        let mut notify = Notify::new(Some(OsStr::new(name)), Some(1000));
        notify.ready("serving");
        assert_eq!(heard(manager), "READY=1\nSTATUS=serving\n");
        notify.reloading();
        let said = heard(manager);
        let time = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.trim().parse::<u64>().ok());
        assert!(time.is_some_and(|us| us > 0 && us <= clock::monotonic_us()), "{said}");
        notify.stopping();
        assert_eq!(heard(manager), "STOPPING=1\nSTATUS=draining\n");
        notify.beat(5);
        assert_eq!((heard(manager).as_str(), notify.next_us()), ("WATCHDOG=1\n", 1005));
        notify.beat(1004);
        notify.stopping();
        assert!(heard(manager).starts_with("STOPPING"), "it was not due");
    }

    #[test]
    fn a_manager_hears_at_a_path_and_at_a_name() {
        let path = std::env::temp_dir().join(format!("zzz-lb-notify-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        by(path.to_str().unwrap(), &UnixDatagram::bind(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        #[cfg(target_os = "linux")]
        {
            let name = format!("zzz-lb-{}", std::process::id());
            let address = <SocketAddr as SocketAddrExt>::from_abstract_name(name.as_bytes()).unwrap();
            by(&format!("@{name}"), &UnixDatagram::bind_addr(&address).unwrap());
        }
    }

    #[test]
    fn nothing_is_sent_without_a_service_manager() {
        for socket in [None, Some("/nowhere/at/all"), Some("relative"), Some("")] {
            let mut notify = Notify::new(socket.map(OsStr::new), None);
            notify.ready("serving");
            assert_eq!(notify.next_us(), u64::MAX);
        }
    }

    #[test]
    fn a_manager_that_does_not_keep_up_hears_it_later() {
        let path = std::env::temp_dir().join(format!("zzz-lb-notify-late-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let manager = UnixDatagram::bind(&path).unwrap();
        let mut notify = Notify::new(Some(path.as_os_str()), None);
        // A queue of datagrams has a limit of datagrams, and a sender a limit of bytes.
        let mut said = 0;
        while notify.waiting.is_empty() {
            notify.ready(said);
            said += 1;
            assert!(said < 100_000, "it takes all");
        }
        let retry_us = notify.next_us();
        assert!(retry_us < u64::MAX);
        notify.stopping();
        for one in 0..said - 1 {
            assert_eq!(heard(&manager), format!("READY=1\nSTATUS={one}\n"));
        }
        notify.beat(retry_us - 1);
        assert_eq!(notify.waiting.len(), 2, "it is not time yet");
        notify.beat(retry_us + NOTIFY_RETRY_US);
        assert_eq!(heard(&manager), format!("READY=1\nSTATUS={}\n", said - 1));
        assert_eq!(heard(&manager), "STOPPING=1\nSTATUS=draining\n");
        assert_eq!(notify.next_us(), u64::MAX);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn it_beats_twice_in_the_time_where_it_is_meant() {
        assert_eq!(beat_us(Some(10), None, 7), Some(5));
        assert_eq!(beat_us(Some(10), Some(7), 7), Some(5));
        assert_eq!(beat_us(Some(10), Some(8), 7), None);
        assert_eq!(beat_us(Some(0), None, 7), None);
        assert_eq!(beat_us(None, None, 7), None);
    }
}
