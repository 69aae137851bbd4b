//! Snapshots: what is in one, whether it is whole, and a data directory made of it.

use crate::{Stop, failed};
use quoin::runtime::restore::{self, Options, RestoreError};
use quoin_storage::snapshot::{Header, Record, SnapshotError, SnapshotReader};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

/// Reads, and sums up what was read.
struct Summed<R> {
    input: R,
    sum: Sha256,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(into)?;
        self.sum.update(&into[..count]);
        Ok(count)
    }
}

fn open(path: &str) -> Result<Summed<BufReader<File>>, Stop> {
    let file = File::open(path).map_err(|e| failed(format_args!("{path}: {e}")))?;
    Ok(Summed {
        input: BufReader::with_capacity(1 << 20, file),
        sum: Sha256::new(),
    })
}

fn stop(error: SnapshotError) -> Stop {
    match error {
        SnapshotError::Io(error) => failed(error),
        damaged => Stop::Damaged(damaged.to_string()),
    }
}

/// Holds the checksum at the end of the file, if `etcdctl` has written one, against what was read
/// before it; says whether there is one.
fn check_sum(input: &mut Summed<BufReader<File>>) -> Result<bool, Stop> {
    let sum = std::mem::take(&mut input.sum).finalize();
    let mut rest = Vec::new();
    let read = (&mut input.input).take(33).read_to_end(&mut rest);
    read.map_err(failed)?;
    match rest.len() {
        0 => Ok(false),
        32 if rest[..] == sum[..] => Ok(true),
        32 => Err(Stop::Damaged(
            "the SHA-256 at the end of the snapshot does not match".to_owned(),
        )),
        _ => Err(Stop::Damaged(
            "behind the snapshot there is more than its SHA-256".to_owned(),
        )),
    }
}

fn show(header: &Header, out: &mut dyn Write) -> Result<(), Stop> {
    writeln!(out, "revision    {}", header.revision)?;
    match header.compacted {
        ..0 => writeln!(out, "compacted   never")?,
        compacted => writeln!(out, "compacted   {compacted}")?,
    }
    writeln!(out, "events      {}", header.events)?;
    writeln!(out, "leases      {}", header.leases)?;
    writeln!(out, "alarms      {}", header.alarms)?;
    writeln!(out, "bytes       {}", header.file_bytes())?;
    writeln!(out, "cluster id  {:016x}", header.cluster_id)?;
    Ok(writeln!(out, "member id   {:016x}", header.member_id)?)
}

/// Shows what a snapshot is of, from its header alone.
pub fn status(path: &str, out: &mut dyn Write) -> Result<(), Stop> {
    let reader = SnapshotReader::open(open(path)?).map_err(stop)?;
    show(reader.header(), out)
}

/// Reads all of a snapshot.
pub fn check(path: &str, out: &mut dyn Write) -> Result<(), Stop> {
    let mut reader = SnapshotReader::open(open(path)?).map_err(stop)?;
    let mut deletes = 0u64;
    while let Some(record) = reader.next_record().map_err(stop)? {
        deletes += u64::from(matches!(record, Record::Event(event) if event.tombstone));
    }
    show(reader.header(), out)?;
    let mut input = reader.into_inner();
    let summed = match check_sum(&mut input)? {
        true => "sound, and its SHA-256 matches",
        false => "sound; it has no SHA-256",
    };
    Ok(writeln!(out, "deletes     {deletes}\n{summed}")?)
}

/// What follows `snapshot restore`.
pub fn restore(arguments: &[&str], out: &mut dyn Write) -> Result<(), Stop> {
    let (mut file, mut dir) = (None, None);
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let (name, given) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value)),
            _ => (*argument, None),
        };
        let mut value = || {
            given
                .or_else(|| rest.next().copied())
                .ok_or_else(|| failed(format_args!("{name} needs a value")))
        };
        match name {
            "--data-dir" => dir = Some(value()?),
            "--bump-revision" => {
                let number = value()?.parse();
                options.bump_revision =
                    number.map_err(|_| failed("--bump-revision needs a number"))?;
            }
            "--mark-compacted" => options.mark_compacted = given != Some("false"),
            "--initial-advertise-peer-urls" => {
                options.peer_urls = value()?.split(',').map(str::to_owned).collect();
            }
            "--initial-cluster-token" => value()?.clone_into(&mut options.cluster_token),
            name if name.starts_with("--") => {
                return Err(failed(format_args!("{name} is not known")));
            }
            path if file.is_none() => file = Some(path),
            other => return Err(failed(format_args!("'{other}' is one argument too many"))),
        }
    }
    let file = file.ok_or_else(|| failed("which snapshot?"))?;
    let dir = dir.ok_or_else(|| failed("--data-dir is missing"))?;
    // All of it is looked at before anything is written.
    check(file, &mut io::sink())?;
    let restored = restore::restore(&mut open(file)?, Path::new(dir), &options);
    let header = restored.map_err(|error| match error {
        RestoreError::Snapshot(error) => stop(error),
        other => failed(other),
    })?;
    let revision = header.revision + options.bump_revision;
    Ok(writeln!(
        out,
        "{dir} holds the store at revision {revision}"
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quoin_storage::disk::{Disk, RealDisk};
    use quoin_storage::mvcc::{Meta, View, WriteTxn};
    use quoin_storage::snapshot::SnapshotWriter;
    use quoin_storage::tree::{self, TreeOptions};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    /// A snapshot as `etcdctl` saves it.
    fn saved(dir: &Path) -> Vec<u8> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open_existing(dir).unwrap());
        let (mut writer, shared) = tree::open(disk, "t", TreeOptions::default()).unwrap();
        let mut meta = Meta::default();
        for n in 0..500u32 {
            let mut txn = writer.begin();
            let mut write = WriteTxn::begin(&mut txn, &mut meta);
            write.put(&(n % 100).to_le_bytes(), &[7; 900], 0).unwrap();
            write.finish();
            txn.commit(&meta.encode());
        }
        let reader = shared.reader().unwrap();
        let snapshot = reader.pin();
        let mut snapshots = SnapshotWriter::begin(&snapshot, &meta, 1, 2).unwrap();
        let view = View::new(&snapshot, meta.horizon());
        let mut file = Vec::new();
        while snapshots.remaining() > 0 {
            snapshots.step(&view, &meta, (1, 100), &mut file).unwrap();
        }
        let sum = Sha256::digest(&file);
        file.extend_from_slice(&sum);
        file
    }

    fn text(call: impl FnOnce(&mut dyn Write) -> Result<(), Stop>) -> Result<String, Stop> {
        let mut out = Vec::new();
        call(&mut out).map(|()| String::from_utf8(out).expect("text"))
    }

    #[test]
    fn a_snapshot_is_checked_and_becomes_a_data_directory() {
        // Data that others could read is refused.
        let private = fs::Permissions::from_mode(0o700);
        let parent = tempfile::Builder::new()
            .permissions(private)
            .tempdir()
            .unwrap();
        let bytes = saved(parent.path());
        let path = parent.path().join("backup.db");
        fs::write(&path, &bytes).unwrap();
        let (file, dir) = (path.to_str().unwrap(), parent.path().join("new.etcd"));
        let dir = dir.to_str().unwrap();
        let shown = text(|out| status(file, out)).ok().expect("sound");
        assert!(shown.contains("revision    501\n"), "{shown}");
        let checked = text(|out| check(file, out)).ok().expect("sound");
        assert!(
            checked.ends_with("sound, and its SHA-256 matches\n"),
            "{checked}"
        );
        let arguments = [file, "--data-dir", dir, "--bump-revision=99"];
        let restored = text(|out| restore(&arguments, out)).ok().expect("restored");
        assert!(restored.ends_with("at revision 600\n"), "{restored}");
        let again = text(|out| restore(&arguments, out));
        assert!(matches!(again, Err(Stop::Failed(_))));

        for (at, place) in [
            (200, "block 0"),
            (100_000, "block 1"),
            (bytes.len() - 1, "SHA-256"),
        ] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            let Err(Stop::Damaged(what)) = text(|out| check(file, out)) else {
                panic!("byte {at}: a flipped bit was not noticed");
            };
            assert!(what.contains(place), "{what}");
            let other = parent.path().join("other.etcd");
            let arguments = [file, "--data-dir", other.to_str().unwrap()];
            assert!(matches!(
                text(|out| restore(&arguments, out)),
                Err(Stop::Damaged(_))
            ));
            assert!(!other.exists(), "nothing is written of a damaged one");
        }
    }

    #[test]
    fn wrong_calls_are_refused() {
        for arguments in [
            &[][..],
            &["x"],
            &["x", "--data-dir"],
            &["x", "--data-dir", "y", "z"],
            &["x", "--nonsense"],
            &["/nowhere/x", "--data-dir", "/nowhere/y"],
        ] {
            let refused = text(|out| restore(arguments, out));
            assert!(matches!(refused, Err(Stop::Failed(_))), "{arguments:?}");
        }
    }
}
