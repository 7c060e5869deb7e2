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
                " err tls: {two}: the key is not PEM up to the end (key: {two_key}): the one before stays"
            ));
            wait_until_still(lines);
        }
        assert!(lines() == 1 && counted("refused", 1) && expiry(&two, 4_133_980_800), "{mode:?}: {}", balancer.log());
        put("two", &until("two.test", "21020101000000"));
        wait_until("another one is served", || expiry(&two, 4_165_516_800));
        assert!(expiry(&one, 4_102_444_800) && lines() == 1, "{mode:?}: {}", balancer.log());
        wait_until("it is counted", || counted("refused", 1) && counted("done", 1));
    }
}
