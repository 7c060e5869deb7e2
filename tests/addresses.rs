//! Addresses of backends and of the balancer: IPv4, IPv6, Unix sockets.

use crate::support::{Backend, Balancer, Directory, Mode, Peer, Wire, command, modes, response, skipped};

fn name_itself(name: &'static str) -> impl Fn(Peer) + Send + Sync + 'static {
    move |mut peer| {
        while peer.request().is_some() {
            peer.send(response("", name.as_bytes()));
        }
    }
}

#[test]
fn a_backend_may_be_a_unix_socket() {
    for mode in modes() {
        let directory = Directory::new();
        let backend = Backend::serve_unix(&directory.file("backend.sock"), name_itself("unix"));
        let balancer = Balancer::before(mode, &[&backend], &[]);
        for n in 0..4 {
            assert_eq!(balancer.get(&format!("/{n}")), "unix");
        }
        let answer = balancer.connect().post("/p", &[7; 100_000]);
        assert_eq!(answer.text(), "unix");
        assert_eq!(backend.last().body.bytes, [7; 100_000]);
        assert_eq!(backend.last().values("Host"), ["test.example"]);
    }
}

#[test]
fn a_backend_may_have_an_ipv6_address() {
    for mode in modes() {
        let Some(backend) = Backend::serve_on("[::1]:0", name_itself("six")) else {
            skipped("no IPv6 here");
            return;
        };
        let balancer = Balancer::before(mode, &[&backend], &[]);
        assert_eq!(balancer.get("/"), "six");
        let with_scheme = format!("http://{}", backend.spec());
        let balancer = Balancer::start(mode, &["-b", &with_scheme]);
        assert_eq!(balancer.get("/"), "six");
    }
}

#[test]
fn the_balancer_may_listen_on_ipv6_and_on_both() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        skipped("no IPv6 here");
        return;
    }
    let backend = Backend::named("backend");
    for (host, dial) in [("[::1]", "[::1]"), ("[::]", "[::1]"), ("[::]", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")] {
        let balancer = Balancer::spawn(command(&["--mode", "sp", "--host", host, "-p", "0", "-b", &backend.spec()]));
        let address = format!("{dial}:{}", balancer.address().port()).parse().expect("an address");
        let mut client = Wire::tcp(address);
        assert_eq!(client.get("/").text(), "backend", "{host}");
        // An IPv4 client of a dual-stack socket is reported as IPv4.
        assert_eq!(backend.last().value("X-Forwarded-For"), Some(dial.trim_matches(['[', ']'])), "{host}");
    }
}

#[test]
fn a_backend_may_be_given_with_its_scheme_or_by_a_known_name() {
    let backend = Backend::named("backend");
    let port = backend.spec().rsplit(':').next().expect("a port").to_string();
    for spec in [format!("http://127.0.0.1:{port}"), format!("localhost:{port}")] {
        let balancer = Balancer::start(Mode::Sp, &["-b", &spec]);
        assert_eq!(balancer.get("/"), "backend", "{spec}");
    }
}
