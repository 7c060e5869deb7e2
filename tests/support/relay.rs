//! Listeners of the gateways, and relays that add or remove TLS byte by byte.

use rustls::Connection;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Runs `serve` for each connection to a free loopback port.
pub fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("bound");
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let serve = serve.clone();
            socket.set_nodelay(true).expect("a TCP socket");
            std::thread::spawn(move || serve(socket));
        }
    });
    address
}

/// A session and the socket of its ciphertext. Writes happen under the lock, so that they stay in order.
struct Secured {
    session: Connection,
    outside: TcpStream,
}

impl Secured {
    fn flush(&mut self) -> bool {
        while self.session.wants_write() {
            if self.session.write_tls(&mut self.outside).is_err() {
                return false;
            }
        }
        true
    }
}

/// Passes bytes between a socket with plaintext and one with ciphertext, until one direction breaks or both end.
pub fn relay(mut inside: TcpStream, outside: TcpStream, session: Connection) {
    inside.set_nodelay(true).expect("a TCP socket");
    outside.set_nodelay(true).expect("a TCP socket");
    let is_client = matches!(session, Connection::Client(_));
    let mut reading = outside.try_clone().expect("a second handle");
    let secured = Arc::new(Mutex::new(Secured { session, outside }));
    secured.lock().unwrap().flush();
    let (back, for_back) = (inside.try_clone().expect("a second handle"), secured.clone());
    std::thread::spawn(move || encrypt(back, &for_back, is_client));
    let (mut block, mut plain) = (vec![0; 16 * 1024], Vec::new());
    while let Ok(n) = reading.read(&mut block) {
        if n == 0 {
            break;
        }
        let mut rest = &block[..n];
        while !rest.is_empty() {
            plain.clear();
            let mut secured = secured.lock().unwrap();
            let taken = secured.session.read_tls(&mut rest).is_ok() && secured.session.process_new_packets().is_ok();
            let _ = secured.session.reader().read_to_end(&mut plain);
            if !secured.flush() || !taken {
                let _ = inside.shutdown(Shutdown::Both);
                return;
            }
            drop(secured);
            if inside.write_all(&plain).is_err() {
                // The end of the inside ends the other thread, which ends the outside.
                let _ = reading.shutdown(Shutdown::Both);
                return;
            }
        }
    }
    let _ = inside.shutdown(Shutdown::Both);
}

fn encrypt(mut inside: TcpStream, secured: &Mutex<Secured>, is_client: bool) {
    let mut block = vec![0; 16 * 1024];
    loop {
        let n = inside.read(&mut block);
        let mut secured = secured.lock().unwrap();
        match n {
            Ok(n) if n > 0 => {
                let written = secured.session.writer().write_all(&block[..n]).is_ok();
                if !written || !secured.flush() {
                    return;
                }
            }
            Ok(_) => {
                secured.session.send_close_notify();
                secured.flush();
                // A client may still wait for a response.
                let how = if is_client { Shutdown::Write } else { Shutdown::Both };
                let _ = secured.outside.shutdown(how);
                return;
            }
            // A break on the inside becomes a break on the outside.
            Err(_) => return drop(secured.outside.shutdown(Shutdown::Both)),
        }
    }
}
