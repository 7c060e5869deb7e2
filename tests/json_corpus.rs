//! The JSON parser with JSONTestSuite, which is expected beside the repository: each `y_` text is accepted and
//! each `n_` text refused. The RFC leaves the `i_` texts open. The accepted ones are listed here; all others
//! are refused.

use std::path::Path;

use crate::support::corpus;
use zzz_lb::json;

/// The accepted open cases: numbers that a double represents only roughly. Refused are numbers beyond its range
/// (`1e9999`), half surrogate pairs, invalid UTF-8, a byte order mark, and 500 nested arrays.
const ACCEPTED: [&str; 5] = [
    "i_number_double_huge_neg_exp.json",
    "i_number_real_underflow.json",
    "i_number_too_big_neg_int.json",
    "i_number_too_big_pos_int.json",
    "i_number_very_big_negative_int.json",
];

/// The texts of the suite below `directory`, as (name, bytes).
fn texts(directory: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() {
            texts(&path, found);
        } else if ["y_", "n_", "i_"].iter().any(|kind| name.starts_with(kind)) && name.ends_with(".json") {
            found.push((name, std::fs::read(&path).expect("the suite's texts can be read")));
        }
    }
}

#[test]
fn the_suite_s_texts_are_accepted_and_refused_as_they_say() {
    let Some(directory) = corpus("json-test-suite") else { return };
    let mut found = Vec::new();
    texts(&directory, &mut found);
    assert!(found.len() > 300, "only {} texts were found", found.len());
    let mut wrong = Vec::new();
    for (name, text) in &found {
        let got = json::parse(text);
        let accepted = name.starts_with("y_") || ACCEPTED.contains(&name.as_str());
        if got.is_ok() != accepted {
            wrong.push(format!("{name}: {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n  {}", wrong.len(), found.len(), wrong.join("\n  "));
    for accepted in ACCEPTED {
        assert!(found.iter().any(|(name, _)| name == accepted), "{accepted} is not in the suite");
    }
    println!("{} texts of JSONTestSuite", found.len());
}
