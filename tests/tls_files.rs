//! Files of certificates and keys while the program runs: a bad one is one log line and one count.

use crate::support::certificate::{Issued, Spec, self_signed};
use crate::support::{Backend, Balancer, Directory, Wire, modes, wait_until, wait_until_still};

#[test]
fn a_bad_file_is_one_line_and_one_count_and_the_expiry_of_each_pair_is_a_metric() {
    let until = |name: &str, not_after: &str| self_signed(&Spec { names: &[name], not_after, ..Spec::new(name) });
    for mode in modes() {
        let directory = Directory::new();
        let put = |name: &str, issued: &Issued| {
            let path = directory.put(&format!("{name}.pem"), &issued.pem()).display().to_string();
            (path, directory.put(&format!("{name}.key"), &issued.key_pem()).display().to_string())
        };
        // 2100-01-01 and 2101-01-01.
        let (one, one_key) = put("one", &until("one.test", "21000101000000"));
        let (two, two_key) = put("two", &until("two.test", "21010101000000"));
        let backend = Backend::named("backend");
        let pairs = ["--tls-cert", &one, "--tls-key", &one_key, "--tls-cert", &two, "--tls-key", &two_key];
        let balancer = Balancer::before(mode, &[&backend], &[&pairs[..], &["--admin", "0"]].concat());
        let metrics = || Wire::tcp(balancer.admin()).get("/metrics").text();
        let expiry = |path: &str, at_s: u64| {
            let family = "zzz_lb_served_certificate_expiry_timestamp_seconds";
            metrics().contains(&format!("{family}{{certificate=\"{path}\"}} {at_s}\n"))
        };
        let counted = |result: &str, count: u64| {
            metrics().contains(&format!("zzz_lb_certificate_reloads_total{{result=\"{result}\"}} {count}\n"))
        };
        wait_until("both are there", || expiry(&one, 4_102_444_800) && expiry(&two, 4_133_980_800));
        let lines = || balancer.log().matches(" err tls: ").count() as u64;
        for half in ["-----BEGIN PRIVATE KEY-----\nMC4CAQ", "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYD"] {
            directory.put("two.key", half);
            balancer.wait_for_log(&format!(
                " err tls: --tls-cert {two}: the key is not PEM up to the end (key: {two_key}): the one before stays"
            ));
            wait_until_still(lines);
        }
        assert!(lines() == 1 && counted("refused", 1) && expiry(&two, 4_133_980_800), "{mode:?}: {}", balancer.log());
        put("two", &until("two.test", "21020101000000"));
        balancer.wait_for_log(&format!(" info tls: --tls-cert {two}: can be used again"));
        wait_until("another one is served", || expiry(&two, 4_165_516_800));
        assert!(expiry(&one, 4_102_444_800) && lines() == 1, "{mode:?}: {}", balancer.log());
        wait_until("it is counted", || counted("refused", 1) && counted("done", 1));
    }
}

/// A configuration that names a bad file is refused, by a reload and by an upgrade, although a good one was there before.
#[test]
fn a_configuration_that_names_a_bad_key_is_refused_as_a_start_refuses_it() {
    for mode in modes() {
        let directory = Directory::new();
        let issued = |name: &str| self_signed(&Spec { names: &[name], ..Spec::new(name) });
        let (good, other) = (issued("a.test"), issued("a.test"));
        directory.put("a.pem", &good.pem());
        directory.put("a.key", &good.key_pem());
        directory.put("other.key", &other.key_pem());
        directory.put("ca.pem", &other.pem());
        directory.put("empty", "");
        directory.put("tickets", &[7; 80]);
        directory.put("short", &[7; 12]);
        directory.put("cookie", &"A".repeat(44));
        let at = |name: &str| directory.file(name).display().to_string();
        let backend = Backend::named("backend");
        let file = |key: &str, ca: &str, tickets: &str, cookie: &str| {
            let (certificate, key, ca) = (at("a.pem"), at(key), at(ca));
            let (tickets, cookie) = (at(tickets), at(cookie));
            let text = format!(
                r#"{{"backends": ["{}"], "tls_cert": "{certificate}", "tls_key": "{key}", "tls_client_ca": "{ca}",
                    "tls_client_optional": true, "tls_ticket_key": "{tickets}", "sticky": "cookie",
                    "sticky_key": "{cookie}"}}"#,
                backend.spec()
            );
            directory.put("lb.json", &text)
        };
        let path = file("a.key", "ca.pem", "tickets", "cookie");
        let balancer = Balancer::with_file(mode, &path, &[]);
        let refused = || balancer.log().matches("refused: the configuration before stays").count();
        let kept = || balancer.log().matches("refused: ").count() - refused();
        let bad = [
            (["absent.key", "ca.pem", "tickets", "cookie"], format!("--tls-key {}: No such file", at("absent.key"))),
            (["other.key", "ca.pem", "tickets", "cookie"], format!("(key: {})", at("other.key"))),
            (
                ["a.key", "empty", "tickets", "cookie"],
                format!("--tls-client-ca {}: there is no BEGIN CERTIFICATE", at("empty")),
            ),
            (["a.key", "ca.pem", "short", "cookie"], format!("--tls-ticket-key {}: ", at("short"))),
            (["a.key", "ca.pem", "tickets", "short"], format!("--sticky-key {}: ", at("short"))),
        ];
        for (count, ([key, ca, tickets, cookie], reason)) in bad.into_iter().enumerate() {
            file(key, ca, tickets, cookie);
            wait_until("the reload is refused", || refused() == count + 1);
            assert!(balancer.log().contains(&reason), "{mode:?}: no {reason}:\n{}", balancer.log());
            balancer.signal(libc::SIGUSR2);
            wait_until("the upgrade is refused", || kept() == count + 1);
            // The reason is not cut.
            let log = balancer.log();
            let line = log.lines().rfind(|line| line.contains("upgrade: refused: ")).expect("just counted");
            assert!(line.contains(&reason), "{mode:?}: {line}");
            assert!(line.ends_with("; this program goes on"), "{mode:?}: {line}");
        }
        assert!(!balancer.log().contains("(generation 1)"), "{mode:?}: {}", balancer.log());
        file("a.key", "ca.pem", "tickets", "cookie");
        balancer.wait_for_log("+0 -0 ~0 backends: nothing has changed");
        // A file that is bad behind the same name does not prevent an upgrade.
        directory.put("a.key", "");
        balancer.wait_for_log(": the one before stays");
        balancer.signal(libc::SIGUSR2);
        balancer.wait_for_log("(generation 1)");
    }
}
