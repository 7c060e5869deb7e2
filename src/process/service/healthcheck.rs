//! `load_balancer healthcheck`: asks a balancer whether it is well, as a short-lived process of its own.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::args::Healthcheck;
use crate::limits::{HEALTHCHECK_BYTES, HEALTHCHECK_US};

/// Checks the health of a balancer: it accepts a connection, and answers a path, if given, with 2xx or 3xx.
/// Errors name the fault. It takes at most two seconds.
pub fn healthcheck(wanted: &Healthcheck) -> Result<(), String> {
    let Healthcheck { address, path } = wanted;
    let until = Instant::now() + Duration::from_micros(HEALTHCHECK_US);
    let mut connection = TcpStream::connect_timeout(address, Duration::from_micros(HEALTHCHECK_US))
        .map_err(|error| format!("{address}: {error}"))?;
    let Some(path) = path else { return Ok(()) };
    let status =
        ask(&mut connection, &format!("{address}"), path, until).map_err(|error| format!("{address}: {error}"))?;
    if matches!(status, 200..=399) { Ok(()) } else { Err(format!("{address}{path}: status {status}")) }
}

/// The status that a request is answered with.
fn ask(connection: &mut TcpStream, host: &str, path: &str, until: Instant) -> io::Result<u16> {
    connection.set_write_timeout(Some(Duration::from_micros(HEALTHCHECK_US)))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes())?;
    let mut answer = [0; HEALTHCHECK_BYTES];
    let mut length = 0;
    // "HTTP/1.1 200"
    while length < answer.len() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        connection.set_read_timeout(Some(left))?;
        match connection.read(&mut answer[length..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => length += n,
        }
    }
    let status = std::str::from_utf8(&answer[9..]).ok().filter(|_| answer.starts_with(b"HTTP/1."));
    status.and_then(|status| status.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answered(answer: &'static [u8], path: Option<&str>) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wanted = Healthcheck { address: listener.local_addr().unwrap(), path: path.map(str::to_owned) };
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let _ = client.write_all(answer);
            let _ = client.read(&mut [0; 500]);
        });
        let result = healthcheck(&wanted);
        server.join().unwrap();
        result
    }

    #[test]
    fn a_good_status_is_well_and_any_other_is_not() {
        assert_eq!(answered(b"", None), Ok(()));
        assert_eq!(answered(b"HTTP/1.1 200 OK\r\n\r\n", Some("/")), Ok(()));
        assert_eq!(answered(b"HTTP/1.0 302 Found\r\n\r\n", Some("/")), Ok(()));
        assert!(
            answered(b"HTTP/1.1 503 Service Unavailable\r\n\r\n", Some("/r")).unwrap_err().ends_with("/r: status 503")
        );
        for nonsense in [&b"SSH-2.0-OpenSSH_9\r\n"[..], b"HTTP/1.1 x00 Y\r\n", b"HTTP/1.1"] {
            assert!(answered(nonsense, Some("/")).is_err(), "{nonsense:?}");
        }
    }
}
