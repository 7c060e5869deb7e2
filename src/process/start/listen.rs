//! The listeners: one for each worker, all on one port, all made before any worker is.
//!
//! Several listeners on a port need SO_REUSEPORT, which would also let another running instance
//! of the same user join them and take a part of the connections unnoticed. So the first is bound
//! without it, which proves that nobody else is there, and then lets the rest join. It is never
//! closed and made anew: that would reset a client that comes in between, or drop its SYN.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use crate::limits::LISTEN_BACKLOG;
use crate::process::Failure;
use crate::sys::listen::{Sharing, listen, share};

/// Whether `open` would succeed.
pub(in crate::process) fn can_open(address: SocketAddr, count: u32) -> io::Result<()> {
    try_open(address, count, sharing(count)).map(drop)
}

fn sharing(count: u32) -> Sharing {
    if count == 1 { Sharing::Alone } else { Sharing::First }
}

/// `count` listeners on `address`, and the address that they have: for port 0 the first one is
/// given a free port and the rest join it.
pub(in crate::process) fn open(address: SocketAddr, count: u32) -> Result<(Vec<OwnedFd>, SocketAddr), Failure> {
    try_open(address, count, sharing(count)).map_err(Failure::of(format_args!("listen on {address}")))
}

/// The same while `held` listen elsewhere: where that is another host on the same port, one may have the
/// other's addresses, and the held ones let the new ones join.
pub(in crate::process) fn open_beside<'a>(
    mut held: impl Iterator<Item = &'a OwnedFd>,
    held_at: SocketAddr,
    address: SocketAddr,
    count: u32,
) -> Result<(Vec<OwnedFd>, SocketAddr), Failure> {
    if held_at.port() != address.port() {
        return open(address, count);
    }
    let shared = held.try_for_each(|listener| share(listener.as_fd()));
    let opened = shared.and_then(|()| try_open(address, count, Sharing::Joining));
    opened.map_err(Failure::of(format_args!("listen on {address}")))
}

/// Tries what `open_beside` would do, in a process that does not have those that are held: where they have
/// the port, all that can be tried is the host.
pub(in crate::process) fn try_beside(
    held_at: Option<SocketAddr>,
    address: SocketAddr,
    count: u32,
) -> Result<(), Failure> {
    if held_at.is_none_or(|held_at| held_at.port() != address.port()) {
        return open(address, count).map(drop);
    }
    let opened = try_open(SocketAddr::new(address.ip(), 0), 1, Sharing::Alone);
    opened.map(drop).map_err(Failure::of(format_args!("listen on {address}")))
}

/// Another listener at the address of one that may have been alone there.
pub(in crate::process) fn join(first: &OwnedFd, address: SocketAddr) -> Result<OwnedFd, Failure> {
    let joined = share(first.as_fd()).and_then(|()| listen(address, Sharing::Joining, LISTEN_BACKLOG));
    joined.map_err(Failure::of(format_args!("listen on {address} once more")))
}

fn try_open(address: SocketAddr, count: u32, sharing: Sharing) -> io::Result<(Vec<OwnedFd>, SocketAddr)> {
    let first = TcpListener::from(listen(address, sharing, LISTEN_BACKLOG)?);
    let address = first.local_addr()?;
    let mut listeners = vec![OwnedFd::from(first)];
    for _ in 1..count {
        listeners.push(listen(address, Sharing::Joining, LISTEN_BACKLOG)?);
    }
    Ok((listeners, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    const ANY_PORT: &str = "127.0.0.1:0";

    #[test]
    fn all_listeners_share_the_port_that_the_first_was_given() {
        let (listeners, address) = try_open(ANY_PORT.parse().unwrap(), 3, Sharing::First).unwrap();
        assert_ne!(address.port(), 0);
        let listeners: Vec<TcpListener> = listeners.into_iter().map(TcpListener::from).collect();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn others_join_one_that_was_alone() {
        let (listeners, address) = try_open(ANY_PORT.parse().unwrap(), 1, Sharing::Alone).unwrap();
        let joined: Vec<OwnedFd> = (0..3).map(|_| join(&listeners[0], address).unwrap_or_else(|_| panic!())).collect();
        let all: Vec<TcpListener> = listeners.into_iter().chain(joined).map(TcpListener::from).collect();
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
            let (_held, address) = try_open(ANY_PORT.parse().unwrap(), held, sharing).unwrap();
            for (wanted, sharing) in [(1, Sharing::Alone), (2, Sharing::First)] {
                let error = try_open(address, wanted, sharing).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            }
        }
    }

    #[test]
    fn the_unspecified_ipv6_address_takes_ipv4_too() {
        let Ok((_listeners, address)) = try_open("[::]:0".parse().unwrap(), 2, Sharing::First) else {
            return; // A machine without IPv6.
        };
        TcpStream::connect(("127.0.0.1", address.port())).unwrap();
        TcpStream::connect(("::1", address.port())).unwrap();
    }
}
