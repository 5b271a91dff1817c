//! Memory on Linux: `/proc` and control groups.

use std::path::{Path, PathBuf};

use super::memory_use::MemoryUse;

/// Reads the memory use of this process.
pub(super) fn current() -> Option<MemoryUse> {
    parse_status(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_status(status: &str) -> Option<MemoryUse> {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    };
    Some(MemoryUse { private: bytes("RssAnon")?, mapped: bytes("RssFile")?, peak: bytes("VmHWM")? })
}

/// Resets the peak that [`current`] reads.
pub(super) fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Returns the machine's `MemAvailable`, or what the control groups (version 1 or 2) leave if that is less.
pub(super) fn available() -> Option<u64> {
    available_below(Path::new("/"))
}

fn available_below(root: &Path) -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let free = parse_meminfo(&read("proc/meminfo")?)?;
    let groups = read("proc/self/cgroup").map(|groups| parse_control_groups(&groups)).unwrap_or_default();
    let limits = groups.iter().filter_map(|group| group.available(&root.join("sys/fs/cgroup")));
    limits.chain([free]).min()
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// A control group that limits memory, with its path below the mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
enum ControlGroup {
    V1(PathBuf),
    V2(PathBuf),
}

/// Parses `/proc/self/cgroup` to groups, from the innermost to the hierarchy's root, since limits of outer groups apply
/// too. Inside a container the listed path may not exist; the container's group is then the root.
fn parse_control_groups(text: &str) -> Vec<ControlGroup> {
    let mut groups = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let path = Path::new(path.trim_start_matches('/'));
        let group = match controllers {
            "" => ControlGroup::V2,
            _ if controllers.split(',').any(|name| name == "memory") => ControlGroup::V1,
            _ => continue,
        };
        groups.extend(path.ancestors().map(|path| group(path.to_path_buf())));
    }
    groups
}

impl ControlGroup {
    /// Returns the bytes that the group can still allocate: its limit minus its usage, without reclaimable pages of
    /// files. These include active pages, among them the weights that an earlier run mapped.
    fn available(&self, hierarchies: &Path) -> Option<u64> {
        let (folder, [limit, usage, inactive, active]) = match self {
            Self::V1(path) => (
                hierarchies.join("memory").join(path),
                ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ", "total_active_file "],
            ),
            Self::V2(path) => {
                (hierarchies.join(path), ["memory.max", "memory.current", "inactive_file ", "active_file "])
            }
        };
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let stat = read("memory.stat").unwrap_or_default();
        let pages = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        let reclaimable = [inactive, active].into_iter().filter_map(pages).fold(0, u64::saturating_add);
        let used = number(usage)?.saturating_sub(reclaimable);
        Some(number(limit)?.saturating_sub(used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_status_is_parsed() {
        let status = "Name:\tldm-ort\nVmHWM:\t    2048 kB\nVmRSS:\t 1500 kB\nRssAnon:\t 1000 kB\nRssFile:\t  500 kB\n";
        let expected = MemoryUse { private: 1_024_000, mapped: 512_000, peak: 2_097_152 };
        assert_eq!(parse_status(status), Some(expected));
        assert_eq!(parse_status("RssAnon:\t 1000 kB\n"), None);
        assert_eq!(parse_meminfo("MemTotal: 9 kB\nMemAvailable:   3 kB\n"), Some(3072));
    }

    /// Returns the available bytes for these files in the root folder.
    fn available(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        available_below(root.path())
    }

    #[test]
    fn the_tightest_limit_holds() {
        let meminfo = ("proc/meminfo", "MemAvailable: 8 kB\n");
        assert_eq!(available(&[]), None);
        assert_eq!(available(&[meminfo]), Some(8192));
        // Version 2, in a group within another; the outer group leaves less.
        let own = ("proc/self/cgroup", "0::/outer/own\n");
        let inner = [
            ("sys/fs/cgroup/outer/own/memory.max", "9000\n"),
            ("sys/fs/cgroup/outer/own/memory.current", "4000\n"),
            ("sys/fs/cgroup/outer/own/memory.stat", "anon 1\nfile 2\ninactive_file 493\nactive_file 7\n"),
        ];
        let outer = [("sys/fs/cgroup/outer/memory.max", "7000\n"), ("sys/fs/cgroup/outer/memory.current", "6000\n")];
        let unlimited = [("sys/fs/cgroup/outer/memory.max", "max\n"), ("sys/fs/cgroup/outer/memory.current", "6000\n")];
        assert_eq!(available(&[&[meminfo, own][..], &inner].concat()), Some(5500));
        assert_eq!(available(&[&[meminfo, own][..], &inner, &outer].concat()), Some(1000));
        assert_eq!(available(&[&[meminfo, own][..], &inner, &unlimited].concat()), Some(5500));
        // Version 1, in a container whose group is the root of its hierarchy.
        let listed = ("proc/self/cgroup", "12:cpu,cpuacct:/docker/x\n5:memory:/docker/x\n");
        let container = [
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "6000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "5000\n"),
            ("sys/fs/cgroup/memory/memory.stat", "inactive_file 9\ntotal_inactive_file 600\ntotal_active_file 400\n"),
        ];
        assert_eq!(available(&[&[meminfo, listed][..], &container].concat()), Some(2000));
        let unlimited = [("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"), container[1]];
        assert_eq!(available(&[&[meminfo, listed][..], &unlimited].concat()), Some(8192));
    }
}
