//! Sessions that still have bytes for a client when its connection is gone. They are sent as long as the client takes them,
//! unless their descriptor is needed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::certificate::{Authority, Spec};
use crate::support::{
    Backend, Balancer, DEADLINE, Directory, Mode, Wire, clients_of, modes, response, shrink_room, use_up_descriptors,
    wait_until,
};

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A balancer with a certificate before one backend, and clients that trust it.
struct Scene {
    balancer: Balancer,
    backend: Backend,
    config: Arc<ClientConfig>,
    _directory: Directory,
}

impl Scene {
    /// The backend responds with so many bytes.
    fn new(mode: Mode, size: usize, options: &[&str]) -> Scene {
        let (authority, directory) = (Authority::new("authority"), Directory::new());
        let issued = authority.issue(&Spec { names: &["a.test"], ..Spec::new("a.test") });
        let path = directory.path().join("pair.pem").display().to_string();
        std::fs::write(&path, issued.pem() + &issued.key_pem()).expect("a file can be written");
        let mut roots = RootCertStore::empty();
        roots.add(authority.der.clone().into()).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
        let backend = Backend::replying(response("", &vec![b'x'; size]));
        let options = [options, &["--tls-cert", &path, "--admin", "0"]].concat();
        let balancer = Balancer::before(mode, &[&backend], &options);
        Scene { balancer, backend, config: Arc::new(config), _directory: directory }
    }

    /// A client that has sent a request and reads nothing.
    fn ask(&self) -> Stream {
        let name = ServerName::try_from("a.test").expect("a name");
        let session = ClientConnection::new(self.config.clone(), name).expect("a session");
        let socket = TcpStream::connect(self.balancer.address()).expect("it listens");
        shrink_room(socket.as_fd(), 16 * 1024);
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
        let mut stream = StreamOwned::new(session, socket);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").expect("a request");
        stream
    }

    fn clients(&self) -> u64 {
        let text = Wire::tcp(self.balancer.admin()).get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix("zzz_lb_client_connections "));
        line.and_then(|count| count.parse().ok()).expect("a count")
    }

    /// True if the proxy has given away the whole response of the only client, and has closed its connection.
    fn closes(&self) -> bool {
        wait_until("the backend has replied", || self.backend.requests().len() == 1);
        let begun = Instant::now();
        while self.clients() > 0 && begun.elapsed() < Duration::from_millis(600) {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.clients() == 0
    }
}

/// Calls `look` for a client that reads nothing, with the size of its response. Such a client stops a response at some
/// size: it fills the socket, then the session, then the proxy. Just below, the proxy has given all bytes away and
/// closes, and the last ones are in the session. The system does not always hold the same number of bytes.
fn search(mode: Mode, options: &[&str], look: impl Fn(&Scene, Stream, usize)) {
    for _ in 0..5 {
        let (mut fits, mut blocks) = (0, 16 << 20);
        while blocks - fits > 6000 {
            let size = usize::midpoint(fits, blocks);
            let scene = Scene::new(mode, size, options);
            let stream = scene.ask();
            if !scene.closes() {
                blocks = size;
                continue;
            }
            fits = size;
            let port = scene.balancer.address().port();
            let leaves = scene.balancer.serving().iter().any(|&pid| !clients_of(pid, port).is_empty());
            if leaves {
                return look(&scene, stream, size);
            }
        }
    }
    panic!("no response was as large as it has to be");
}

#[test]
fn bytes_that_a_session_holds_are_sent_after_its_connection_is_gone() {
    for mode in modes() {
        search(mode, &[], |_, mut stream, size| {
            let mut all = Vec::new();
            // The end is announced by a close_notify, or reading would be an error.
            stream.read_to_end(&mut all).unwrap_or_else(|error| panic!("{error} after {} of {size} bytes", all.len()));
            assert!(all.len() > size, "{} of {size}", all.len());
        });
    }
}

#[test]
fn a_session_without_a_connection_gives_its_descriptor_to_one_that_is_wanted() {
    for options in [&["--max-connections", "1"][..], &[]] {
        search(Mode::Sp, options, |scene, mut leaves, size| {
            if options.is_empty() {
                use_up_descriptors(scene.balancer.pid());
            }
            let mut all = Vec::new();
            scene.ask().read_to_end(&mut all).expect("a response");
            assert!(all.len() > size, "{options:?}");
            assert!(leaves.read_to_end(&mut Vec::new()).is_err(), "{options:?}: it is cut");
        });
    }
}
