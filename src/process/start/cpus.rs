//! The processors that this process may really use: those of its CPU affinity, or fewer if a control group (of
//! a container, or a systemd unit) has a time quota.

use std::fs;

use crate::sys::affinity;

/// Processors to use, and so the default number of workers: at least 1.
pub(in crate::process) fn usable() -> u32 {
    // Failing can only mean a system without the call: one worker is then sure to be right.
    let processors = affinity::processors().unwrap_or(1);
    let read = |path: &str| fs::read_to_string(path).ok();
    quota(&read).map_or(processors, |quota| processors.min(quota)).max(1)
}

/// The smallest quota among this process's control groups and all of those above them, in whole
/// processors, rounded up. `read` gives a file's text.
fn quota(read: &dyn Fn(&str) -> Option<String>) -> Option<u32> {
    let groups = read("/proc/self/cgroup")?;
    groups.lines().filter_map(Group::parse).filter_map(|group| group.quota(read)).min()
}

/// A control group that this process is in and that may limit its processor time.
#[derive(Debug, PartialEq, Eq)]
struct Group<'a> {
    /// Its path below the mount point of its hierarchy.
    path: &'a str,
    /// The controllers of a version 1 hierarchy; empty for version 2.
    controllers: &'a str,
}

impl<'a> Group<'a> {
    /// Reads a line of /proc/self/cgroup: `ID:CONTROLLERS:PATH`.
    fn parse(line: &'a str) -> Option<Group<'a>> {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        (controllers.is_empty() || controllers.split(',').any(|name| name == "cpu"))
            .then_some(Group { path, controllers })
    }

    fn quota(&self, read: &dyn Fn(&str) -> Option<String>) -> Option<u32> {
        self.directories().filter_map(|directory| self.quota_in(&directory, read)).min()
    }

    /// The group's directory and every one above it. In a container the path may be the host's,
    /// and then it is the mount itself that is the container's group.
    fn directories(&self) -> impl Iterator<Item = String> {
        let mounts = match self.controllers {
            "" => ["/sys/fs/cgroup".to_string(), "/sys/fs/cgroup/unified".to_string()],
            controllers => [format!("/sys/fs/cgroup/{controllers}"), "/sys/fs/cgroup/cpu".to_string()],
        };
        // A group outside of this namespace's root is shown with `..` in its path.
        let path = if self.path.split('/').any(|part| part == "..") { "" } else { self.path.trim_end_matches('/') };
        let lengths = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let paths: Vec<&str> = lengths.map(|length| &path[..length]).collect();
        mounts
            .into_iter()
            .flat_map(move |mount| paths.iter().map(|path| format!("{mount}{path}")).collect::<Vec<String>>())
    }

    fn quota_in(&self, directory: &str, read: &dyn Fn(&str) -> Option<String>) -> Option<u32> {
        if self.controllers.is_empty() {
            let limit = read(&format!("{directory}/cpu.max"))?;
            let (quota, period) = limit.trim().split_once(' ')?;
            processors(quota, period)
        } else {
            let quota = read(&format!("{directory}/cpu.cfs_quota_us"))?;
            let period = read(&format!("{directory}/cpu.cfs_period_us"))?;
            processors(quota.trim(), period.trim())
        }
    }
}

/// Processors for `quota` microseconds of time in every `period`, rounded up. `None` for no limit, written as
/// `max` or -1.
fn processors(quota: &str, period: &str) -> Option<u32> {
    let quota: u64 = quota.parse().ok()?;
    let period: u64 = period.parse().ok()?;
    if quota == 0 || period == 0 {
        return None;
    }
    u32::try_from(quota.div_ceil(period)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota_of(files: &[(&str, &str)]) -> Option<u32> {
        quota(&|path| files.iter().find(|(name, _)| *name == path).map(|(_, text)| text.to_string()))
    }

    #[test]
    fn a_part_of_a_processor_counts_as_one() {
        assert_eq!(processors("150000", "100000"), Some(2));
        assert_eq!(processors("200000", "100000"), Some(2));
        assert_eq!(processors("1000", "100000"), Some(1));
    }

    #[test]
    fn no_limit_and_nonsense_are_no_quota() {
        for (quota, period) in [("max", "100000"), ("-1", "100000"), ("0", "100000"), ("1", "0"), ("", "")] {
            assert_eq!(processors(quota, period), None);
        }
    }

    #[test]
    fn the_smallest_quota_from_the_group_to_the_root_holds() {
        let files = [
            ("/proc/self/cgroup", "0::/a/b\n"),
            ("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/a/cpu.max", "250000 100000\n"),
            ("/sys/fs/cgroup/cpu.max", "800000 100000\n"),
        ];
        assert_eq!(quota_of(&files), Some(3));
    }

    #[test]
    fn a_container_finds_its_quota_at_the_mount() {
        let files = [("/proc/self/cgroup", "0::/../..\n"), ("/sys/fs/cgroup/cpu.max", "100000 100000\n")];
        assert_eq!(quota_of(&files), Some(1));
    }

    #[test]
    fn version_1_groups_are_read_under_their_controllers() {
        let files = [
            ("/proc/self/cgroup", "5:memory:/m\n4:cpu,cpuacct:/docker/x\n0::/\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "300000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota_of(&files), Some(3));
    }

    #[test]
    fn without_groups_there_is_no_quota() {
        assert_eq!(quota_of(&[]), None);
        assert_eq!(quota_of(&[("/proc/self/cgroup", "garbage\n0::/a\n")]), None);
    }

    #[test]
    fn this_machine_has_a_processor() {
        assert!(usable() >= 1);
    }
}
