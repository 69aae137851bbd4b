//! Power cuts and faults at every operation of random histories, again and again, also while
//! recovery runs. `QUOIN_HISTORIES` sets how many histories are tried.

use super::model::{Call, Model, Random, call};
use super::*;
use crate::disk::sim::Fault;
use proptest::prelude::*;

const CALLS: usize = 25;

fn histories() -> u64 {
    let histories = std::env::var("QUOIN_HISTORIES").ok();
    histories.and_then(|value| value.parse().ok()).unwrap_or(40)
}

/// A history in progress.
struct History {
    disk: SimDisk,
    random: Random,
    model: Model,
}

impl History {
    fn new(seed: u64) -> History {
        History {
            disk: SimDisk::new(seed),
            random: Random(seed),
            model: Model::default(),
        }
    }

    /// Makes up to `calls` calls. If one fails, says which and how.
    fn go(&mut self, log: &mut LogWriter, calls: usize) -> Option<(Call, LogError)> {
        for _ in 0..calls {
            let next = self.model.next_call(&mut self.random);
            match call(log, &next) {
                Ok(()) => self.model.apply(&next),
                Err(error) => return Some((next, error)),
            }
        }
        None
    }

    /// Recovers; the model becomes the one of the two that is found.
    fn recover(&mut self, failed: Option<&Call>, what: &str) -> LogWriter {
        let (log, found) = match open(&self.disk) {
            Ok(opened) => opened,
            Err(error) => panic!("{what}: refused after {failed:?}: {error}"),
        };
        let mut after = self.model.clone();
        if let Some(failed) = failed {
            after.apply(failed);
        }
        if after.matches(&found) {
            self.model = after;
        } else {
            assert!(
                self.model.matches(&found),
                "{what}: neither before nor after {failed:?}\nbefore {:?}\nfound {found:?}",
                self.model
            );
        }
        // A cut may be forgotten, and then it is asked for again.
        self.model.cut = found.base_index;
        log
    }

    /// Cuts the power during recovery up to a few times.
    fn break_off_recoveries(&mut self) {
        for _ in 0..self.random.below(4) {
            self.disk = self.disk.kill();
            self.disk.cut_at(1 + self.random.below(12));
            drop(open(&self.disk));
            self.disk = self.disk.crash();
        }
    }
}

/// How many operations a history takes that nothing disturbs.
fn undisturbed(seed: u64) -> u64 {
    let mut history = History::new(seed);
    let mut log = history.recover(None, "the first start");
    if let Some((failed, error)) = history.go(&mut log, CALLS) {
        panic!("seed {seed}: {failed:?}: {error}");
    }
    history.disk.operations()
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    for seed in 0..histories() {
        for cut in 1..=undisturbed(seed) {
            let what = format!("seed {seed}, cut at operation {cut}");
            let mut history = History::new(seed);
            history.disk.cut_at(cut);
            let failed = match open(&history.disk) {
                Ok((mut log, _)) => history.go(&mut log, CALLS),
                Err(_) => None,
            };
            assert!(history.disk.is_cut(), "{what}: a history repeats itself");
            history.disk = history.disk.crash();
            history.break_off_recoveries();
            let mut failed = failed.map(|(call, _)| call);
            // What was found now must stay, whatever happens next.
            for round in 0..3 {
                let what = format!("{what}, round {round}");
                let mut log = history.recover(failed.as_ref(), &what);
                let next = history.disk.operations() + 1 + history.random.below(8);
                history.disk.cut_at(next);
                failed = history.go(&mut log, 12).map(|(call, _)| call);
                history.disk = history.disk.crash();
                history.break_off_recoveries();
            }
            history.recover(failed.as_ref(), &what);
        }
    }
}

#[test]
fn a_fault_at_any_operation_closes_the_log_and_loses_nothing_acknowledged() {
    for seed in 0..histories() / 4 {
        let seed = seed + 1_000_000;
        for fault in [
            Fault::Eio,
            Fault::ShortWrite,
            Fault::FailedSync,
            Fault::NoSpace,
        ] {
            for operation in 1..=undisturbed(seed) {
                let what = format!("seed {seed}, {fault:?} at operation {operation}");
                fault_at(seed, fault, operation, &what);
            }
        }
    }
}

fn fault_at(seed: u64, fault: Fault, operation: u64, what: &str) {
    let mut history = History::new(seed);
    history.disk.fail_at(operation, fault);
    let mut failed = None;
    if let Ok((mut log, _)) = open(&history.disk)
        && let Some((call, error)) = history.go(&mut log, CALLS)
    {
        // A full disk does not close the log, anything else does.
        match (&error, log.idle()) {
            (LogError::NoSpace, result) => assert!(fault == Fault::NoSpace && result.is_ok()),
            (LogError::Disk(_), Ok(_)) if matches!(call, Call::Spare | Call::Cut(_)) => {
                // Making and removing files is not writing the log: its caller stops.
            }
            (LogError::Disk(_), Err(LogError::Latched)) => {}
            other => panic!("{what}: {call:?}: {other:?}"),
        }
        failed = Some(call);
    }
    // The process starts again; half of the time the machine does too.
    history.disk = if history.random.below(2) == 0 {
        history.disk.kill()
    } else {
        history.disk.crash()
    };
    let mut log = history.recover(failed.as_ref(), what);
    if let Some((failed, error)) = history.go(&mut log, 5) {
        panic!("{what}: afterwards {failed:?}: {error}");
    }
    history.disk = history.disk.crash();
    history.recover(None, what);
}

/// The segments that appends go on in are made by the appends themselves, if nobody makes spare
/// ones.
#[test]
fn a_fault_at_any_operation_of_appends_without_spare_segments_closes_the_log() {
    let undisturbed = appends_without_spares(None);
    assert!(undisturbed > 50, "{undisturbed} operations");
    for operation in 1..=undisturbed {
        appends_without_spares(Some(operation));
    }
}

/// Fills three segments, or as many as a fault lets it; returns how many operations it took.
fn appends_without_spares(fault_at: Option<u64>) -> u64 {
    let disk = SimDisk::new(5);
    let (mut log, _) = opened(&disk);
    let opened = disk.operations();
    if let Some(operation) = fault_at {
        disk.fail_at(opened + operation, Fault::Eio);
    }
    for index in 1..=40 {
        let next = entry(index, 1, 3000);
        if let Err(error) = log.append(None, std::iter::once(next.as_ref())) {
            let closed = log.flush();
            assert!(
                matches!(
                    (&error, &closed),
                    (LogError::Disk(_), Err(LogError::Latched))
                ),
                "operation {fault_at:?}: {error}, then {closed:?}"
            );
            return disk.operations() - opened;
        }
    }
    assert_eq!(fault_at, None, "the fault has not been met");
    disk.operations() - opened
}

/// A process that fails between giving a segment its name and making that durable leaves the name
/// to the next one, which must not rely on it.
#[test]
fn a_segment_that_an_earlier_process_left_is_durable_before_it_is_used() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let (mut log, _) = opened(&disk);
        let mut index = 0;
        let mut write = |log: &mut LogWriter| {
            index += 1;
            append(log, Some(state(1, 1, index)), &[entry(index, 1, 3000)]);
            index
        };
        let job = loop {
            write(&mut log);
            if let Some(job) = log.spare() {
                break job;
            }
        };
        let files = disk.list().expect("listed").len();
        // Create, zeros, sync, rename, and the sync of the directory, which fails.
        disk.fail_at(disk.operations() + 5, Fault::Eio);
        assert!(matches!(job.run(), Err(LogError::Disk(_))));
        assert_eq!(disk.list().expect("listed").len(), files + 1);
        let disk = disk.kill();
        let (mut log, _) = opened(&disk);
        let last = (0..20).map(|_| write(&mut log)).last();
        let (_, recovered) = opened(&disk.crash());
        assert_eq!(recovered.entries.last().map(|entry| entry.index), last);
    }
}

#[test]
fn a_full_disk_stops_appends_until_a_cut_makes_room() {
    let disk = SimDisk::new(5);
    let (mut log, _) = opened(&disk);
    disk.set_capacity(4 * options().segment_bytes);
    let mut index = 0;
    let full = loop {
        index += 1;
        let next = entry(index, 1, 3000);
        match log.append(Some(&state(1, 1, index)), std::iter::once(next.as_ref())) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(full, LogError::NoSpace), "{full}");
    assert_eq!(log.last_index(), index - 1);
    let full = log.flush().expect_err("still full");
    assert!(matches!(full, LogError::NoSpace), "{full}");
    assert!(
        log.spare()
            .is_some_and(|job| matches!(job.run(), Err(LogError::NoSpace)))
    );
    // The cut writes into the reserve, the staged entry goes on behind it.
    log.cut(index / 2).expect("cut");
    log.flush().expect("flushed");
    assert_eq!(log.last_index(), index);
    let (_, recovered) = opened(&disk.crash());
    assert_eq!(recovered.entries.last(), Some(&entry(index, 1, 3000)));
    assert_eq!(recovered.hard_state.commit, index);
}

#[test]
fn the_log_starts_on_a_full_disk() {
    let disk = SimDisk::new(5);
    let (mut log, _) = opened(&disk);
    append(&mut log, None, &[entry(1, 1, 10)]);
    let disk = disk.crash();
    let spare = disk.list().expect("listed").pop().expect("a spare");
    disk.remove(&spare).expect("removed");
    disk.set_capacity(options().segment_bytes);
    let (mut log, recovered) = opened(&disk);
    assert_eq!(recovered.entries.len(), 1);
    append(&mut log, None, &[entry(2, 1, 10)]);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_log_agrees_with_a_plain_model(seed in any::<u64>(), calls in 1_usize..120) {
        let mut history = History::new(seed);
        let mut log = history.recover(None, "the first start");
        for round in 0..3 {
            if let Some((failed, error)) = history.go(&mut log, calls) {
                panic!("{failed:?}: {error}");
            }
            history.disk = if round == 1 { history.disk.crash() } else { history.disk.kill() };
            log = history.recover(None, "a restart");
        }
    }
}
