//! `--check` and a start examine the certificates for clients: names, validity, chain, keys.

use std::process::Command;

use crate::support::certificate::{Authority, Spec};
use crate::support::{Backend, Balancer, Directory, modes, run, skipped};

/// The lines of stdout and stderr, and the exit status.
fn check(args: &[&str]) -> (String, String, Option<i32>) {
    let output = run(&[&["--check", "-p", "0", "--host", "127.0.0.1", "-b", "127.0.0.1:1"], args].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

/// A time this many days from now, and half a day further, as a certificate has it.
fn in_days(days: i64) -> String {
    let hours = days * 24 + 12 * days.signum();
    let date = Command::new("date").args(["-u", "-d", &format!("{hours} hours"), "+%Y%m%d%H%M%S"]).output();
    String::from_utf8(date.expect("date is there").stdout).expect("text").trim().to_owned()
}

fn leaf<'a>(names: &'a [&'a str]) -> Spec<'a> {
    Spec { names, ..Spec::new(names[0]) }
}

#[test]
fn the_plan_lists_the_names_and_the_expiry_of_each_file() {
    let directory = Directory::new();
    let root = Authority::new("Root");
    let until = in_days(99);
    let issued = root.issue(&Spec { not_after: &until, ..leaf(&["a.test", "*.b.test"]) });
    let file = directory.put("a.pem", &(issued.pem() + &root.pem() + &issued.key_pem())).display().to_string();
    let ca = directory.put("ca.pem", &(root.pem() + &Authority::new("Other").pem())).display().to_string();
    let (plan, warnings, status) = check(&["--tls-cert", &file, "--tls-client-ca", &ca]);
    let day = format!("{}-{}-{}", &until[..4], &until[4..6], &until[6..8]);
    assert!(
        plan.contains(&format!("\ntls       {file}: Ed25519, until {day} (99 days), for a.test, *.b.test\n")),
        "{plan}"
    );
    assert!(plan.contains(&format!("\ntls       {ca}: 2 authorities of clients\n")), "{plan}");
    let warnings: Vec<&str> = warnings.lines().filter(|line| line.contains(" tls: ")).collect();
    assert_eq!((warnings, status), (vec![], Some(0)));
}

#[test]
fn a_fault_that_clients_may_notice_is_a_warning() {
    let directory = Directory::new();
    let root = Authority::new("Root");
    let middle = root.intermediate("Middle");
    let put = |name: &str, spec: &Spec<'_>, chain: &[String]| {
        let issued = middle.issue(spec);
        directory.put(name, &(issued.pem() + &chain.concat() + &issued.key_pem())).display().to_string()
    };
    let whole = [middle.pem(), root.pem()];
    let (soon, past) = (in_days(19), in_days(-3));
    let expired = root.intermediate_of(&Spec { not_after: &past, ..Spec::new("Expired") });
    let issued = expired.issue(&leaf(&["a.test"]));
    let chain = issued.pem() + &expired.pem() + &root.pem() + &issued.key_pem();
    let cases = [
        // Clients may build another path.
        (directory.put("expired.pem", &chain).display().to_string(), "certificate 2 expired 3 days ago: renew it"),
        (
            put("missing.pem", &leaf(&["a.test"]), &[]),
            "certificate 1 has an issuer that is neither in the file nor a root of this system (O=Tests, CN=Middle): \
             append the intermediate certificates",
        ),
        (
            put("order.pem", &leaf(&["a.test"]), &[root.pem(), middle.pem()]),
            "certificate 3 is out of order: it is the issuer of certificate 1; put it directly behind that",
        ),
        (
            put("other.pem", &leaf(&["a.test"]), &[middle.pem(), root.pem(), Authority::new("Other").pem()]),
            "certificate 4 does not belong to the chain of certificate 1: remove it",
        ),
        (
            put("signed.pem", &leaf(&["a.test"]), &[root.intermediate("Middle").pem(), root.pem()]),
            "certificate 1 was not signed by certificate 2, which has the name of its issuer",
        ),
        (
            put("soon.pem", &Spec { not_after: &soon, ..leaf(&["a.test"]) }, &whole),
            "certificate 1 expires in 19 days: renew it",
        ),
        (put("none.pem", &Spec::new("a.test"), &whole), "certificate 1 is for no name (it has no subjectAltName)"),
    ];
    for (file, text) in &cases {
        let (plan, warnings, status) = check(&["--tls-cert", file]);
        let line = format!(" warn tls: {file}: {text}");
        assert!(warnings.contains(&line), "{line}: {warnings}");
        assert_eq!(warnings.matches(" tls: ").count(), 1, "{warnings}");
        assert!(status == Some(0) && plan.contains(file.as_str()), "{plan}");
    }
    let good = put("good.pem", &leaf(&["x.test", "a.test"]), &whole);
    let same = put("same.pem", &leaf(&["b.test", "a.test"]), &whole);
    let (_, warnings, status) = check(&["--tls-cert", &good, "--tls-cert", &same]);
    let line = format!(" warn tls: {same}: is for a.test, as {good} is, which clients get: remove one of them\n");
    assert!(warnings.contains(&line) && status == Some(0), "{warnings}");
    let ca = directory.put("leaf.pem", &(root.pem() + &root.issue(&leaf(&["client"])).pem())).display().to_string();
    let (_, warnings, status) = check(&["--tls-cert", &good, "--tls-client-ca", &ca]);
    let line = format!(" warn tls: {ca}: certificate 2 is no authority (it has no CA:TRUE): clients that have it");
    assert!(warnings.contains(&line) && status == Some(0), "{warnings}");
}

#[test]
fn a_file_that_cannot_be_served_or_that_no_client_accepts_is_a_problem() {
    let directory = Directory::new();
    let root = Authority::new("Root");
    let put = |name: &str, text: &str| directory.put(name, text).display().to_string();
    let (past, future) = (in_days(-3), in_days(4));
    let old = root.issue(&Spec { not_after: &past, ..leaf(&["a.test"]) });
    let early = root.issue(&Spec { not_before: &future, ..leaf(&["b.test"]) });
    let (one, two) = (root.issue(&leaf(&["c.test"])), root.issue(&leaf(&["c.test"])));
    let expired = put("expired.pem", &(old.pem() + &root.pem() + &old.key_pem()));
    let not_yet = put("early.pem", &(early.pem() + &root.pem() + &early.key_pem()));
    let mismatch = put("mismatch.pem", &(one.pem() + &root.pem() + &two.key_pem()));
    let ca = put("ca.pem", "nothing");
    let files = ["--tls-cert", &expired, "--tls-cert", &not_yet, "--tls-cert", &mismatch, "--tls-client-ca", &ca];
    let (_, problems, status) = check(&files);
    assert_eq!(status, Some(2), "{problems}");
    for line in [
        format!("{expired}: certificate 1 expired 3 days ago: renew it"),
        format!("{not_yet}: certificate 1 is not valid yet, but in 4 days: check the clock"),
        format!("--tls-cert {mismatch}: certificate and key do not belong together"),
        format!("--tls-client-ca {ca}: there is no BEGIN CERTIFICATE"),
    ] {
        assert_eq!(problems.matches(&line).count(), 1, "{line}: {problems}");
    }
}

#[test]
fn a_start_and_a_reload_log_an_urgent_fault_once() {
    let root = Authority::new("Root");
    let middle = root.intermediate("Middle");
    let (past, soon, later) = (in_days(-3), in_days(4), in_days(20));
    for mode in modes() {
        let directory = Directory::new();
        let put = |not_after: &str, chain: &[String]| {
            let issued = middle.issue(&Spec { not_after, ..leaf(&["a.test"]) });
            directory.put("a.pem", &(issued.pem() + &chain.concat() + &issued.key_pem())).display().to_string()
        };
        let whole = [middle.pem(), root.pem()];
        let file = put(&past, &whole);
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &["--tls-cert", &file]);
        let count = |text: &str| balancer.log().matches(&format!(" warn tls: {file}: {text}")).count();
        assert_eq!(count("certificate 1 expired 3 days ago: renew it"), 1, "{mode:?}: {}", balancer.log());
        put(&soon, &whole);
        balancer.wait_for_log("certificate 1 expires in 4 days: renew it");
        put(&later, &[root.pem(), middle.pem()]);
        balancer.wait_for_log("certificate 3 is out of order");
        balancer.signal(libc::SIGHUP);
        balancer.wait_for_log("certificates and keys are read again");
        assert_eq!(count("certificate"), 3, "{mode:?}: {}", balancer.log());
    }
}

#[test]
fn chains_that_openssl_has_made_are_examined() {
    let directory = Directory::new();
    let script = "
        set -e
        req() { openssl req -x509 -newkey \"$1\" -nodes -keyout $2.key -out $2.pem -days \"$3\" -subj /CN=$2 \"${@:4}\"; }
        sign() { openssl req -newkey \"$1\" -nodes -keyout $2.key -out $2.csr -subj /CN=$2
                 openssl x509 -req -in $2.csr -CA $3.pem -CAkey $3.key -CAcreateserial -out $2.pem -days \"$4\" -extfile $2.ext ${5:-}; }
        req rsa:2048 root 3650 -addext basicConstraints=critical,CA:TRUE
        echo basicConstraints=critical,CA:TRUE > middle.ext; sign rsa:2048 middle root 1000
        echo subjectAltName=DNS:a.test,IP:192.0.2.1 > leaf.ext; sign rsa:2048 leaf middle 90
        cp leaf.ext sha1.ext; sign rsa:2048 sha1 middle 90 -sha1
        cat leaf.pem middle.pem root.pem leaf.key > good.pem
        cat leaf.pem leaf.key > missing.pem
        cat leaf.pem root.pem middle.pem leaf.key > order.pem
        cat sha1.pem middle.pem root.pem sha1.key > weak.pem
        cat root.pem leaf.key > other.pem
        cat leaf.pem middle.pem leaf.key > short.pem
    ";
    let made = Command::new("bash").args(["-c", script]).current_dir(directory.path()).output();
    match made {
        Ok(output) if output.status.success() => {}
        _ => return skipped("openssl is absent"),
    }
    let path = |name: &str| directory.path().join(name).display().to_string();
    for (file, text, expected) in [
        ("good.pem", "", 0),
        ("missing.pem", "nor a root of this system (CN=middle)", 0),
        ("short.pem", "certificate 2 has an issuer that is neither in the file nor a root of this system (CN=root)", 0),
        ("order.pem", "certificate 3 is out of order", 0),
        ("weak.pem", "certificate 1 is weak (RSA with SHA-1), and clients refuse it", 0),
        ("other.pem", "certificate and key do not belong together", 2),
    ] {
        let (plan, errors, status) = check(&["--tls-cert", &path(file)]);
        assert_eq!(status, Some(expected), "{file}: {errors}");
        assert!(errors.contains(text), "{file}: {errors}");
        assert!(expected == 2 || plan.contains("RSA, until ") && plan.contains("for a.test, 192.0.2.1\n"), "{plan}");
        assert!(!text.is_empty() || !errors.contains(" tls: "), "{file}: {errors}");
    }
}
