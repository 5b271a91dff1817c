//! The memory this process holds, and the memory that is still free.

use std::path::{Path, PathBuf};

/// What a process holds at one moment, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// What is its own alone: not a file's pages, and not shared.
    pub private: u64,
    /// Pages of files, which the system may take back and other processes may share.
    pub mapped: u64,
    /// The most of both together since the last [`Held::forget_peak`].
    pub peak: u64,
}

impl Held {
    /// What this process holds; `None` where the system does not tell, which is everywhere but on Linux.
    pub fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
        };
        Some(Self { private: bytes("RssAnon")?, mapped: bytes("RssFile")?, peak: bytes("VmHWM")? })
    }

    /// Begins to look for the peak anew; where the system does not allow that, the peak stays the process's.
    pub fn forget_peak() {
        let _ = std::fs::write("/proc/self/clear_refs", "5");
    }
}

/// Bytes the process may still allocate before the machine, or the container it runs in, runs out of memory: the
/// machine's `MemAvailable`, or what the control groups (version 1 or 2) leave if that is less. `None` if the system
/// doesn't say, which is everywhere but on Linux.
pub fn available() -> Option<u64> {
    available_below(Path::new("/"))
}

fn available_below(root: &Path) -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let free = meminfo(&read("proc/meminfo")?)?;
    let groups = read("proc/self/cgroup").map(|groups| control_groups(&groups)).unwrap_or_default();
    let rooms = groups.iter().filter_map(|group| group.room(&root.join("sys/fs/cgroup")));
    rooms.chain([free]).min()
}

fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// A control group that bounds memory, by its path below the mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
enum ControlGroup {
    V1(PathBuf),
    V2(PathBuf),
}

/// The groups that `/proc/self/cgroup` lists, from the innermost to the hierarchy's root. Limits of outer groups hold
/// too. Inside a container the listed path may not exist, and the container's own group is the root.
fn control_groups(text: &str) -> Vec<ControlGroup> {
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
    /// Bytes the group may still take: its limit minus its usage, of which pages of files are given back. That includes the
    /// pages used lately: the weights that the run before has mapped are among them.
    fn room(&self, hierarchies: &Path) -> Option<u64> {
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
        let held = number(usage)?.saturating_sub(reclaimable);
        Some(number(limit)?.saturating_sub(held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_linux_tells() {
        let status = "Name:\tldm-ort\nVmHWM:\t    2048 kB\nVmRSS:\t 1500 kB\nRssAnon:\t 1000 kB\nRssFile:\t  500 kB\n";
        let held = Held { private: 1_024_000, mapped: 512_000, peak: 2_097_152 };
        assert_eq!(Held::parse(status), Some(held));
        assert_eq!(Held::parse("RssAnon:\t 1000 kB\n"), None);
        assert_eq!(meminfo("MemTotal: 9 kB\nMemAvailable:   3 kB\n"), Some(3072));
    }

    /// The bytes that are free where these files stand.
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
        // Version 2, in a group of its own; the outer group leaves less.
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
        // Version 1, in a container whose own group is the root of what it sees.
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
