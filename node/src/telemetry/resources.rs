//! What this process may use of the machine and what it does use: memory, and open files. Linux.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes of memory that the process may use, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryLimit {
    pub bytes: u64,
    /// For the log: a file, or a key of the configuration.
    pub source: String,
}

/// Where cgroups are by custom: of the unified hierarchy, of its place beside the older one, and of the older one.
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
const MEMORY: &str = "/sys/fs/cgroup/memory";

/// The smallest limit among that of the own cgroup, those of its parents, and the memory of the machine. `None`: nobody says.
#[must_use]
pub fn memory_limit() -> Option<MemoryLimit> {
    limit_of(&|path| fs::read_to_string(path).ok())
}

fn limit_of(read: &dyn Fn(&Path) -> Option<String>) -> Option<MemoryLimit> {
    let meminfo = Path::new("/proc/meminfo");
    let physical = read(meminfo).and_then(|text| kib(&text, "MemTotal"));
    let physical = physical.map(|bytes| MemoryLimit { bytes, source: meminfo.display().to_string() });
    let own = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let of_groups = files(&own).into_iter().filter_map(|file| {
        // "max", or a number near 2^63 in the older hierarchy, which is then more than there is of memory.
        let bytes = read(&file)?.trim().parse().ok()?;
        Some(MemoryLimit { bytes, source: file.display().to_string() })
    });
    of_groups.chain(physical).min_by_key(|limit| limit.bytes)
}

/// Files that may hold a limit, from /proc/self/cgroup. In a container the path is often the host's, which is not there:
/// then one of its parents, the last of which is the container's own group, is.
fn files(cgroup: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (mounts, name): (&[&str], _) = match (id, controllers) {
            ("0", "") => (&UNIFIED, "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => (&[MEMORY], "memory.limit_in_bytes"),
            _ => continue,
        };
        for mount in mounts {
            let relative = Path::new(path.trim_start_matches('/'));
            files.extend(relative.ancestors().map(|group| Path::new(mount).join(group).join(name)));
        }
    }
    files
}

/// A line `Key:  123 kB`, in bytes.
fn kib(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Bytes of this process that are in memory.
///
/// # Errors
/// The system does not say.
pub fn resident_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    kib(&text, "VmRSS").ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/status has no VmRSS"))
}

/// Files and sockets that this process has open. Walks through them.
///
/// # Errors
/// The system does not say.
pub fn open_files() -> io::Result<u64> {
    // The one that the directory itself is read by does not count.
    Ok((fs::read_dir("/proc/self/fd")?.count() as u64).saturating_sub(1))
}

/// How many it may have open; `u64::MAX` without a limit.
#[must_use]
pub fn open_files_max() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const MEMINFO: (&str, &str) = ("/proc/meminfo", "MemTotal:       24684096 kB\nMemFree:  100 kB\n");
    const PHYSICAL: u64 = 24_684_096 * 1024;

    #[test]
    fn the_smallest_limit_of_the_group_its_parents_and_the_machine_counts() {
        let own = "/proc/self/cgroup";
        let v2 = "/sys/fs/cgroup";
        let v1 = "/sys/fs/cgroup/memory";
        let group = |path: &str, name: &str| format!("{path}/{name}");
        for (what, files, bytes, source) in [
            ("no cgroups", vec![], PHYSICAL, "/proc/meminfo".to_owned()),
            (
                "unified, in a namespace of its own",
                vec![(own.to_owned(), "0::/\n"), (group(v2, "memory.max"), "536870912\n")],
                512 << 20,
                group(v2, "memory.max"),
            ),
            (
                "unified, without a limit",
                vec![(own.to_owned(), "0::/a.slice/b\n"), (group(v2, "a.slice/b/memory.max"), "max\n")],
                PHYSICAL,
                "/proc/meminfo".to_owned(),
            ),
            (
                "a parent has less",
                vec![
                    (own.to_owned(), "0::/pod/container\n"),
                    (group(v2, "pod/container/memory.max"), "2147483648\n"),
                    (group(v2, "pod/memory.max"), "1073741824\n"),
                ],
                1 << 30,
                group(v2, "pod/memory.max"),
            ),
            (
                "the older hierarchy, the host's path in a container",
                vec![
                    (own.to_owned(), "9:name=systemd:/\n4:cpu,memory:/docker/0123\n0::/\n"),
                    (group(v1, "memory.limit_in_bytes"), "268435456\n"),
                ],
                256 << 20,
                group(v1, "memory.limit_in_bytes"),
            ),
            (
                "the older hierarchy, without a limit",
                vec![(own.to_owned(), "4:memory:/\n"), (group(v1, "memory.limit_in_bytes"), "9223372036854771712\n")],
                PHYSICAL,
                "/proc/meminfo".to_owned(),
            ),
            ("nonsense", vec![(own.to_owned(), "memory\n:\n0::\n4:memory:\n")], PHYSICAL, "/proc/meminfo".to_owned()),
        ] {
            let files: HashMap<String, &str> = files.into_iter().chain([(MEMINFO.0.to_owned(), MEMINFO.1)]).collect();
            let read = |path: &Path| files.get(&path.display().to_string()).map(|text| (*text).to_owned());
            assert_eq!(limit_of(&read), Some(MemoryLimit { bytes, source }), "{what}");
        }
        assert_eq!(limit_of(&|_| None), None);
    }

    #[test]
    fn this_process_is_seen() {
        let limit = memory_limit().unwrap();
        assert!(resident_bytes().unwrap() < limit.bytes, "{limit:?}");
        let before = open_files().unwrap();
        let _open = (0..50).map(|_| fs::File::open("/proc/self/status").unwrap()).collect::<Vec<_>>();
        assert!(open_files().unwrap() >= before.min(50) && open_files_max() > before);
    }
}
