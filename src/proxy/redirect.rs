//! Redirects to https: every request to such a listener gets 308 and the same URL under https. No path is an exception.

use super::Proxy;
use super::reply::LocalReply;
use crate::collections::slab::Key;
use crate::config::Purpose;
use crate::http::head::{HeadRef, Start};
use crate::http::message_error::MessageError;

/// The port that a URL under https need not name.
const HTTPS_PORT: u16 = 443;

impl Proxy {
    /// Returns the port to redirect a client to, if its listener redirects.
    pub(super) fn redirects(&self, key: Key) -> Option<u16> {
        let listener = self.connections.get(key)?.client()?.listener;
        match self.settings.listeners.get(usize::from(listener))?.listen.purpose {
            Purpose::Redirect { to_port } => Some(to_port),
            _ => None,
        }
    }

    /// Replies to a request with its URL under https. A request without a host gets 400.
    pub(super) fn answer_redirect(&mut self, id: Key, head: HeadRef<'_>, to_port: u16) {
        match location(head, to_port) {
            Some(location) => {
                self.scratch.location = location;
                self.answer_exchange(id, LocalReply::Redirect);
            }
            None => self.answer_exchange(id, LocalReply::Refused(MessageError::HostMissing)),
        }
    }
}

/// Returns the URL of a request under https. `None` if the request names no host.
fn location(head: HeadRef<'_>, to_port: u16) -> Option<Vec<u8>> {
    let host = host_of(head.authority()?);
    let Start::Request { path, .. } = head.head.start else { return None };
    if host.is_empty() {
        return None;
    }
    let mut url = [b"https://", host].concat();
    if to_port != HTTPS_PORT {
        url.extend_from_slice(format!(":{to_port}").as_bytes());
    }
    match head.get(path) {
        // The server as a whole has no URL.
        b"*" => url.push(b'/'),
        path if path.starts_with(b"/") => url.extend_from_slice(path),
        path => url.extend_from_slice(&[b"/", path].concat()),
    }
    Some(url)
}

/// Returns an authority without its port.
fn host_of(authority: &[u8]) -> &[u8] {
    let bracket = authority.iter().position(|&byte| byte == b']').map_or(0, |at| at + 1);
    let end = authority[bracket..].iter().position(|&byte| byte == b':').map_or(authority.len(), |at| bracket + at);
    &authority[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_authority_has_no_port() {
        for (authority, host) in
            [("a.test", "a.test"), ("a.test:80", "a.test"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", "")]
        {
            assert_eq!(host_of(authority.as_bytes()), host.as_bytes());
        }
    }
}
