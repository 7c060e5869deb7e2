//! The listeners in form 2 of the handover, which has one address for traffic and one for the admin port. Programs
//! before form 3 read and write no other form. Pure.

use std::net::SocketAddr;
use std::os::fd::RawFd;

use crate::config::{Listen, Purpose};
use crate::process::start::listen::{Listener, Sockets};

/// Writes the words for these listeners, each with a space before it. `None` if form 2 cannot express them.
pub(super) fn words(listeners: &[Listener<RawFd>]) -> Option<String> {
    let is_admin = |listener: &&Listener<RawFd>| listener.listen.purpose == Purpose::Admin;
    let (admin, traffic): (Vec<_>, Vec<_>) = listeners.iter().partition(is_admin);
    let first = traffic.first()?;
    let is_activated = first.is_activated;
    let is_plain = |listener: &Listener<RawFd>| {
        let Listen { address, purpose, .. } = listener.listen;
        let (traffic, admin) = (Listen::plain(address, Purpose::Traffic), Listen::plain(address, Purpose::Admin));
        listener.listen == if purpose == Purpose::Admin { admin } else { traffic }
    };
    let fits = if is_activated { traffic.iter().all(|one| one.is_activated) } else { traffic.len() == 1 };
    if !fits || !listeners.iter().all(is_plain) || admin.len() > 1 || admin.iter().any(|admin| admin.is_activated) {
        return None;
    }
    let mut words = format!(" address={}", first.listen.address);
    // All sockets of a worker are one share, regardless of their addresses.
    let mut shares: Vec<Vec<RawFd>> = Vec::new();
    for listener in traffic {
        let Sockets::Each(of_workers) = &listener.sockets else { return None };
        shares.resize(shares.len().max(of_workers.len()), Vec::new());
        shares.iter_mut().zip(of_workers).for_each(|(share, sockets)| share.extend(sockets));
    }
    for share in shares {
        words += &format!(" listeners={}", numbers(&share));
    }
    if is_activated {
        words += " activated=1";
    }
    if let Some(Listener { listen, sockets: Sockets::One(socket), .. }) = admin.first() {
        words += &format!(" admin={socket}@{}", listen.address);
    }
    Some(words)
}

/// The words that were read.
#[derive(Default)]
pub(super) struct Listeners {
    address: Option<SocketAddr>,
    shares: Vec<Vec<RawFd>>,
    is_activated: bool,
    admin: Option<Listener<RawFd>>,
}

impl Listeners {
    /// Reads a word. `None` if form 2 does not have it, or it is malformed.
    pub(super) fn read(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "address" => self.address = Some(value.parse().ok()?),
            "listeners" => self.shares.push(parse_numbers(value)?),
            "activated" => self.is_activated = value == "1",
            "admin" => {
                let (socket, address) = value.split_once('@')?;
                let listen = Listen::plain(address.parse().ok()?, Purpose::Admin);
                let sockets = Sockets::One(socket.parse().ok()?);
                self.admin = Some(Listener { listen, is_activated: false, sockets });
            }
            _ => return None,
        }
        Some(())
    }

    /// The listeners that the words describe. `None` without an address.
    pub(super) fn list(self) -> Option<Vec<Listener<RawFd>>> {
        let Listeners { address, shares, is_activated, admin } = self;
        let listen = Listen::plain(address?, Purpose::Traffic);
        let traffic = Listener { listen, is_activated, sockets: Sockets::Each(shares) };
        Some([traffic].into_iter().chain(admin).collect())
    }
}

/// The numbers of descriptors, separated by commas.
pub(super) fn numbers(fds: &[RawFd]) -> String {
    fds.iter().map(RawFd::to_string).collect::<Vec<_>>().join(",")
}

/// Reads the numbers of descriptors, at least one.
pub(super) fn parse_numbers(text: &str) -> Option<Vec<RawFd>> {
    text.split(',').map(|fd| fd.parse().ok()).collect()
}
