//! The shell of the resolver: its sockets, and the files that say how names are looked up.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;

use crate::collections::slab::Key;
use crate::dns::hosts::Hosts;
use crate::dns::resolv_conf::ResolvConf;
use crate::dns::resolver::{Change, Output, Resolver, State};
use crate::limits::{DNS_MESSAGE_BYTES, DNS_STRAYS, HOSTS_BYTES, NAME_ADDRESSES, NAMES_WAIT_US, RESOLV_CONF_BYTES};
use crate::log::Level;
use crate::metrics::{Block, Global};
use crate::process::duties::watch::{Change as FileChange, Watch};
use crate::process::journal::Journal;
use crate::reactor::{Event, Reactor};
use crate::sys;

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Their token.
const FILES_TOKEN: u64 = 1;

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket, SocketAddr),
    /// Not yet established.
    Connecting(TcpStream),
    Tcp(TcpStream),
}

/// Resolves names continuously.
pub(in crate::process) struct Names {
    resolver: Resolver,
    sockets: BTreeMap<u64, (Key, Socket)>,
    files: Watch,
}

impl Names {
    /// Looks no name up yet. Errors are those of the system's randomness, and of the poller.
    pub(in crate::process) fn new(reactor: &Reactor, now_us: u64) -> io::Result<Names> {
        let (hosts, resolv_conf) = (contents(HOSTS, HOSTS_BYTES), contents(RESOLV_CONF, RESOLV_CONF_BYTES));
        let seed = sys::entropy::random_u64()?;
        let resolver = Resolver::new(ResolvConf::parse(&resolv_conf), hosts_of(&hosts), seed, now_us);
        let mut files = Watch::new();
        files.add(HOSTS.into(), Some(hosts), HOSTS_BYTES, now_us);
        files.add(RESOLV_CONF.into(), Some(resolv_conf), RESOLV_CONF_BYTES, now_us);
        if let Some(fd) = files.fd() {
            reactor.watch(fd, FILES_TOKEN)?;
        }
        Ok(Names { resolver, sockets: BTreeMap::new(), files })
    }

    /// Looks these names up from now on, and no others.
    pub(in crate::process) fn want(&mut self, names: &[&str], now_us: u64) {
        self.resolver.set_names(names, now_us);
    }

    /// Looks every name up again.
    pub(in crate::process) fn refresh(&mut self, now_us: u64) {
        self.resolver.refresh(now_us);
    }

    /// An address of a name does not work: the name is looked up again soon.
    pub(in crate::process) fn suspect(&mut self, name: &str, now_us: u64) {
        self.resolver.suspect(name, now_us);
    }

    /// The last good addresses of a name.
    pub(in crate::process) fn addresses(&self, name: &str) -> &[IpAddr] {
        self.resolver.addresses(name)
    }

    /// True if the first lookup of a name has no result yet.
    pub(in crate::process) fn is_undecided(&self, name: &str) -> bool {
        self.resolver.state(name) == Some(State::Unresolved(None))
    }

    /// The time until which it is worthwhile to wait for a name, in microseconds; None if its result is known,
    /// or the wait is over.
    pub(in crate::process) fn awaited_until_us(&self, name: &str, now_us: u64) -> Option<u64> {
        let until_us = self.resolver.since_us(name)?.saturating_add(NAMES_WAIT_US);
        (self.is_undecided(name) && now_us < until_us).then_some(until_us)
    }

    /// The time of the next `expire`, in microseconds.
    pub(in crate::process) fn next_us(&self) -> u64 {
        self.resolver.next_deadline_us().min(self.files.next_deadline_us())
    }

    /// Handles an event of the poller.
    pub(in crate::process) fn on_event(&mut self, event: Event, now_us: u64) {
        match event.token {
            FILES_TOKEN => self.files.ready(now_us),
            token => self.receive(token, event, now_us),
        }
    }

    /// Does everything that is due.
    pub(in crate::process) fn expire(&mut self, now_us: u64) {
        while let Some((path, change)) = self.files.expire(now_us) {
            match path == Path::new(HOSTS) {
                true => self.resolver.reload_hosts(hosts_of(&text(change)), now_us),
                false => self.resolver.reload_conf(ResolvConf::parse(&text(change)), now_us),
            }
        }
        if self.resolver.next_deadline_us() <= now_us {
            self.resolver.expire(now_us);
        }
    }

    /// Carries out the resolver's outputs and reports changes. Returns true if the addresses of a name have
    /// changed.
    pub(in crate::process) fn carry_out(
        &mut self,
        reactor: &Reactor,
        journal: &mut Journal,
        globals: Block,
        now_us: u64,
    ) -> bool {
        let mut changed = false;
        while let Some(output) = self.resolver.next_output() {
            match output {
                Output::OpenUdp(key, server) => self.open(reactor, key, udp(server), now_us),
                Output::ConnectTcp(key, server) => self.open(reactor, key, tcp(server), now_us),
                Output::Send(key, bytes) => self.send(key, &bytes, now_us),
                Output::Close(key) => drop(self.sockets.remove(&key.to_token())),
                Output::Changed(name, change) => {
                    changed |= change == Change::Addresses;
                    self.tell(&name, change, journal, globals);
                }
            }
        }
        changed
    }

    fn tell(&self, name: &str, change: Change, journal: &mut Journal, globals: Block) {
        match change {
            Change::Addresses => {
                globals.add_global(Global::Moves, 1);
                let addresses: Vec<String> = self.addresses(name).iter().map(IpAddr::to_string).collect();
                journal.line(Level::Info, "dns", format_args!("{name} is at {}", addresses.join(", ")));
            }
            Change::Failed(reason) => {
                globals.add_global(Global::LookupsFailed, 1);
                let kept = if self.addresses(name).is_empty() { "" } else { "; its last addresses stay" };
                let failed = self.failed_as(name);
                journal.line(Level::Warn, "dns", format_args!("{name} cannot be looked up{failed}: {reason}{kept}"));
            }
            Change::Skipped(reason) => {
                let failed = self.failed_as(name);
                let text = format_args!("{name} cannot be looked up{failed}: {reason}; used as it stands instead");
                journal.line(Level::Warn, "dns", text);
            }
            Change::Many(count) => {
                let text = format_args!("{name} has {count} addresses; {NAME_ADDRESSES} of them are used");
                journal.line(Level::Warn, "dns", text);
            }
            Change::Recovered => journal.line(Level::Info, "dns", format_args!("{name} can be looked up again")),
        }
    }

    /// The entry of the search list that failed, as words behind a verb, if it is not the name itself.
    fn failed_as(&self, name: &str) -> String {
        let failed = self.resolver.failed_as(name).map(ToString::to_string).unwrap_or_default();
        let whole = name.strip_suffix('.').unwrap_or(name);
        if failed.is_empty() || failed.eq_ignore_ascii_case(whole) { String::new() } else { format!(" as {failed}") }
    }

    fn open(&mut self, reactor: &Reactor, key: Key, socket: io::Result<Socket>, now_us: u64) {
        let registered = socket.and_then(|socket| {
            let fd = match &socket {
                Socket::Udp(udp, _) => udp.as_fd(),
                Socket::Connecting(tcp) | Socket::Tcp(tcp) => tcp.as_fd(),
            };
            reactor.register(fd, key.to_token()).map(|()| socket)
        });
        match registered {
            Ok(socket) => _ = self.sockets.insert(key.to_token(), (key, socket)),
            Err(_) => self.resolver.failed(key, now_us),
        }
    }

    fn send(&mut self, key: Key, bytes: &[u8], now_us: u64) {
        let sent = match self.sockets.get_mut(&key.to_token()) {
            Some((_, Socket::Udp(udp, _))) => udp.send(bytes),
            // A question fits into an empty socket buffer, or something is wrong.
            Some((_, Socket::Tcp(tcp))) => tcp.write(bytes),
            _ => return,
        };
        if sent.ok() != Some(bytes.len()) {
            self.resolver.failed(key, now_us);
        }
    }

    fn receive(&mut self, token: u64, event: Event, now_us: u64) {
        let Some((key, mut socket)) = self.sockets.remove(&token) else { return };
        let mut bytes = [0; DNS_MESSAGE_BYTES];
        if let Socket::Connecting(tcp) = socket {
            if !event.writable {
                self.sockets.insert(token, (key, Socket::Connecting(tcp)));
                return;
            }
            if sys::socket::take_error(tcp.as_fd()) != 0 {
                return self.resolver.failed(key, now_us);
            }
            socket = Socket::Tcp(tcp);
            self.resolver.connected(key, now_us);
        }
        // After this much, a query has its answer or is abandoned, and the rest is useless.
        let (mut outcome, mut datagrams, mut length) = (Ok(()), 0, 0);
        while outcome.is_ok() && event.readable && datagrams <= DNS_STRAYS && length < DNS_MESSAGE_BYTES + 2 {
            let n = match &mut socket {
                Socket::Udp(udp, _) => udp.recv(&mut bytes),
                Socket::Tcp(tcp) | Socket::Connecting(tcp) => tcp.read(&mut bytes),
            };
            match (n, &socket) {
                (Ok(n), Socket::Udp(_, server)) => {
                    datagrams += 1;
                    self.resolver.received_udp(key, *server, &bytes[..n], now_us);
                }
                (Ok(0), _) => outcome = Err(io::ErrorKind::UnexpectedEof.into()),
                (Ok(n), _) => {
                    length += n;
                    self.resolver.received_tcp(key, &bytes[..n], now_us);
                }
                (Err(error), _) => outcome = Err(error),
            }
        }
        self.sockets.insert(token, (key, socket));
        if let Err(error) = outcome
            && !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        {
            self.resolver.failed(key, now_us);
        }
    }
}

#[cfg(test)]
impl Names {
    /// Looks names up at one server alone.
    pub(in crate::process) fn asking(server: SocketAddr, now_us: u64) -> Names {
        let conf = ResolvConf { servers: vec![server], ..ResolvConf::default() };
        Names {
            resolver: Resolver::new(conf, Hosts::parse(b""), 1, now_us),
            sockets: BTreeMap::new(),
            files: Watch::new(),
        }
    }
}

/// The table of hosts as this system can use it. A container without IPv6 may have `::1` in its table.
fn hosts_of(text: &[u8]) -> Hosts {
    let hosts = Hosts::parse(text);
    match UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(_) => hosts,
        Err(_) => hosts.without_ipv6_loopback(),
    }
}

/// The table of hosts of the system, now.
pub(in crate::process) fn system_hosts() -> Hosts {
    hosts_of(&contents(HOSTS, HOSTS_BYTES))
}

/// A file's text, as far as it is read; one that is not there is empty.
fn contents(path: &str, most: usize) -> Vec<u8> {
    sys::file::read(Path::new(path), most).unwrap_or_default()
}

fn text(change: FileChange) -> Vec<u8> {
    match change {
        FileChange::Contents(text) => text,
        FileChange::Unreadable(_) => Vec::new(),
    }
}

/// A socket on a port of the system's choice, that hears of this server alone.
fn udp(server: SocketAddr) -> io::Result<Socket> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    Ok(Socket::Udp(socket, server))
}

fn tcp(server: SocketAddr) -> io::Result<Socket> {
    Ok(Socket::Connecting(sys::socket::connect_tcp(server)?.into()))
}
