//! Backends for a host, or for a host and the begin of a path.

use crate::support::{Backend, Balancer, Directory, Mode, PROTOCOLS, Way, modes, run};

/// Returns the status of a request and the content of its response.
fn ask(balancer: &Balancer, head: &str) -> (u16, String) {
    let mut wire = balancer.connect();
    wire.send(format!("{head}Connection: close\r\n\r\n"));
    let response = wire.response("GET");
    (response.status(), response.text())
}

fn get(balancer: &Balancer, host: &str, path: &str) -> String {
    ask(balancer, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n")).1
}

#[test]
fn requests_go_to_the_backends_for_their_host_and_path() {
    for mode in modes() {
        let backends = ["site", "api", "rest"].map(Backend::named);
        let [site, api, rest] = backends.each_ref().map(Backend::spec);
        let (site, api) = (format!("{site},for=Site.test,for=[::1]"), format!("{api},for=site.test/api"));
        let balancer = Balancer::start(mode, &["-b", &site, "-b", &api, "-b", &rest]);
        for (host, path, expected) in [
            ("site.test", "/", "site"),
            ("SITE.test.:99", "/apix", "site"),
            ("site.test", "/%61pi", "site"),
            ("site.test", "//api", "site"),
            ("[0::1]:8080", "/api", "site"),
            ("site.test", "/api", "api"),
            ("site.test", "/api/x?y", "api"),
            ("site.test", "/api/../x", "api"),
            ("www.site.test", "/api", "rest"),
            ("127.0.0.1", "/", "rest"),
        ] {
            assert_eq!(get(&balancer, host, path), expected, "{mode:?} {host} {path}");
        }
        // The path is forwarded as it came.
        assert_eq!(backends[1].last().target(), "/api/../x");
        assert_eq!(ask(&balancer, "GET http://site.test/api HTTP/1.1\r\nHost: x\r\n").1, "api");
    }
}

#[test]
fn routes_hold_over_each_protocol_to_backends() {
    for protocol in PROTOCOLS {
        let backends = ["site", "rest"].map(Backend::named);
        let ways = backends.each_ref().map(|backend| Way::to(backend, protocol));
        // Both gateways have authorities of their own, so their certificates are not verified.
        let (site, rest) = (format!("{},for=site.test/x", ways[0].spec()), ways[1].spec());
        let balancer = Balancer::start(Mode::Sp, &["-k", "-b", &site, "-b", rest]);
        for (host, path, expected) in [("site.test", "/x/y", "site"), ("site.test", "/y", "rest"), ("b", "/x", "rest")]
        {
            assert_eq!(get(&balancer, host, path), expected, "{protocol:?} {host} {path}");
        }
    }
}

#[test]
fn a_request_that_no_backend_is_for_gets_404_and_a_group_that_is_down_is_not_replaced() {
    for mode in modes() {
        let mut backends = ["a", "b"].map(Backend::named);
        let [a, b] = backends.each_ref().map(Backend::spec);
        let (a, b) = (format!("{a},for=a.test"), format!("{b},for=b.test"));
        let balancer = Balancer::start(mode, &["-b", &a, "-b", &b]);
        assert_eq!(ask(&balancer, "GET / HTTP/1.1\r\nHost: c.test\r\n").0, 404);
        backends[0].stop();
        for _ in 0..5 {
            assert_eq!(ask(&balancer, "GET / HTTP/1.1\r\nHost: a.test\r\n").0, 502, "{mode:?}");
            assert_eq!(get(&balancer, "b.test", "/"), "b");
        }
        let log = balancer.wait_for_log("no backend for a.test is healthy");
        assert!(log.contains("-> 404") && log.contains("no backend serves this host and path"), "{log}");
        assert!(!log.contains("no backend for b.test"), "{log}");
    }
}

#[test]
fn a_file_names_one_route_or_several_and_a_reload_changes_them() {
    let backends = ["a", "b"].map(Backend::named);
    let [a, b] = backends.each_ref().map(Backend::spec);
    let port = |spec: &str| spec.rsplit(':').next().expect("a port").to_owned();
    let file = |routes: &str| {
        format!(
            r#"{{"backends": [{{"host": "127.0.0.1", "port": {}, "for": {routes}}}, {{"host": "127.0.0.1", "port": {}}}]}}"#,
            port(&a),
            port(&b)
        )
    };
    for mode in modes() {
        let directory = Directory::new();
        let path = directory.put("lb.json", &file(r#"["a.test/x", "[::1]"]"#));
        let balancer = Balancer::with_file(mode, &path, &[]);
        let asked = |hosts: [(&str, &str); 3]| hosts.map(|(host, path)| get(&balancer, host, path));
        assert_eq!(asked([("a.test", "/x"), ("[::1]", "/"), ("a.test", "/")]), ["a", "a", "b"]);
        directory.put("lb.json", &file(r#""a.test""#));
        balancer.wait_for_log("for a.test/x [::1] -> a.test");
        crate::support::wait_until("both workers follow", || {
            (0..10).all(|_| asked([("a.test", "/y"), ("[::1]", "/"), ("a.test", "/")]) == ["a", "b", "a"])
        });
    }
}

#[test]
fn a_malformed_route_is_refused_with_its_reason() {
    for (spec, reason) in [
        ("a:1,for=b:80", "the host of for has a port"),
        ("a:1,for=*.b", "a wildcard is none"),
        ("a:1,fro=b", "did you mean 'for'?"),
    ] {
        let output = run(&["-b", spec, "--check"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(reason), "{spec}: {text}");
    }
}
