//! Flips every bit of a log, one at a time. Either recovery refuses and names the file and the
//! batch, or it finds the very same content. Only the newest batch, as long as nothing confirms
//! it, may be taken for a torn write: a flip there may cost that batch, and nothing else.

use super::*;
use crate::log::recover::{Outcome, Repair, recover};

/// What a recovery found, or the file and byte that it refused.
fn outcome(disk: &SimDisk) -> Result<(HardState, u64, Vec<Entry>), (String, u64)> {
    match recover(disk, &rot_options(), Repair::No) {
        Ok(Outcome::Recovered(found)) => {
            let replay = found.replay;
            Ok((replay.hard_state, replay.cut.index, replay.entries.into()))
        }
        Ok(Outcome::Fresh(_)) => panic!("the log was taken for a fresh one"),
        Err(LogError::Corrupt { file, byte, .. }) => Err((file, byte)),
        Err(other) => panic!("the refusal names no place: {other}"),
    }
}

fn rot_options() -> LogOptions {
    LogOptions {
        segment_bytes: 6 * 4096,
        ..options()
    }
}

/// A log of three live segments, one of them recycled, after its calls and one more.
fn some_log() -> (SimDisk, LogWriter) {
    let disk = SimDisk::new(3);
    let (mut log, _) = LogWriter::open(Arc::new(disk.clone()), rot_options()).expect("opened");
    append(&mut log, Some(state(3, 2, 0)), &[]);
    for index in 1..=10 {
        append(&mut log, Some(state(3, 2, index)), &[entry(index, 3, 900)]);
        if index == 6 {
            log.cut(6).expect("cut");
        }
    }
    append(
        &mut log,
        None,
        &[entry(11, 4, 5000), entry(12, 4, 0), entry(13, 4, 77)],
    );
    (disk, log)
}

/// Flips each bit of the files named; `exempt` tells what else may be found for a flip in a place.
fn sweep(
    disk: &SimDisk,
    names: &[String],
    exempt: impl Fn(&str, u64) -> Option<(HardState, u64, Vec<Entry>)>,
) {
    let whole = outcome(disk).expect("sound");
    let disk = copy(disk);
    let mut bits = 0;
    let mut refused = 0;
    for name in names {
        let bytes = disk.bytes(name).expect("one of the log's");
        bits += bytes.len() * 8;
        for byte in 0..bytes.len() as u64 {
            for bit in 0..8 {
                disk.flip_bit(name, byte, bit);
                match outcome(&disk) {
                    Ok(found) if found == whole => {}
                    Ok(found) => {
                        let fine = exempt(name, byte).is_some_and(|other| other == found);
                        assert!(
                            fine,
                            "bit {bit} of byte {byte} of {name} changed the content"
                        );
                    }
                    Err((file, place)) => {
                        assert_eq!(file, *name, "bit {bit} of byte {byte}");
                        assert!(
                            place <= byte && byte < place + 2 * 4096,
                            "bit {bit} of byte {byte} of {name} was placed at {place}"
                        );
                        refused += 1;
                    }
                }
                disk.flip_bit(name, byte, bit);
            }
        }
        assert_eq!(disk.bytes(name), Some(bytes), "a look changes nothing");
    }
    assert!(
        refused > 1000 && bits >= 8 * 20_000,
        "{refused} of {bits} flips were refused"
    );
}

#[test]
fn every_flip_in_a_confirmed_log_is_refused_or_harmless() {
    let (disk, mut log) = some_log();
    assert!(log.idle().expect("confirmed"));
    sweep(&disk, &disk.list().expect("listed"), |_, _| None);
}

#[test]
fn a_flip_in_the_newest_unconfirmed_batch_costs_at_most_that_batch() {
    let (disk, mut log) = some_log();
    let before = outcome(&copy(&disk)).expect("sound");
    let newest = log.active_place();
    append(&mut log, Some(state(4, 1, 12)), &[entry(14, 4, 300)]);
    sweep(&disk, std::slice::from_ref(&newest.0), |name, byte| {
        (name == newest.0 && byte >= newest.1).then(|| before.clone())
    });
}
