//! The process' own use of the machine, under the names that Prometheus clients share, as `/proc` tells it.
//!
//! What cannot be read is left out of the exposition.

use std::fmt;
use std::fs;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// Linux tells times to user space in hundredths of a second (`USER_HZ`) on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// One reading.
#[derive(Clone, Debug, Default)]
pub(super) struct Usage {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
    /// Since the epoch.
    start_seconds: Option<f64>,
}

impl Usage {
    /// As of now.
    pub(super) fn read() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (stat, status) = (read("/proc/self/stat"), read("/proc/self/status"));
        // proc(5): the fields after the command's closing bracket begin with the third.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let kibibytes = |name| Some(number(&status, name)? * 1024);
        Self {
            cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| (user + system) / TICKS_PER_SECOND),
            resident_bytes: kibibytes("VmRSS:"),
            virtual_bytes: kibibytes("VmSize:"),
            open_fds: open_fds(),
            max_fds: number(&read("/proc/self/limits"), "Max open files"),
            start_seconds: ticks(22)
                .zip(number(&read("/proc/stat"), "btime"))
                .map(|(after_boot, boot)| boot as f64 + after_boot / TICKS_PER_SECOND),
        }
    }

    /// As metric families.
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (seconds, bytes) = (Some(&Unit::Seconds), Some(&Unit::Bytes));
        if let Some(used) = self.cpu_seconds {
            let help = "CPU time used, user and system.";
            encoder
                .encode_descriptor("process_cpu", help, seconds, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, u64>(&used, None)?;
        }
        let gauges = [
            ("process_resident_memory", bytes, "Resident memory.", self.resident_bytes),
            ("process_virtual_memory", bytes, "Virtual memory.", self.virtual_bytes),
            ("process_open_fds", None, "Open file descriptors.", self.open_fds),
            ("process_max_fds", None, "File descriptors that may be open.", self.max_fds),
        ];
        for (name, unit, help, value) in gauges {
            if let Some(value) = value {
                encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)?;
            }
        }
        if let Some(start) = self.start_seconds {
            let help = "When the process started, since the epoch.";
            encoder
                .encode_descriptor("process_start_time", help, seconds, MetricType::Gauge)?
                .encode_gauge(&start)?;
        }
        Ok(())
    }
}

/// The first number of the line that begins with `name`.
fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// Kernels from 6.2 tell the count as the directory's size; before, the entries are counted, less the one that reads.
fn open_fds() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as u64),
        count => Some(count),
    }
}
