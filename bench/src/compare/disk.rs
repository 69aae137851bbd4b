//! What the disk did: flushes and bytes written, from the block device's own counters.
//!
//! A write is durable when the device says so. A device with a volatile write cache says so by
//! a flush, which the kernel counts. A device without one (`write_cache` is "write through")
//! needs no flush, and one that takes FUA writes may be told with the write itself; for both
//! the writes are counted instead, of which there is at least one per durable batch.
//! The counters are the whole device's: whatever else writes to it is in them.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What stands for "made durable" on this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Flush requests.
    Flushes,
    /// Write requests: the device has no volatile cache, or takes FUA writes.
    Writes,
}

/// The devices under a folder.
#[derive(Debug)]
pub struct Disk {
    devices: Vec<PathBuf>,
    /// What is counted as a durable write.
    pub sign: Sign,
}

/// The counters at one moment, or the difference of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Flushes or writes, see [`Sign`].
    pub syncs: u64,
    /// Bytes written.
    pub bytes: u64,
}

impl Disk {
    /// The devices that hold `folder`.
    pub fn under(folder: &Path) -> Result<Disk, String> {
        let device = fs::metadata(folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?
            .dev();
        let name = format!("{}:{}", libc::major(device), libc::minor(device));
        let link = Path::new("/sys/dev/block").join(&name);
        let node = fs::canonicalize(&link).map_err(|_| {
            format!(
                "{} lies on no block device (its device is {name})",
                folder.display()
            )
        })?;
        let mut devices = Vec::new();
        leaves(&node, &mut devices, 0);
        let told = |device: &PathBuf, file: &str| {
            fs::read_to_string(device.join("queue").join(file)).unwrap_or_default()
        };
        let flushes = devices.iter().all(|device| {
            told(device, "write_cache").trim() == "write back" && told(device, "fua").trim() == "0"
        });
        let sign = if flushes { Sign::Flushes } else { Sign::Writes };
        Ok(Disk { devices, sign })
    }

    /// The counters now.
    pub fn read(&self) -> Result<Counters, String> {
        let mut sum = Counters::default();
        for device in &self.devices {
            let file = device.join("stat");
            let text = fs::read_to_string(&file)
                .map_err(|error| format!("{}: {error}", file.display()))?;
            let (flushes, writes, bytes) = parse(&text)
                .ok_or_else(|| format!("{}: no flush counter (needs Linux 5.5)", file.display()))?;
            sum.syncs += if self.sign == Sign::Flushes {
                flushes
            } else {
                writes
            };
            sum.bytes += bytes;
        }
        Ok(sum)
    }
}

impl Counters {
    /// What happened since `before`.
    pub fn since(self, before: Counters) -> Counters {
        Counters {
            syncs: self.syncs.saturating_sub(before.syncs),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }
}

/// The whole disks below a partition or a mapped device.
fn leaves(node: &Path, found: &mut Vec<PathBuf>, depth: usize) {
    // Flushes are counted on the whole disk only.
    let node = match (node.join("partition").exists(), node.parent()) {
        (true, Some(disk)) => disk,
        _ => node,
    };
    let below: Vec<PathBuf> = fs::read_dir(node.join("slaves"))
        .into_iter()
        .flatten()
        .filter_map(|entry| fs::canonicalize(entry.ok()?.path()).ok())
        .collect();
    if below.is_empty() || depth > 8 {
        let node = node.to_path_buf();
        if !found.contains(&node) {
            found.push(node);
        }
    } else {
        below.iter().for_each(|node| leaves(node, found, depth + 1));
    }
}

/// Flushes, writes and written bytes of a device's `stat` file (Documentation/block/stat.rst).
fn parse(text: &str) -> Option<(u64, u64, u64)> {
    let fields: Vec<u64> = text
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    Some((
        *fields.get(15)?,
        *fields.get(4)?,
        fields.get(6)?.checked_mul(512)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_the_kernel() {
        let text = "153871 27335 8190674 77548 22630 83286 40404560 230400 0 28792 313755 7216 \
                    74 326584 4249 691 1556";
        assert_eq!(parse(text), Some((691, 22_630, 40_404_560 * 512)));
        assert_eq!(parse("1 2 3 4 5 6 7 8 9 10 11"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn differences_never_wrap() {
        let (early, late) = (
            Counters {
                syncs: 5,
                bytes: 100,
            },
            Counters {
                syncs: 7,
                bytes: 300,
            },
        );
        assert_eq!(
            late.since(early),
            Counters {
                syncs: 2,
                bytes: 200
            }
        );
        assert_eq!(early.since(late), Counters::default());
    }
}
