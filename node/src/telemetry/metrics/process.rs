//! The process, as the system sees it, under the names that clients of Prometheus share.

use std::fs;

use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, getrlimit};

use super::text::{Kind, Reading};
use crate::telemetry::resources;

/// What `/proc` says of this process now. What cannot be read is left out.
#[must_use]
pub fn readings() -> Vec<Reading> {
    let mut readings = Vec::new();
    let mut put = |name, help, kind, value: Option<f64>| {
        readings.extend(value.map(|value| Reading { name, help, kind, values: vec![(Vec::new(), value)] }));
    };
    let stat = fs::read_to_string("/proc/self/stat").ok();
    // After the name, which may hold anything, and its bracket: the state is field 3 of proc(5).
    let fields: Vec<&str> = stat
        .as_deref()
        .and_then(|stat| stat.rsplit_once(") "))
        .map(|(_, rest)| rest.split(' ').collect())
        .unwrap_or_default();
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<f64>().ok());
    let ticks = clock_ticks_per_second() as f64;
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) / ticks);
    put("process_cpu_seconds", "User and system CPU time spent, in seconds", Kind::Counter, cpu);
    let booted = fs::read_to_string("/proc/stat").ok().and_then(|stat| {
        stat.lines().find_map(|line| line.strip_prefix("btime ").and_then(|at| at.trim().parse::<f64>().ok()))
    });
    let started = booted.zip(field(22)).map(|(booted, after)| booted + after / ticks);
    put("process_start_time_seconds", "When the process was started, in seconds since 1970", Kind::Gauge, started);
    put("process_threads", "Threads of the process", Kind::Gauge, field(20));
    put("process_virtual_memory_bytes", "Virtual memory in bytes", Kind::Gauge, field(23));
    let resident = resources::resident_bytes().ok().map(|bytes| bytes as f64);
    put("process_resident_memory_bytes", "Resident memory in bytes", Kind::Gauge, resident);
    let open = resources::open_files().ok().map(|files| files as f64);
    put("process_open_fds", "Open file descriptors", Kind::Gauge, open);
    let limit = getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, |limit| limit as f64);
    put("process_max_fds", "Bound of open file descriptors", Kind::Gauge, Some(limit));
    readings
}
