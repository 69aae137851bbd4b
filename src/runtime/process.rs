//! What the kernel says of this process, for whoever watches it.

#![forbid(unsafe_code)]

use crate::etcd::http::put_metric;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

/// The unit of times in `/proc`, on every machine that Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;

/// Appends processor time, memory, files and the start of the process, by the names that
/// Prometheus' own libraries give them. What cannot be read is left out.
pub fn put_metrics(text: &mut String) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (stat, status, limits) = (
        read("/proc/self/stat"),
        read("/proc/self/status"),
        read("/proc/self/limits"),
    );
    // The whole network namespace's, as in Prometheus' own libraries.
    let network = read("/proc/self/net/netstat");
    let files = fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
    let since = boot_seconds(&read("/proc/stat"))
        .zip(stat_field(&stat, 22))
        .map(|(boot, ticks)| boot + ticks / TICKS_PER_SECOND);
    let processor = stat_field(&stat, 14)
        .zip(stat_field(&stat, 15))
        .map(|(user, system)| (user + system) / TICKS_PER_SECOND);
    for (name, kind, what, value) in [
        (
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            processor,
        ),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory size in bytes.",
            kib(&status, "VmRSS:"),
        ),
        (
            "process_virtual_memory_bytes",
            "gauge",
            "Virtual memory size in bytes.",
            kib(&status, "VmSize:"),
        ),
        (
            "process_virtual_memory_max_bytes",
            "gauge",
            "Maximum amount of virtual memory available in bytes.",
            address_space(&limits),
        ),
        (
            "process_network_receive_bytes_total",
            "counter",
            "Number of bytes received by the process over the network.",
            network_field(&network, "InOctets"),
        ),
        (
            "process_network_transmit_bytes_total",
            "counter",
            "Number of bytes sent by the process over the network.",
            network_field(&network, "OutOctets"),
        ),
        (
            "process_open_fds",
            "gauge",
            "Number of open file descriptors.",
            files.map(|count| count as f64),
        ),
        (
            "process_max_fds",
            "gauge",
            "Maximum number of open file descriptors.",
            field(&limits, "Max open files", 0),
        ),
        (
            "os_fd_used",
            "gauge",
            "The number of used file descriptors.",
            files.map(|count| count as f64),
        ),
        (
            "os_fd_limit",
            "gauge",
            "The file descriptor limit.",
            field(&limits, "Max open files", 0),
        ),
        (
            "quoin_major_faults_total",
            "counter",
            "Pages that had to be read from the disk before they could be used.",
            stat_field(&stat, 12),
        ),
        (
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds.",
            since,
        ),
    ] {
        if let Some(value) = value {
            put_metric(text, (name, kind, what), "", value);
        }
    }
    put_threads(text);
}

/// Appends the processor time and the major faults of each thread, by its name; threads of one name
/// stand together.
fn put_threads(text: &mut String) {
    let mut threads = BTreeMap::<String, [f64; 2]>::new();
    for task in fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let name = stat
            .split_once('(')
            .and_then(|(_, rest)| rest.rsplit_once(')'));
        let [faults, user, system] = [12, 14, 15].map(|number| stat_field(&stat, number));
        if let (Some((name, _)), Some(faults), Some(user), Some(system)) =
            (name, faults, user, system)
        {
            let counted = threads.entry(name.to_owned()).or_default();
            counted[0] += (user + system) / TICKS_PER_SECOND;
            counted[1] += faults;
        }
    }
    for (at, (name, what)) in [
        (
            "quoin_thread_cpu_seconds_total",
            "Processor time of the threads of a name, in seconds.",
        ),
        (
            "quoin_thread_major_faults_total",
            "Times that the threads of a name stood still until a page had been read from the disk.",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        // Writing to a string does not fail, here and below.
        let _ = writeln!(text, "# HELP {name} {what}\n# TYPE {name} counter");
        for (thread, counted) in &threads {
            let thread = thread.replace(['"', '\\', '\n'], "_");
            let _ = writeln!(text, "{name}{{thread=\"{thread}\"}} {}", counted[at]);
        }
    }
}

/// Bytes of memory that could be used without pushing out what is in use.
pub fn available_bytes() -> Option<u64> {
    let memory = fs::read_to_string("/proc/meminfo").ok()?;
    Some(kib(&memory, "MemAvailable:")? as u64)
}

/// The number `at` behind a word at the beginning of a line.
fn field(text: &str, word: &str, at: usize) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().nth(at)?.parse().ok()
}

/// How large the address space may be: the largest number if that is not bounded, as Go's library
/// tells it.
fn address_space(limits: &str) -> Option<f64> {
    let word = "Max address space";
    let line = limits.lines().find_map(|line| line.strip_prefix(word))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX as f64),
        bytes => bytes.parse().ok(),
    }
}

/// A number of the protocol IP: the names stand on one line, the numbers on the next.
fn network_field(netstat: &str, name: &str) -> Option<f64> {
    let mut lines = netstat
        .lines()
        .filter_map(|line| line.strip_prefix("IpExt:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|found| found == name)?;
    numbers.split_whitespace().nth(at)?.parse().ok()
}

fn kib(status: &str, word: &str) -> Option<f64> {
    Some(field(status, word, 0)? * 1024.0)
}

fn boot_seconds(stat: &str) -> Option<f64> {
    field(stat, "btime", 0)
}

/// A field of `/proc/self/stat` by its number in the manual; those from the third on stand behind
/// the name, which may hold spaces and brackets.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_numbers() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 114 115 16 17 18 19 20 21 1022 23";
        assert_eq!(stat_field(stat, 14), Some(114.0));
        assert_eq!(stat_field(stat, 4), Some(1.0));
        assert_eq!(stat_field("", 4), None);
        assert_eq!(kib("VmRSS:\t  8 kB\n", "VmRSS:"), Some(8192.0));
        assert_eq!(boot_seconds("cpu 1\nbtime 77\n"), Some(77.0));
        let netstat = "TcpExt: A InOctets\nTcpExt: 1 2\nIpExt: B InOctets\nIpExt: 3 4\n";
        assert_eq!(network_field(netstat, "InOctets"), Some(4.0));
        assert_eq!(network_field(netstat, "OutOctets"), None);
        let limits =
            |soft| format!("Limit  Soft  Hard\nMax address space  {soft}  unlimited  bytes\n");
        assert_eq!(address_space(&limits("4096")), Some(4096.0));
        let most = u64::MAX as f64;
        assert_eq!(address_space(&limits("unlimited")), Some(most));
    }

    #[test]
    fn this_process_has_all_figures() {
        let mut text = String::new();
        put_metrics(&mut text);
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_virtual_memory_max_bytes",
            "process_network_receive_bytes_total",
            "process_network_transmit_bytes_total",
            "process_open_fds",
            "process_max_fds",
            "os_fd_used",
            "os_fd_limit",
            "process_start_time_seconds",
            "quoin_major_faults_total",
            "quoin_thread_cpu_seconds_total",
            "quoin_thread_major_faults_total",
        ] {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}: {text}");
        }
    }
}
