//! What this process holds of the machine's memory, and what there is to be had.

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

/// Bytes that the process may yet take without the machine, or the container that it runs in, running short; `None` where
/// the system does not tell, which is everywhere but on Linux.
pub fn available() -> Option<u64> {
    let free = meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    let limit =
        |name: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/memory.{name}")).ok()?.trim().parse::<u64>().ok();
    let left = limit("max").zip(limit("current")).map(|(most, taken)| most.saturating_sub(taken));
    Some(left.map_or(free, |left| left.min(free)))
}

fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
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
}
