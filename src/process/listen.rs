//! The listeners: one for each worker, all on one port, all made before any worker is.
//!
//! Several listeners on a port need SO_REUSEPORT, which would also let another running instance
//! of the same user join them and take a part of the connections unnoticed. So the first is bound
//! without it, which proves that nobody else is there, and then lets the rest join. It is never
//! closed and made anew: that would reset a client that comes in between, or drop its SYN.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use super::Failure;
use crate::limits::LISTEN_BACKLOG;
use crate::sys::listen::{Sharing, listen};

/// `count` listeners on `address`, and the address that they have: for port 0 the first one is
/// given a free port and the rest join it.
pub(super) fn open(address: SocketAddr, count: u32) -> Result<(Vec<OwnedFd>, SocketAddr), Failure> {
    try_open(address, count).map_err(Failure::of(format_args!("listen on {address}")))
}

fn try_open(address: SocketAddr, count: u32) -> io::Result<(Vec<OwnedFd>, SocketAddr)> {
    let sharing = if count == 1 { Sharing::Alone } else { Sharing::First };
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
        let (listeners, address) = try_open(ANY_PORT.parse().unwrap(), 3).unwrap();
        assert_ne!(address.port(), 0);
        let listeners: Vec<TcpListener> = listeners.into_iter().map(TcpListener::from).collect();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn refuses_a_port_that_is_listened_on_even_when_shared() {
        for held in [1, 2] {
            let (_held, address) = try_open(ANY_PORT.parse().unwrap(), held).unwrap();
            for wanted in [1, 2] {
                let error = try_open(address, wanted).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            }
        }
    }

    #[test]
    fn the_unspecified_ipv6_address_takes_ipv4_too() {
        let Ok((_listeners, address)) = try_open("[::]:0".parse().unwrap(), 2) else {
            return; // A machine without IPv6.
        };
        TcpStream::connect(("127.0.0.1", address.port())).unwrap();
        TcpStream::connect(("::1", address.port())).unwrap();
    }
}
