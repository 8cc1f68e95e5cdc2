//! What the kernel knows of a process: CPU time, memory, open files, bytes written. Linux only.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

use crate::sys;

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessId {
    pub pid: u32,
    /// Clock ticks from boot to its start.
    start_time: u64,
}

impl ProcessId {
    /// The process that has this number now.
    ///
    /// # Errors
    /// There is none.
    pub fn of(pid: u32) -> io::Result<ProcessId> {
        Ok(ProcessId { pid, start_time: Stat::read(pid)?.start_time })
    }

    /// Whether it still runs; a zombie does not, once its last thread is gone: one that waits for the disk keeps sockets
    /// and locks open for as long.
    #[must_use]
    pub fn alive(&self) -> bool {
        let ended = |stat: &Stat| matches!(stat.state, 'Z' | 'X') && threads(self.pid) <= 1;
        Stat::read(self.pid).is_ok_and(|stat| stat.start_time == self.start_time && !ended(&stat))
    }

    /// Sends a signal, unless the process is gone.
    ///
    /// # Errors
    /// It is gone, or belongs to someone else.
    pub fn signal(&self, signal: sys::Signal) -> io::Result<()> {
        if !self.alive() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("process {} is gone", self.pid)));
        }
        sys::signal(self.pid, signal)
    }
}

/// Threads of a process that have not ended; its first one is counted for as long as there is an entry for it.
fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// The fields of /proc/PID/stat that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    state: char,
    /// User and system time, in clock ticks.
    cpu_ticks: u64,
    start_time: u64,
}

impl Stat {
    fn read(pid: u32) -> io::Result<Stat> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Stat::parse(&text).ok_or_else(|| malformed("stat"))
    }

    /// The command may hold spaces and parentheses: fields are counted from the last closing one. [proc(5)]
    fn parse(text: &str) -> Option<Stat> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Stat {
            state: fields.first()?.chars().next()?,
            cpu_ticks: number(14)? + number(15)?,
            start_time: number(22)?,
        })
    }
}

/// CPU time of all threads, user and system, since the process started. Granularity: one clock tick, mostly 10 ms.
///
/// # Errors
/// No such process.
pub fn cpu(pid: u32) -> io::Result<Duration> {
    let ticks = Stat::read(pid)?.cpu_ticks;
    Ok(Duration::from_nanos(ticks * (1_000_000_000 / sys::ticks_per_s())))
}

/// Measures a process's CPU time from now on, to the nanosecond where the kernel accounts so.
#[derive(Debug, Clone)]
pub struct CpuMeter {
    pid: u32,
    ticks: Duration,
    /// Run time of each thread; `None` if the kernel does not say.
    threads: Option<BTreeMap<u32, u64>>,
}

impl CpuMeter {
    /// # Errors
    /// No such process.
    pub fn start(pid: u32) -> io::Result<CpuMeter> {
        Ok(CpuMeter { pid, ticks: cpu(pid)?, threads: run_times(pid) })
    }

    /// CPU time since the start. A thread that ended in between takes its exact figure along: then, ticks.
    ///
    /// # Errors
    /// The process is gone.
    pub fn elapsed(&self) -> io::Result<Duration> {
        let ticks = cpu(self.pid)?.saturating_sub(self.ticks);
        let exact = self.threads.as_ref().zip(run_times(self.pid)).and_then(|(before, now)| spent(before, &now));
        Ok(exact.map_or(ticks, Duration::from_nanos))
    }
}

/// Nanoseconds run between two readings, if every thread of the first is in the second.
fn spent(before: &BTreeMap<u32, u64>, now: &BTreeMap<u32, u64>) -> Option<u64> {
    let old = before.iter().map(|(thread, ns)| now.get(thread)?.checked_sub(*ns)).sum::<Option<u64>>()?;
    let new: u64 = now.iter().filter(|(thread, _)| !before.contains_key(thread)).map(|(_, ns)| ns).sum();
    Some(old + new)
}

fn run_times(pid: u32) -> Option<BTreeMap<u32, u64>> {
    let mut times = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let entry = entry.ok()?;
        let thread = entry.file_name().to_str()?.parse().ok()?;
        let text = fs::read_to_string(entry.path().join("schedstat")).ok()?;
        times.insert(thread, parse_schedstat(&text)?);
    }
    (times.values().sum::<u64>() > 0).then_some(times)
}

/// The first field: nanoseconds on a CPU.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// Bytes of a process that are in memory, shared pages counted in full (VmRSS).
///
/// # Errors
/// No such process.
pub fn rss_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    parse_kib(&text, "VmRSS").ok_or_else(|| malformed("status"))
}

/// As [`rss_bytes`], each shared page divided by its number of users. Walks the page tables: slow for a large process.
///
/// # Errors
/// No such process, or it belongs to someone else.
pub fn pss_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    parse_kib(&text, "Pss").ok_or_else(|| malformed("smaps_rollup"))
}

/// A `Key:   123 kB` line, in bytes.
fn parse_kib(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Bytes that a process has had written to a disk, or will: the page cache's dirty pages of its own making.
///
/// # Errors
/// No such process, or it belongs to someone else.
pub fn written_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let value = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    value.and_then(|value| value.parse().ok()).ok_or_else(|| malformed("io"))
}

/// Open file descriptors.
///
/// # Errors
/// No such process, or it belongs to someone else.
pub fn open_fds(pid: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

fn malformed(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/PID/{file} is not as expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_a_hostile_name() {
        let text = "42 (a) R 1 (b) S 8588 8588 6998 0 -1 4194304 86 0 0 0 27 5 0 0 20 0 1 0 93891 2654208 396 1 2 3";
        assert_eq!(Stat::parse(text), Some(Stat { state: 'S', cpu_ticks: 32, start_time: 93891 }));
        assert_eq!(Stat::parse("42 (a) S 1 2"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn memory_lines_are_bytes() {
        let text = "VmPeak:\t  100 kB\nVmRSS:\t    1700 kB\nRssAnon:\t 5 kB\n";
        assert_eq!(parse_kib(text, "VmRSS"), Some(1700 * 1024));
        assert_eq!(parse_kib("Pss_Anon: 3 kB\nPss:   441 kB\n", "Pss"), Some(441 * 1024));
        assert_eq!(parse_kib(text, "Pss"), None);
        assert_eq!(parse_kib("Pss: many kB", "Pss"), None);
    }

    #[test]
    fn schedstat_and_threads_that_come_and_go() {
        assert_eq!(parse_schedstat("273051328 990420 10\n"), Some(273_051_328));
        assert_eq!(parse_schedstat(""), None);
        let before = BTreeMap::from([(1, 100), (2, 50)]);
        assert_eq!(spent(&before, &BTreeMap::from([(1, 130), (2, 60), (3, 7)])), Some(47));
        assert_eq!(spent(&before, &BTreeMap::from([(1, 130)])), None);
    }

    #[test]
    fn this_process_is_seen() {
        let pid = std::process::id();
        let own = ProcessId::of(pid).unwrap();
        let meter = CpuMeter::start(pid).unwrap();
        assert!(own.alive());
        let before = sys::own_cpu();
        while sys::own_cpu() - before < Duration::from_millis(20) {}
        assert!(meter.elapsed().unwrap() >= Duration::from_millis(10));
        assert!(rss_bytes(pid).unwrap() > 100_000);
        assert!(pss_bytes(pid).unwrap() > 10_000);
        assert!(open_fds(pid).unwrap() >= 3);
        written_bytes(pid).unwrap();
        assert!(!ProcessId { pid, start_time: own.start_time + 1 }.alive());
    }
}
