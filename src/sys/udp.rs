//! Datagram sockets, never blocking, each connected to one peer: from another the system takes
//! nothing, and an error that the peer's host reports comes with the next call.

#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::c_int;

use super::address::RawAddress;

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A fresh socket connected to an address, on a port that the system picks at random.
pub fn open(address: SocketAddr) -> io::Result<OwnedFd> {
    let raw = RawAddress::tcp(address);
    let kind: c_int = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: takes three integers.
    let fd = unsafe { libc::socket(raw.family(), kind, 0) };
    check(fd as isize)?;
    // SAFETY: the descriptor was just made, and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let (pointer, length) = raw.as_parts();
    // SAFETY: the pointer and the length are a live value's.
    check(unsafe { libc::connect(socket.as_raw_fd(), pointer, length) } as isize)?;
    Ok(socket)
}

/// Sends one datagram to the peer.
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the pointer and the length are a live slice's.
    check(unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) }).map(drop)
}

/// Receives one datagram from the peer into `room`; what does not fit of it is lost. How long it
/// is, 0 included.
pub fn receive(fd: BorrowedFd<'_>, room: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are a live slice's.
    check(unsafe { libc::recv(fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), 0) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    /// Receives once there is something, an error included.
    fn wait(socket: &OwnedFd) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut room = [0; 64];
        loop {
            match receive(socket.as_fd(), &mut room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::yield_now();
                }
                result => return result.map(|n| room[..n].to_vec()),
            }
        }
    }

    #[test]
    fn datagrams_go_to_the_peer_and_come_from_it_alone() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine may be without IPv6.
            let Ok(peer) = UdpSocket::bind(address) else { continue };
            let socket = open(peer.local_addr().unwrap()).unwrap();
            assert_eq!(receive(socket.as_fd(), &mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            send(socket.as_fd(), b"asked").unwrap();
            let mut room = [0; 64];
            let (length, from) = peer.recv_from(&mut room).unwrap();
            assert_eq!(&room[..length], b"asked");
            let stranger = UdpSocket::bind(address).unwrap();
            stranger.send_to(b"forged", from).unwrap();
            peer.send_to(b"answered", from).unwrap();
            assert_eq!(wait(&socket).unwrap(), b"answered");
        }
    }

    #[test]
    fn a_port_where_nobody_listens_is_an_error() {
        let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let socket = open(address).unwrap();
        send(socket.as_fd(), b"asked").unwrap();
        assert_eq!(wait(&socket).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
