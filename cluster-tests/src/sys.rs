//! The few system calls that neither std nor tokio offers. The only unsafe code of this crate.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

use tokio::io::unix::AsyncFd;

/// What can be sent to a process under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGKILL: ends it at once; it flushes nothing.
    Kill,
    /// SIGSTOP: freezes it; its sockets stay open and silent.
    Stop,
    /// SIGCONT: thaws it.
    Continue,
    /// SIGTERM: asks it to leave.
    Terminate,
    /// SIGUSR1: asks it to let its clients go.
    Drain,
    /// SIGINT: what Ctrl-C sends.
    Interrupt,
    /// SIGHUP: what a terminal sends that is closed.
    Hangup,
}

/// Nanoseconds of CLOCK_MONOTONIC: the clock of every stamp in the bench, and the one a [`Timer`] runs by.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing; CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Clock ticks a second in /proc/PID/stat.
#[must_use]
pub fn ticks_per_s() -> u64 {
    // SAFETY: no pointers are involved.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).ok().filter(|ticks| *ticks > 0).unwrap_or(100)
}

/// CPU time of this process so far.
#[must_use]
pub fn own_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing; the clock always exists on Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Raises the soft limit of open files to the hard limit and returns it. Children inherit it.
///
/// # Errors
/// What the kernel says.
pub fn raise_fd_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writing, then for reading.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        limit.rlim_cur = limit.rlim_max;
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_max)
}

/// Sends a signal to one process.
///
/// # Errors
/// No such process, or it belongs to someone else.
pub fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    let number = match signal {
        Signal::Kill => libc::SIGKILL,
        Signal::Stop => libc::SIGSTOP,
        Signal::Continue => libc::SIGCONT,
        Signal::Terminate => libc::SIGTERM,
        Signal::Drain => libc::SIGUSR1,
        Signal::Interrupt => libc::SIGINT,
        Signal::Hangup => libc::SIGHUP,
    };
    // 0 and below would mean whole groups of processes.
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 1).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: no pointers are involved.
    match unsafe { libc::kill(pid, number) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Leaves the choice of a local port to connect(), although an address is bound: else each source address has only
/// as many ports as the machine has, instead of that many per destination.
///
/// # Errors
/// What the kernel says.
pub fn bind_address_no_port(socket: &impl AsRawFd) -> io::Result<()> {
    const IP_BIND_ADDRESS_NO_PORT: libc::c_int = 24;
    let on: libc::c_int = 1;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `on` lives through the call, `size` is its size.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, (&raw const on).cast(), size)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A periodic timer as a file (timerfd): tokio's own has a granularity of 1 ms, which would be most of a latency.
pub struct Timer(AsyncFd<File>);

impl Timer {
    /// First fires at `start_ns` of [`monotonic_ns`], then every `interval_ns` (> 0).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn periodic(start_ns: u64, interval_ns: u64) -> io::Result<Timer> {
        // SAFETY: no pointers are involved.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and nobody else owns it.
        let file = unsafe { File::from_raw_fd(fd) };
        let spec = libc::itimerspec { it_interval: timespec(interval_ns.max(1)), it_value: timespec(start_ns.max(1)) };
        // SAFETY: `spec` lives through the call; a null old value is allowed.
        let done = unsafe { libc::timerfd_settime(fd, libc::TFD_TIMER_ABSTIME, &raw const spec, std::ptr::null_mut()) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a File keeps the same descriptor open for as long as it lives.
        Ok(Timer(unsafe { AsyncFd::register(file) }?))
    }

    /// Waits until it fires and says how often it has since the last call.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn expirations(&self) -> io::Result<u64> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut count = [0; 8];
            if let Ok(read) = ready.try_io(|file| (&mut file.get_ref()).read_exact(&mut count)) {
                return read.map(|()| u64::from_ne_bytes(count));
            }
        }
    }
}

fn timespec(ns: u64) -> libc::timespec {
    libc::timespec { tv_sec: (ns / 1_000_000_000) as libc::time_t, tv_nsec: (ns % 1_000_000_000) as libc::c_long }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_timer_fires_when_it_says() {
        let start = monotonic_ns();
        let timer = Timer::periodic(start + 1_000_000, 1_000_000).unwrap();
        let mut fired = 0;
        while fired < 3 {
            fired += timer.expirations().await.unwrap();
        }
        assert!(monotonic_ns() - start >= 3_000_000);
    }

    #[test]
    fn groups_of_processes_are_never_signalled() {
        assert!(signal(0, Signal::Terminate).is_err());
        assert!(signal(1, Signal::Terminate).is_err());
        assert!(signal(u32::MAX, Signal::Terminate).is_err());
    }
}
