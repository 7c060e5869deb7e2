//! The listeners. An address for clients has one socket for each worker, all on one port and all made before any worker
//! is forked. The admin port has one socket that all workers share.
//!
//! Several sockets on a port need SO_REUSEPORT, which would also let another running instance of the same user join
//! them and take a part of the connections unnoticed. So the first socket is bound without it, which proves that no
//! other program listens there, and then lets the rest join. A socket is never closed and made again: that would reset
//! a client that connects in between, or drop its SYN.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use crate::config::{Listen, Purpose};
use crate::limits::LISTEN_BACKLOG;
use crate::process::exit::Failure;
use crate::sys::listen::{Sharing, listen, share};
use crate::worker;

/// A listening address and its sockets, or their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::process) struct Listener<F = OwnedFd> {
    /// The address that it has: the system has chosen the port if port 0 was asked for.
    pub(in crate::process) listen: Listen,
    /// True if a service manager made it, so that no option names its address.
    pub(in crate::process) is_activated: bool,
    pub(in crate::process) sockets: Sockets<F>,
}

/// The sockets of a listening address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::process) enum Sockets<F = OwnedFd> {
    /// Each worker has a socket of its own. It has more than one if there were more workers before an upgrade.
    Each(Vec<Vec<F>>),
    /// All workers accept from one socket.
    One(F),
}

impl<F> Sockets<F> {
    /// All sockets.
    pub(in crate::process) fn into_all(self) -> Vec<F> {
        match self {
            Sockets::Each(shares) => shares.into_iter().flatten().collect(),
            Sockets::One(socket) => vec![socket],
        }
    }
}

impl<F> Listener<F> {
    /// All sockets.
    pub(in crate::process) fn sockets(&self) -> impl Iterator<Item = &F> {
        let (each, one) = match &self.sockets {
            Sockets::Each(shares) => (shares.as_slice(), None),
            Sockets::One(socket) => (&[][..], Some(socket)),
        };
        each.iter().flatten().chain(one)
    }
}

impl Listener {
    /// The same with the numbers of its sockets.
    pub(in crate::process) fn raw(&self) -> Listener<RawFd> {
        let number = |share: &Vec<OwnedFd>| share.iter().map(AsRawFd::as_raw_fd).collect();
        let sockets = match &self.sockets {
            Sockets::Each(shares) => Sockets::Each(shares.iter().map(number).collect()),
            Sockets::One(socket) => Sockets::One(socket.as_raw_fd()),
        };
        Listener { listen: self.listen, is_activated: self.is_activated, sockets }
    }

    /// The sockets of a worker, and those of the other workers with the numbers of these.
    pub(in crate::process) fn of_worker(self, index: usize) -> (Vec<worker::Listener>, Vec<(usize, worker::Listener)>) {
        let Listener { listen, is_activated, sockets } = self;
        let (own, others) = match sockets {
            Sockets::One(socket) => (vec![socket], Vec::new()),
            Sockets::Each(mut shares) => {
                let own = shares.get_mut(index).map(std::mem::take).unwrap_or_default();
                let number = |(at, share): (usize, Vec<OwnedFd>)| share.into_iter().map(move |socket| (at, socket));
                (own, shares.into_iter().enumerate().flat_map(number).collect())
            }
        };
        let listener = |socket| worker::Listener { listen, is_activated, socket };
        (
            own.into_iter().map(listener).collect(),
            others.into_iter().map(|(at, socket)| (at, listener(socket))).collect(),
        )
    }
}

/// True if the sockets of a listener can serve as those of the wanted one. Port 0 is any port. The sockets do not depend
/// on TLS, PROXY headers and redirects, so an upgrade may change these and keep the sockets.
pub(in crate::process) fn is_same_place(held: Listen, wanted: Listen) -> bool {
    let (held_at, wanted_at) = (held.address, wanted.address);
    let has_port = wanted_at.port() == 0 || wanted_at.port() == held_at.port();
    held.is_public() == wanted.is_public() && held_at.ip() == wanted_at.ip() && has_port
}

/// Tries whether `open` would succeed.
pub(in crate::process) fn can_open(listen: Listen, count: u32) -> io::Result<()> {
    let count = socket_count(listen.purpose, count);
    bind(listen.address, count, sharing(count)).map(drop)
}

/// Listens on an address with sockets for `count` workers.
pub(in crate::process) fn open(listen: Listen, count: u32) -> Result<Listener, Failure> {
    let sockets = socket_count(listen.purpose, count);
    try_open(listen, count, sharing(sockets))
}

/// The same while the sockets of `held` listen elsewhere. One of them on the same port may have the new address, too,
/// if its own is unspecified: it lets the new sockets join.
pub(in crate::process) fn open_beside(held: &[Listener], listen: Listen, count: u32) -> Result<Listener, Failure> {
    let mut on_port = held.iter().filter(|held| held.listen.address.port() == listen.address.port()).peekable();
    if on_port.peek().is_none() {
        return open(listen, count);
    }
    let shared = on_port.flat_map(Listener::sockets).try_for_each(|socket| share(socket.as_fd()));
    shared.map_err(cannot_listen(listen)).and_then(|()| try_open(listen, count, Sharing::Joining))
}

/// Tries the effect of `open_beside` in a process without the held sockets. If one of them has the port, only
/// the host can be tried.
pub(in crate::process) fn try_beside(held: &[Listener<RawFd>], listen: Listen, count: u32) -> Result<(), Failure> {
    if held.iter().all(|held| held.listen.address.port() != listen.address.port()) {
        return open(listen, count).map(drop);
    }
    let any_port = SocketAddr::new(listen.address.ip(), 0);
    bind(any_port, 1, Sharing::Alone).map(drop).map_err(cannot_listen(listen))
}

/// Another socket at the address of one that may have been alone there.
pub(in crate::process) fn join(first: &OwnedFd, address: SocketAddr) -> Result<OwnedFd, Failure> {
    let joined = share(first.as_fd()).and_then(|()| listen(address, Sharing::Joining, LISTEN_BACKLOG));
    joined.map_err(Failure::of(format_args!("listen on {address} once more")))
}

fn socket_count(purpose: Purpose, workers: u32) -> u32 {
    match purpose {
        Purpose::Traffic | Purpose::Redirect { .. } => workers,
        Purpose::Admin => 1,
    }
}

fn sharing(count: u32) -> Sharing {
    if count == 1 { Sharing::Alone } else { Sharing::First }
}

fn cannot_listen(listen: Listen) -> impl FnOnce(io::Error) -> Failure {
    Failure::of(format!("listen on {}", listen.address))
}

fn try_open(listen: Listen, count: u32, sharing: Sharing) -> Result<Listener, Failure> {
    let count = socket_count(listen.purpose, count);
    let (first, others, address) = bind(listen.address, count, sharing).map_err(cannot_listen(listen))?;
    let sockets = match listen.purpose {
        Purpose::Traffic | Purpose::Redirect { .. } => {
            Sockets::Each([first].into_iter().chain(others).map(|socket| vec![socket]).collect())
        }
        Purpose::Admin => Sockets::One(first),
    };
    Ok(Listener { listen: Listen { address, ..listen }, is_activated: false, sockets })
}

/// Binds `count` sockets, at least one, and returns their address. The first socket is given a free port for port 0,
/// and the others join it.
fn bind(address: SocketAddr, count: u32, sharing: Sharing) -> io::Result<(OwnedFd, Vec<OwnedFd>, SocketAddr)> {
    let first = TcpListener::from(listen(address, sharing, LISTEN_BACKLOG)?);
    let address = first.local_addr()?;
    let others: io::Result<_> = (1..count).map(|_| listen(address, Sharing::Joining, LISTEN_BACKLOG)).collect();
    Ok((first.into(), others?, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    const ANY_PORT: &str = "127.0.0.1:0";

    /// Sockets on a port.
    fn bound(address: &str, count: u32, sharing: Sharing) -> io::Result<(Vec<TcpListener>, SocketAddr)> {
        let (first, others, address) = bind(address.parse().unwrap(), count, sharing)?;
        Ok(([first].into_iter().chain(others).map(TcpListener::from).collect(), address))
    }

    #[test]
    fn all_sockets_share_the_port_that_the_first_was_given() {
        let (sockets, address) = bound(ANY_PORT, 3, Sharing::First).unwrap();
        assert_ne!(address.port(), 0);
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn others_join_one_that_was_alone() {
        let (first, _, address) = bind(ANY_PORT.parse().unwrap(), 1, Sharing::Alone).unwrap();
        let joined: Vec<OwnedFd> = (0..3).map(|_| join(&first, address).unwrap_or_else(|_| panic!())).collect();
        let all: Vec<TcpListener> = [first].into_iter().chain(joined).map(TcpListener::from).collect();
        let clients: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut accepted = vec![0; all.len()];
        while accepted.iter().sum::<usize>() < clients.len() {
            for (listener, count) in all.iter().zip(&mut accepted) {
                *count += usize::from(listener.accept().is_ok());
            }
        }
        assert!(accepted.iter().all(|&count| count > 0), "{accepted:?}");
    }

    #[test]
    fn refuses_a_port_that_is_listened_on_even_when_shared() {
        for (held, sharing) in [(1, Sharing::Alone), (2, Sharing::First)] {
            let (_held, address) = bound(ANY_PORT, held, sharing).unwrap();
            for (wanted, sharing) in [(1, Sharing::Alone), (2, Sharing::First)] {
                let error = bound(&address.to_string(), wanted, sharing).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            }
        }
    }

    #[test]
    fn the_unspecified_ipv6_address_takes_ipv4_too() {
        let Ok((_sockets, address)) = bound("[::]:0", 2, Sharing::First) else {
            return; // A machine without IPv6.
        };
        TcpStream::connect(("127.0.0.1", address.port())).unwrap();
        TcpStream::connect(("::1", address.port())).unwrap();
    }

    #[test]
    fn each_worker_has_a_socket_for_traffic_and_all_share_the_admin_port() {
        let open = |purpose| {
            let listener = open(Listen::plain(ANY_PORT.parse().unwrap(), purpose), 3);
            listener.unwrap_or_else(|failure| panic!("{}", failure.message))
        };
        let count = |purpose, index| {
            let (own, others) = open(purpose).of_worker(index);
            let others: Vec<usize> = others.into_iter().map(|(at, _)| at).collect();
            (own.len(), others)
        };
        assert_eq!(count(Purpose::Traffic, 1), (1, vec![0, 2]));
        assert_eq!(count(Purpose::Admin, 1), (1, vec![]));
        let listener = open(Purpose::Traffic);
        assert_ne!(listener.listen.address.port(), 0);
        let numbers: Vec<RawFd> = listener.sockets().map(AsRawFd::as_raw_fd).collect();
        assert_eq!(listener.raw().sockets, Sockets::Each(numbers.iter().map(|&number| vec![number]).collect()));
    }

    #[test]
    fn any_port_is_the_one_that_is_held() {
        let at = |text: &str| Listen::plain(text.parse().unwrap(), Purpose::Traffic);
        let admin = Listen { purpose: Purpose::Admin, ..at("127.0.0.1:80") };
        assert!(!is_same_place(admin, at("127.0.0.1:80")) && !is_same_place(at("127.0.0.1:80"), admin));
        assert!(is_same_place(at("127.0.0.1:80"), at("127.0.0.1:80")));
        assert!(is_same_place(at("127.0.0.1:4711"), at("127.0.0.1:0")));
        assert!(!is_same_place(at("127.0.0.1:80"), at("127.0.0.1:81")));
        assert!(!is_same_place(at("127.0.0.1:80"), at("0.0.0.0:80")));
    }

    #[test]
    fn sockets_serve_whatever_their_connections_carry() {
        let plain = Listen::plain("127.0.0.1:80".parse().unwrap(), Purpose::Traffic);
        let others = [
            Listen { tls: true, ..plain },
            Listen { proxy_header: true, ..plain },
            Listen { purpose: Purpose::Redirect { to_port: 443 }, ..plain },
        ];
        for other in others {
            assert!(is_same_place(plain, other) && is_same_place(other, plain), "{other:?}");
        }
    }
}
