//! Socket addresses in the system's form.

#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::{sa_family_t, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, sockaddr_un, socklen_t};

/// An address of any family in the system's form.
#[derive(Clone, Copy)]
pub struct RawAddress {
    storage: sockaddr_storage,
    length: socklen_t,
}

impl RawAddress {
    /// An empty address, for calls that write one.
    pub fn empty() -> RawAddress {
        // SAFETY: all zeroes is a valid value of this plain struct of integers.
        RawAddress { storage: unsafe { mem::zeroed() }, length: mem::size_of::<sockaddr_storage>() as socklen_t }
    }

    /// An IP address and port.
    pub fn tcp(address: SocketAddr) -> RawAddress {
        let mut raw = RawAddress::empty();
        match address {
            SocketAddr::V4(v4) => {
                // SAFETY: the storage is larger than any address and aligned for all of them.
                let room = unsafe { &mut *(&raw mut raw.storage).cast::<sockaddr_in>() };
                room.sin_family = libc::AF_INET as sa_family_t;
                room.sin_port = v4.port().to_be();
                room.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
                raw.length = mem::size_of::<sockaddr_in>() as socklen_t;
            }
            SocketAddr::V6(v6) => {
                // SAFETY: as above.
                let room = unsafe { &mut *(&raw mut raw.storage).cast::<sockaddr_in6>() };
                room.sin6_family = libc::AF_INET6 as sa_family_t;
                room.sin6_port = v6.port().to_be();
                room.sin6_addr.s6_addr = v6.ip().octets();
                room.sin6_scope_id = v6.scope_id();
                raw.length = mem::size_of::<sockaddr_in6>() as socklen_t;
            }
        }
        raw
    }

    /// A path in the file system; an error if it is too long.
    pub fn unix(path: &Path) -> io::Result<RawAddress> {
        let mut raw = RawAddress::empty();
        let text = path.as_os_str().as_bytes();
        // SAFETY: the storage is larger than any address and aligned for all of them.
        let room = unsafe { &mut *(&raw mut raw.storage).cast::<sockaddr_un>() };
        // The last byte stays zero and ends the path.
        if text.len() >= room.sun_path.len() || text.contains(&0) {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        room.sun_family = libc::AF_UNIX as sa_family_t;
        for (to, from) in room.sun_path.iter_mut().zip(text) {
            *to = *from as libc::c_char;
        }
        raw.length = mem::size_of::<sockaddr_un>() as socklen_t;
        Ok(raw)
    }

    /// The address family.
    pub fn family(&self) -> libc::c_int {
        self.storage.ss_family.into()
    }

    /// The IP address and port; `None` for other families. An IPv4-mapped IPv6 address becomes IPv4.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        match self.family() {
            libc::AF_INET => {
                // SAFETY: the family determines the type in the storage.
                let raw = unsafe { &*(&raw const self.storage).cast::<sockaddr_in>() };
                let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddr::new(ip.into(), u16::from_be(raw.sin_port)))
            }
            libc::AF_INET6 => {
                // SAFETY: the family determines the type in the storage.
                let raw = unsafe { &*(&raw const self.storage).cast::<sockaddr_in6>() };
                let ip = IpAddr::V6(Ipv6Addr::from(raw.sin6_addr.s6_addr)).to_canonical();
                Some(SocketAddr::new(ip, u16::from_be(raw.sin6_port)))
            }
            _ => None,
        }
    }

    /// The pointer and length for calls that read an address.
    pub fn as_parts(&self) -> (*const sockaddr, socklen_t) {
        ((&raw const self.storage).cast(), self.length)
    }

    /// The pointers for calls that write an address.
    pub fn as_parts_mut(&mut self) -> (*mut sockaddr, *mut socklen_t) {
        ((&raw mut self.storage).cast(), &raw mut self.length)
    }
}
