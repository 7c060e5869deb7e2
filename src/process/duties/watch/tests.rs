//! Tests of following a file: on virtual time, and with real directories.

use super::*;
use crate::limits::JSON_BYTES;
use crate::limits::SECOND_US;
use crate::reactor::Reactor;
use crate::sys::clock::monotonic_us;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::Command;

/// Longer than any change takes on a busy machine.
const PATIENCE_US: u64 = 20 * SECOND_US;
/// Longer than a reported change takes on an idle machine.
const QUIET_US: u64 = 4 * CONFIG_SETTLE_US;

/// A directory of its own, gone with it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let place = std::env::temp_dir().join(format!("zzz-lb-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).unwrap();
        Place(place)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn watch(path: &Path) -> Watch {
    watch_with(path, crate::sys::file::read(path, JSON_BYTES).unwrap_or_default())
}

fn watch_with(path: &Path, contents: Vec<u8>) -> Watch {
    let mut watch = Watch::new();
    watch.add(path.to_path_buf(), Some(contents), JSON_BYTES, monotonic_us());
    watch
}

/// The next change within a time.
fn next(watch: &mut Watch, patience_us: u64) -> Option<Change> {
    let mut reactor = Reactor::new().unwrap();
    if let Some(fd) = watch.fd() {
        reactor.watch(fd, 0).unwrap();
    }
    let end_us = monotonic_us() + patience_us;
    loop {
        let now_us = monotonic_us();
        watch.ready(now_us);
        if let Some((_, change)) = watch.expire(now_us) {
            return Some(change);
        }
        if now_us >= end_us {
            return None;
        }
        reactor.poll(watch.next_deadline_us().min(end_us).saturating_sub(now_us)).unwrap();
    }
}

/// Expects these contents as the next change.
fn expect(watch: &mut Watch, wanted: &str) {
    match next(watch, PATIENCE_US) {
        Some(Change::Contents(contents)) => assert_eq!(String::from_utf8_lossy(&contents), wanted),
        other => panic!("{other:?} in place of {wanted}"),
    }
}

/// Expects that the changes end with these contents. A slow machine may see some of the steps in between.
fn expect_in_the_end(watch: &mut Watch, wanted: &str) {
    loop {
        match next(watch, PATIENCE_US) {
            Some(Change::Contents(contents)) if contents == wanted.as_bytes() => return,
            Some(_) => {}
            None => panic!("never {wanted}"),
        }
    }
}

fn expect_gone(watch: &mut Watch) {
    let change = next(watch, PATIENCE_US);
    assert!(matches!(change, Some(Change::Unreadable(_))), "{change:?}");
}

fn expect_nothing(watch: &mut Watch) {
    let change = next(watch, QUIET_US);
    assert!(change.is_none(), "{change:?}");
}

#[test]
fn a_change_is_looked_at_when_it_pauses_and_however_many_follow_not_much_later() {
    let mut settling = Settling::default();
    assert_eq!(settling.at_us(), u64::MAX);
    for now_us in [5, 10_000, 25_000] {
        settling.happened(Kind::Done, now_us);
        assert_eq!(settling.at_us(), now_us + CONFIG_PAUSE_US);
    }
    settling.happened(Kind::Lost, 95_000);
    assert_eq!(settling.at_us(), 5 + CONFIG_SETTLE_US);
}

#[test]
fn a_file_that_is_being_written_is_waited_for_with_a_limit() {
    let mut settling = Settling::default();
    settling.happened(Kind::Begun, 0);
    assert_eq!(settling.at_us(), CONFIG_PAUSE_US);
    for now_us in [1, 300_000, 900_000] {
        settling.happened(Kind::Written, now_us);
        settling.happened(Kind::Begun, now_us);
        assert_eq!(settling.at_us(), CONFIG_WRITING_US);
    }
    // Closed after longer than a change settles: due at once.
    settling.happened(Kind::Done, 910_000);
    assert_eq!(settling.at_us(), CONFIG_SETTLE_US);
}

#[test]
fn one_that_is_gone_for_a_moment_is_no_news() {
    let place = Place::new("moment");
    let file = place.file("lb.json");
    fs::write(&file, "same").unwrap();
    let mut watch = watch(&file);
    let mut now_us = monotonic_us();
    let mut pass = |watch: &mut Watch, us: u64| {
        watch.ready(now_us);
        now_us += us;
        watch.ready(now_us);
        watch.expire(now_us).map(|(_, change)| change)
    };
    for _ in 0..2 {
        fs::remove_file(&file).unwrap();
        assert!(pass(&mut watch, CONFIG_PAUSE_US).is_none());
        assert!(pass(&mut watch, CONFIG_SETTLE_US / 2).is_none());
        fs::write(&file, "same").unwrap();
        assert!(pass(&mut watch, CONFIG_SETTLE_US).is_none());
        assert!(pass(&mut watch, PATIENCE_US).is_none());
    }
    fs::remove_file(&file).unwrap();
    assert!(pass(&mut watch, CONFIG_SETTLE_US - 1).is_none());
    assert!(pass(&mut watch, CONFIG_SETTLE_US - 1).is_none());
    assert!(matches!(pass(&mut watch, 1), Some(Change::Unreadable(_))));
    assert_eq!(watch.next_deadline_us(), u64::MAX);
}

#[test]
fn follows_a_file_however_it_is_changed() {
    let place = Place::new("file");
    let file = place.file("lb.json");
    fs::write(&file, "0").unwrap();
    let mut watch = watch(&file);
    for round in 0..3 {
        fs::write(&file, format!("in place {round}")).unwrap();
        expect(&mut watch, &format!("in place {round}"));
        fs::write(place.file("new"), format!("renamed {round}")).unwrap();
        fs::rename(place.file("new"), &file).unwrap();
        expect(&mut watch, &format!("renamed {round}"));
        // As vim does it.
        fs::rename(&file, place.file("lb.json~")).unwrap();
        fs::write(&file, format!("edited {round}")).unwrap();
        fs::remove_file(place.file("lb.json~")).unwrap();
        expect_in_the_end(&mut watch, &format!("edited {round}"));
        let sed = Command::new("sed").args(["-i", "s/edited/replaced/"]).arg(&file).status().unwrap();
        assert!(sed.success());
        expect_in_the_end(&mut watch, &format!("replaced {round}"));
        fs::remove_file(&file).unwrap();
        expect_gone(&mut watch);
        fs::write(&file, format!("back {round}")).unwrap();
        expect(&mut watch, &format!("back {round}"));
    }
    expect_nothing(&mut watch);
}

#[test]
fn follows_the_links_of_a_mounted_config_map() {
    let place = Place::new("map");
    let version = |n: usize| {
        fs::create_dir(place.file(&format!("..{n}"))).unwrap();
        fs::write(place.file(&format!("..{n}/lb.json")), format!("version {n}")).unwrap();
        symlink(format!("..{n}"), place.file("..data_tmp")).unwrap();
        fs::rename(place.file("..data_tmp"), place.file("..data")).unwrap();
    };
    version(0);
    symlink("..data/lb.json", place.file("lb.json")).unwrap();
    let mut watch = watch(&place.file("lb.json"));
    for n in 1..=10 {
        version(n);
        fs::remove_dir_all(place.file(&format!("..{}", n - 1))).unwrap();
        expect(&mut watch, &format!("version {n}"));
    }
}

#[test]
fn follows_a_directory_that_goes_and_comes_back() {
    let place = Place::new("dir");
    let file = place.file("etc/lb/lb.json");
    let make = |text: &str| {
        fs::create_dir_all(place.file("etc/lb")).unwrap();
        fs::write(&file, text).unwrap();
    };
    make("0");
    let mut watch = watch(&file);
    for n in 1..4 {
        fs::remove_dir_all(place.file("etc")).unwrap();
        expect_gone(&mut watch);
        make(&n.to_string());
        expect_in_the_end(&mut watch, &n.to_string());
    }
}

#[test]
fn contents_that_are_the_same_are_told_of_only_when_asked_for() {
    let place = Place::new("same");
    let file = place.file("lb.json");
    fs::write(&file, "same").unwrap();
    let mut watch = watch(&file);
    expect_nothing(&mut watch);
    assert_eq!(watch.files[0].look_us, u64::MAX, "it is not looked at unasked");
    fs::write(&file, "same").unwrap();
    fs::write(place.file("unrelated"), "x").unwrap();
    assert!(Command::new("touch").arg(&file).status().unwrap().success());
    expect_nothing(&mut watch);
    assert_eq!(watch.read_now(&file, monotonic_us()).unwrap().unwrap(), b"same");
    fs::write(&file, "other").unwrap();
    assert_eq!(watch.read_now(&file, monotonic_us()).unwrap().unwrap(), b"other");
    expect_nothing(&mut watch);
    fs::remove_file(&file).unwrap();
    assert!(watch.read_now(&file, monotonic_us()).unwrap().is_err());
    expect_nothing(&mut watch);
}

#[test]
fn a_file_is_not_read_while_it_is_being_written() {
    let place = Place::new("slow");
    let file = place.file("lb.json");
    fs::write(&file, "0").unwrap();
    let mut watch = watch(&file);
    expect_nothing(&mut watch);
    let mut open = fs::File::create(&file).unwrap();
    open.write_all(b"the one half").unwrap();
    // On virtual time, so that a slow machine does not take longer than a writer is waited for.
    let begun_us = monotonic_us();
    while !watch.files[0].settling.writing {
        assert!(monotonic_us() < begun_us + PATIENCE_US, "nothing is heard of what is written");
        watch.ready(begun_us);
    }
    assert!(watch.expire(begun_us + CONFIG_WRITING_US - 1).is_none());
    open.write_all(b" and the other").unwrap();
    drop(open);
    expect(&mut watch, "the one half and the other");
    // One who never closes it is not waited for.
    let mut open = fs::OpenOptions::new().append(true).open(&file).unwrap();
    open.write_all(b"!").unwrap();
    expect(&mut watch, "the one half and the other!");
}

#[test]
fn follows_a_directory_above_that_is_renamed() {
    let place = Place::new("above");
    let make = |name: &str| {
        fs::create_dir_all(place.file(name).join("etc/lb")).unwrap();
        fs::write(place.file(name).join("etc/lb/lb.json"), name).unwrap();
    };
    make("current");
    let mut watch = watch(&place.file("current/etc/lb/lb.json"));
    for name in ["one", "two", "three"] {
        make(name);
        fs::rename(place.file("current"), place.file(&format!("before {name}"))).unwrap();
        fs::rename(place.file(name), place.file("current")).unwrap();
        expect_in_the_end(&mut watch, name);
    }
}

#[test]
fn follows_a_file_written_to_through_another_name() {
    let place = Place::new("names");
    for name in ["here", "there"] {
        fs::create_dir(place.file(name)).unwrap();
    }
    let (file, same) = (place.file("here/lb.json"), place.file("there/lb.json"));
    fs::write(&file, "0").unwrap();
    fs::hard_link(&file, &same).unwrap();
    let mut watch = watch(&file);
    for text in ["1", "2", "3"] {
        fs::write(&same, text).unwrap();
        expect(&mut watch, text);
    }
}

#[test]
fn a_path_that_is_no_file_is_refused_without_waiting() {
    let place = Place::new("pipe");
    let file = place.file("lb.json");
    fs::write(&file, "0").unwrap();
    let mut watch = watch(&file);
    let pipe = || assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    fs::remove_file(&file).unwrap();
    pipe();
    expect_gone(&mut watch);
    assert!(watch.read_now(&file, monotonic_us()).unwrap().is_err());
    fs::remove_file(&file).unwrap();
    fs::write(&file, "1").unwrap();
    expect_in_the_end(&mut watch, "1");

    // A pipe that was read at the start is never readable again, but its replacement is.
    fs::remove_file(&file).unwrap();
    pipe();
    let mut watch = watch_with(&file, b"read".to_vec());
    expect_nothing(&mut watch);
    fs::write(place.file("new"), "2").unwrap();
    fs::rename(place.file("new"), &file).unwrap();
    expect(&mut watch, "2");
}

#[test]
fn without_being_told_it_is_looked_at_now_and_then() {
    let place = Place::new("poll");
    let file = place.file("lb.json");
    fs::write(&file, "0").unwrap();
    let mut watch = Watch { changes: None, ..watch(&file) };
    assert!(watch.is_polling() && watch.fd().is_none());
    expect_nothing(&mut watch);
    let due_us = watch.next_deadline_us();
    assert!(due_us < u64::MAX);
    fs::write(&file, "1").unwrap();
    assert!(watch.expire(due_us - 1).is_none());
    assert!(matches!(watch.expire(due_us), Some((_, Change::Contents(contents))) if contents == b"1"));
    assert_eq!(watch.next_deadline_us(), due_us + CONFIG_POLL_US);
}

/// Like `rm` and a slow program that writes the file again.
#[test]
fn a_file_that_is_made_anew_is_read_once_it_is_whole() {
    let place = Place::new("again");
    let path = place.file("a");
    fs::write(&path, "1").unwrap();
    let mut watch = watch(&path);
    assert!(next(&mut watch, QUIET_US).is_none());
    fs::remove_file(&path).unwrap();
    let mut file = fs::File::create(&path).unwrap();
    // The new file is seen first, and written afterwards.
    watch.ready(monotonic_us());
    file.write_all(b"2").unwrap();
    watch.ready(monotonic_us());
    assert!(watch.files[0].settling.writing);
    file.write_all(b"3").unwrap();
    drop(file);
    expect(&mut watch, "23");
}

#[test]
fn a_write_beside_the_file_does_not_wake_the_watch() {
    let place = Place::new("beside");
    let path = place.file("a");
    fs::write(&path, "1").unwrap();
    let mut log = fs::File::create(place.file("log")).unwrap();
    let mut watch = watch(&path);
    assert!(next(&mut watch, QUIET_US).is_none());
    for _ in 0..10 {
        log.write_all(b"a line").unwrap();
    }
    let mut reactor = Reactor::new().unwrap();
    reactor.watch(watch.fd().unwrap(), 0).unwrap();
    reactor.poll(0).unwrap();
    assert_eq!(reactor.event(0), None);
}

#[test]
fn files_of_one_directory_share_its_watch_and_each_change_names_its_file() {
    let place = Place::new("share");
    let files = ["a", "b", "c"].map(|name| place.file(name));
    let mut watch = Watch::new();
    for file in &files {
        fs::write(file, "0").unwrap();
        watch.add(file.clone(), Some(b"0".to_vec()), JSON_BYTES, monotonic_us());
        watch.add(file.clone(), Some(b"0".to_vec()), JSON_BYTES, monotonic_us());
    }
    assert_eq!(watch.files.len(), 3);
    expect_nothing(&mut watch);
    let changed = |watch: &mut Watch, file: &Path, text: &str| {
        fs::write(place.file("new"), text).unwrap();
        fs::rename(place.file("new"), file).unwrap();
        let begun_us = monotonic_us();
        loop {
            watch.ready(monotonic_us());
            if let Some((path, Change::Contents(contents))) = watch.expire(monotonic_us()) {
                return (path, contents);
            }
            assert!(monotonic_us() < begun_us + PATIENCE_US, "no change of {file:?}");
        }
    };
    for file in &files {
        assert_eq!(changed(&mut watch, file, "1"), (file.clone(), b"1".to_vec()));
    }
    watch.retain(|path| path != files[0]);
    fs::write(&files[0], "2").unwrap();
    assert_eq!(changed(&mut watch, &files[1], "3"), (files[1].clone(), b"3".to_vec()));
    expect_nothing(&mut watch);
    assert!(watch.read_now(&files[0], monotonic_us()).is_none());
}
