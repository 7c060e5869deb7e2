//! The plan as bytes, in the form of this program and of others.

use super::*;

fn plan() -> Plan {
    let mut plan = Plan::over([SocketAddr::from(([127, 0, 0, 1], 1)), "[::1]:2".parse().unwrap()]);
    plan.strategy = Strategy::named("random").unwrap();
    plan.loglevel = Level::Warn;
    plan.trace = true;
    plan.host_header = HostHeader::Name("api".into());
    plan.trust = vec![Cidr { address: "10.0.0.0".parse().unwrap(), prefix: 8 }];
    plan.send_proxy = Some(Version::V2);
    plan.via = Some("edge".into());
    plan.request_ids = false;
    plan.health.path = "/up".into();
    (plan.health.check, plan.health.service) = (HealthCheck::Grpc, "a.B".into());
    plan.health.status = Statuses::of(vec![(200, 299), (401, 401)]);
    plan.health.host = Some("probe.example".into());
    plan.authorities = 3;
    plan.routes = vec![Route::new("a.test", ""), Route::new("a.test", "/api")];
    plan.takes_others = false;
    plan.sticky = Some(Sticky { name: "id".into(), attributes: "; Path=/".into(), secure: true });
    plan.members[1].routes = vec![1, 0];
    plan.timeouts.drain_us = 7;
    plan.slow_start_us = 8;
    plan.drain_delay_us = 9;
    plan.watchdog_us = 10;
    plan.retry_percent = 11;
    plan.health.interval_us = 12;
    plan.health.count_5xx = true;
    plan.metrics_path = "/m".into();
    plan.metrics_detail = Detail::Address;
    plan.members[1].address = Address::Unix("/run/socket".into());
    plan.members[1].backup = true;
    plan.members[1].max = 9;
    plan.members[0].server_name = "api.example".into();
    plan.members[0].own_host = true;
    plan.members[1].h2c = true;
    plan.unresolved = vec!["api.example:80".into()];
    let (strict_sni, client_optional) = (true, true);
    plan.tls = TlsRules { min: TlsVersion::Tls13, strict_sni, client_optional, strict_transport_s: Some(60) };
    plan.gone = vec![Gone { slot: 7, generation: 2, name: "api.example:80".into() }];
    plan
}

#[test]
fn a_plan_has_the_same_meaning_after_its_bytes_were_read() {
    let plan = plan();
    assert_eq!(Plan::decode(&plan.encode()), Some(plan));
    let plain = Plan::over([]);
    assert_eq!(Plan::decode(&plain.encode()), Some(plain));
}

#[test]
fn malformed_bytes_are_no_plan() {
    let bytes = plan().encode();
    for length in 0..bytes.len() {
        assert_eq!(Plan::decode(&bytes[..length]), None, "{length}");
    }
    assert_eq!(Plan::decode(&[&bytes[..], b"x"].concat()), None);
    assert_eq!(Plan::decode(&[0xff; 4096]), None);
}

#[test]
fn the_owners_of_slots_can_be_read_in_another_form() {
    let plan = plan();
    let mut bytes = plan.encode();
    bytes[0] ^= 1;
    // The bytes behind the owners have no meaning then.
    bytes.truncate(bytes.len() - 40);
    assert_eq!(Plan::decode(&bytes), None);
    assert!(!Plan::is_of_own_form(&bytes) && Plan::is_of_own_form(&plan.encode()));
    let (members, gone) = Plan::owners_in(&bytes).unwrap();
    let owner = |member: &Member| (member.slot, member.generation, member.name.clone(), member.address.clone());
    assert_eq!(members.iter().map(owner).collect::<Vec<_>>(), plan.members.iter().map(owner).collect::<Vec<_>>());
    assert_eq!((members[0].server_name.as_str(), gone), ("api.example", plan.gone));
    assert_eq!(Plan::owners_in(&bytes[..60]), None);
}

/// The bytes of a plan with these sections: each has a name and a body.
fn with_sections(plan: &Plan, sections: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let whole = plan.encode();
    let mut rest = Decoder(&whole[8..]);
    rest.owners().unwrap();
    let mut out = Encoder(whole[..whole.len() - rest.0.len()].to_vec());
    out.list(sections, |out, (name, body)| {
        out.text(name);
        out.record(|out| out.0.extend_from_slice(body));
    });
    out.0
}

fn body(plan: &Plan, section: &Section) -> Vec<u8> {
    let mut out = Encoder(Vec::new());
    (section.write)(plan, &mut out);
    out.0
}

#[test]
fn sections_of_later_programs_are_passed_over_and_absent_ones_have_defaults() {
    let plan = plan();
    let known: Vec<(&str, Vec<u8>)> =
        SECTIONS.iter().rev().map(|section| (section.name, body(&plan, section))).collect();
    let mut more = known.clone();
    more.insert(3, ("cache", b"any bytes".to_vec()));
    // And a later program may append bytes to a section.
    more[0].1.extend_from_slice(b"more");
    assert_eq!(Plan::decode(&with_sections(&plan, &more)), Some(plan.clone()));
    let some = known.iter().filter(|(name, _)| ["tls", "unresolved", "members"].contains(name)).cloned();
    let fewer = with_sections(&plan, &some.collect::<Vec<_>>());
    let (mut members, gone) = (plan.members.clone(), plan.gone.clone());
    members.iter_mut().for_each(|member| member.routes.clear());
    let expected = Plan { members, gone, unresolved: plan.unresolved.clone(), tls: plan.tls, ..Plan::over([]) };
    assert_eq!(Plan::decode(&fewer), Some(expected));
    let mut malformed = known;
    malformed[0].1.pop();
    assert_eq!(Plan::decode(&with_sections(&plan, &malformed)), None, "a known section has to be whole");
}

#[test]
fn a_program_that_cannot_pick_by_hash_picks_by_turn() {
    let plan = Plan { strategy: Strategy::by_hash(), hash_key: Some(HashKey::Cookie("id".into())), ..Plan::over([]) };
    assert_eq!(Plan::decode(&plan.encode()), Some(plan.clone()));
    let without = SECTIONS.iter().filter(|section| section.name != "hash");
    let without: Vec<_> = without.map(|section| (section.name, body(&plan, section))).collect();
    assert_eq!(Plan::decode(&with_sections(&plan, &without)), Some(Plan::over([])));
}

#[test]
fn a_member_has_only_routes_of_the_list() {
    let mut plan = plan();
    plan.members[0].routes = vec![2];
    assert_eq!(Plan::decode(&plan.encode()), None);
}

#[test]
fn the_bytes_of_each_section_are_those_that_its_name_has_always_meant() {
    let plan = plan();
    let hash = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    };
    let found: Vec<String> =
        SECTIONS.iter().map(|section| format!("{} {:016x}", section.name, hash(&body(&plan, section)))).collect();
    // If this fails, another program would misread the section: give it another name. A new section is appended.
    assert_eq!(
        found,
        [
            "strategy 7e0bc80db7e38044",
            "log 581cd0fa58d99645",
            "timeouts b0c382cf18005089",
            "host_header d334842afc44f19c",
            "trust a0a8d0d00586e6bb",
            "via 498ce4cea1690395",
            "request_ids a8c7f832281a39c5",
            "health 6904175166c2aebb",
            "health_grpc 6d881c02fd989082",
            "slow_start a09e307a7f948acd",
            "drain_delay 81a3697174a540ac",
            "watchdog de93be8c95731f0f",
            "retry_percent bf98f7838a83d4ee",
            "metrics 2415d12e18f7a5ee",
            "authorities c7c2bf3b330983e6",
            "members 01e60733a16bec4e",
            "unresolved 055dea1c5d566aa4",
            "tls 5c286048f38db679",
            "routes e010388d3c691f25",
            "hash 88201fb960ff6465",
            "sticky f5197830161bda0a",
            "send_proxy 9c85b3d328c99143"
        ]
    );
}
