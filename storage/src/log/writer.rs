//! Appends to the log.

mod cut;

use super::batch::Batch;
use super::format::{
    BATCH_BYTES_MAX, BATCH_HEADER, Cut, FIRST_BATCH, HEADER_COPIES, Position, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN, STATE_BODY, SegmentHeader, State, is_segment_size, record_bytes,
};
use super::recover::{Active, Outcome, Recovery, Repair, Report, Sealed, recover};
use super::segments::{SegmentFile, Spare, SpareJob, slot_of};
use super::{EntryRef, HardState, LogError, LogOptions, Recovered, round_up};
use crate::disk::{AlignedBuf, BLOCK, Disk};
use std::collections::VecDeque;
use std::sync::Arc;

/// What the log says after some write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Edge {
    hard_state: HardState,
    last_index: u64,
    last_term: u64,
}

/// Writes the log: one durable write at a time, each on fresh blocks.
///
/// The first error of the disk closes it. [`LogError::NoSpace`] does not.
pub struct LogWriter {
    disk: Arc<dyn Disk>,
    options: LogOptions,
    active: Active,
    /// Complete segments that are still needed, oldest first.
    sealed: VecDeque<Sealed>,
    /// Files for segments to come.
    free: Vec<SegmentFile>,
    /// A spare is being made elsewhere.
    spare_pending: bool,
    /// Invariant: above every slot in use and the one of a pending spare.
    next_slot: u32,
    cut: Cut,
    /// What is durable.
    durable: Edge,
    /// What will be durable after the next flush.
    staged: Edge,
    /// Where terms begin: (index, term), ascending; as staged.
    terms: VecDeque<(u64, u64)>,
    batch: Batch,
    /// The highest index in `batch`.
    batch_max_index: u64,
    /// Batches written since the log was opened.
    batches_written: u64,
    failed: bool,
}

impl LogWriter {
    /// Recovers the log in a directory, or begins one.
    ///
    /// A damaged log is refused and left as it is. A batch that was torn by a crash, thus never
    /// acknowledged, is removed for good before this returns.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: LogOptions,
    ) -> Result<(LogWriter, Recovered), LogError> {
        assert!(
            is_segment_size(options.segment_bytes),
            "segments have {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX} bytes in whole blocks"
        );
        // An earlier process may have ended between giving a segment its name and making that
        // durable.
        disk.sync_dir()?;
        let (mut writer, recovered) = match recover(&*disk, &options, Repair::Yes)? {
            Outcome::Fresh(free) => Self::begin(disk, options, free)?,
            Outcome::Recovered(recovery) => Self::go_on(disk, options, *recovery)?,
        };
        writer.drop_misfits()?;
        // Confirms what was recovered, so that rot in it is from now on told from a torn write.
        writer.idle()?;
        if let Some(job) = writer.spare() {
            match job.run() {
                // On a full disk the log goes on with what it has.
                Err(LogError::NoSpace) => writer.spare_pending = false,
                made => writer.spare_made(made)?,
            }
        }
        Ok((writer, recovered))
    }

    fn begin(
        disk: Arc<dyn Disk>,
        options: LogOptions,
        mut free: Vec<SegmentFile>,
    ) -> Result<(LogWriter, Recovered), LogError> {
        free.retain(|file| file.bytes == options.segment_bytes);
        let next_slot = next_slot(&*disk, &options)?;
        let (file, next_slot) = match free.pop() {
            Some(file) => (file, next_slot),
            None => (
                SpareJob::new(&disk, &options, next_slot).run()?.file,
                next_slot + 1,
            ),
        };
        let header = SegmentHeader {
            log_id: options.log_id,
            bytes: file.bytes,
            sequence: 1,
            oldest: 1,
            salt: salt(options.seed, 1),
            slot: file.slot,
            previous_end: 0,
            last_index: 0,
            last_term: 0,
            hard_state: HardState::default(),
            cut: Cut::default(),
        };
        let active = activate(file, header)?;
        let recovered = Recovered {
            hard_state: HardState::default(),
            base_index: 0,
            base_term: 0,
            entries: Vec::new(),
            report: Report {
                fresh: true,
                ..Report::default()
            },
        };
        let writer = LogWriter {
            disk,
            options,
            active,
            sealed: VecDeque::new(),
            free,
            spare_pending: false,
            next_slot,
            cut: Cut::default(),
            durable: Edge::default(),
            staged: Edge::default(),
            terms: VecDeque::new(),
            batch: Batch::new(),
            batch_max_index: 0,
            batches_written: 0,
            failed: false,
        };
        Ok((writer, recovered))
    }

    fn go_on(
        disk: Arc<dyn Disk>,
        options: LogOptions,
        recovery: Recovery,
    ) -> Result<(LogWriter, Recovered), LogError> {
        let replay = recovery.replay;
        let edge = Edge {
            hard_state: replay.hard_state,
            last_index: replay.last_index,
            last_term: replay.last_term,
        };
        let mut terms = VecDeque::new();
        if replay.cut.index > 0 {
            terms.push_back((replay.cut.index, replay.cut.term));
        }
        for entry in &replay.entries {
            push_term(&mut terms, entry.index, entry.term);
        }
        let next_slot = next_slot(&*disk, &options)?;
        let writer = LogWriter {
            disk,
            options,
            active: recovery.active,
            sealed: recovery.sealed,
            free: recovery.free,
            spare_pending: false,
            next_slot,
            cut: replay.cut,
            durable: edge,
            staged: edge,
            terms,
            batch: Batch::new(),
            batch_max_index: 0,
            batches_written: 0,
            failed: false,
        };
        let recovered = Recovered {
            hard_state: replay.hard_state,
            base_index: replay.cut.index,
            base_term: replay.cut.term,
            entries: replay.entries.into(),
            report: recovery.report,
        };
        Ok((writer, recovered))
    }

    /// Removes free files of another size than new segments have, and those beyond the limit.
    fn drop_misfits(&mut self) -> Result<(), LogError> {
        let mut removed = false;
        let mut kept = Vec::new();
        for file in std::mem::take(&mut self.free) {
            if file.bytes == self.options.segment_bytes
                && kept.len() < self.options.free_segments_max
            {
                kept.push(file);
            } else {
                self.disk.remove(&file.name)?;
                removed = true;
            }
        }
        self.free = kept;
        if removed {
            self.disk.sync_dir()?;
        }
        Ok(())
    }

    /// Stages and flushes in one call. On return everything is durable.
    pub fn append<'a>(
        &mut self,
        hard_state: Option<&HardState>,
        entries: impl Iterator<Item = EntryRef<'a>> + Clone,
    ) -> Result<(), LogError> {
        self.stage(hard_state, entries)?;
        self.flush()
    }

    /// Adds a hard state and entries to the next durable write.
    ///
    /// Entries follow each other without a gap. If the first is not the next of the log, it and
    /// those after it replace the log's from there on. Only entries that are not cut can be
    /// replaced, and the committed index lies inside the log; anything else is an error of the
    /// caller and panics.
    ///
    /// What is staged in one call becomes durable as a whole or not at all, unless it is larger
    /// than a batch. If what was staged earlier leaves no room, that is flushed now.
    /// After [`LogError::NoSpace`] or [`LogError::TooLarge`] nothing of this call is staged,
    /// except that of a call larger than a batch the front may be staged or even durable. The
    /// call may be repeated.
    pub fn stage<'a>(
        &mut self,
        hard_state: Option<&HardState>,
        entries: impl Iterator<Item = EntryRef<'a>> + Clone,
    ) -> Result<(), LogError> {
        self.check_open()?;
        let batch_max = self.batch_bytes_max();
        let entry_max = self.entry_bytes_max();
        let mut needed = hard_state.map_or(0, |_| record_bytes(STATE_BODY));
        for entry in entries.clone() {
            let bytes = entry.data.len().saturating_add(entry.context.len());
            if bytes > entry_max {
                return Err(LogError::TooLarge {
                    bytes,
                    max: entry_max,
                });
            }
            needed = needed.saturating_add(record_bytes(bytes));
        }
        if needed == 0 {
            return Ok(());
        }
        if self.batch.used().saturating_add(needed) > batch_max {
            self.flush()?;
        }
        if BATCH_HEADER.saturating_add(needed) > batch_max {
            return self.stage_in_parts(hard_state, entries);
        }
        if let Some(hard_state) = hard_state {
            self.push_state(*hard_state);
        }
        for entry in entries {
            self.push_entry(&entry);
        }
        self.check_commit();
        Ok(())
    }

    /// More than a batch: the entries go in several. A crash between leaves the front of them,
    /// so that the committed index may not name those behind before they are there.
    fn stage_in_parts<'a>(
        &mut self,
        hard_state: Option<&HardState>,
        mut entries: impl Iterator<Item = EntryRef<'a>> + Clone,
    ) -> Result<(), LogError> {
        if let Some(first) = entries.clone().next()
            && let Some(hard_state) = hard_state
        {
            self.push_state(HardState {
                commit: hard_state.commit.min(first.index.saturating_sub(1)),
                ..*hard_state
            });
        }
        let reserve = record_bytes(STATE_BODY);
        entries.try_for_each(|entry| {
            let bytes = record_bytes(entry.data.len() + entry.context.len());
            if self.batch.used() + bytes + reserve > self.batch_bytes_max() {
                self.flush()?;
            }
            self.push_entry(&entry);
            Ok::<(), LogError>(())
        })?;
        if let Some(hard_state) = hard_state {
            self.push_state(*hard_state);
        }
        self.check_commit();
        Ok(())
    }

    fn push_state(&mut self, hard_state: HardState) {
        self.batch.push_state(&State {
            hard_state,
            cut: self.cut,
            oldest: self.oldest(),
            reset: false,
        });
        self.staged.hard_state = hard_state;
    }

    fn push_entry(&mut self, entry: &EntryRef<'_>) {
        assert!(
            entry.index <= self.staged.last_index + 1 && entry.index > self.cut.index,
            "entry {} neither follows {} nor replaces one after the cut at {}",
            entry.index,
            self.staged.last_index,
            self.cut.index
        );
        self.batch.push_entry(entry);
        self.batch_max_index = self.batch_max_index.max(entry.index);
        self.staged.last_index = entry.index;
        self.staged.last_term = entry.term;
        push_term(&mut self.terms, entry.index, entry.term);
    }

    fn check_commit(&self) {
        let (commit, last) = (self.staged.hard_state.commit, self.staged.last_index);
        assert!(
            commit <= last,
            "commit index {commit} lies beyond the log's end {last}"
        );
    }

    /// Writes what is staged, in one durable write. Does nothing if nothing is staged.
    pub fn flush(&mut self) -> Result<(), LogError> {
        self.check_open()?;
        if self.batch.is_empty() {
            return Ok(());
        }
        if self.room() < round_up(self.batch.used()) as u64 {
            self.rotate()?;
        }
        self.write_batch(self.oldest())
    }

    /// Writes the staged batch to the active segment, which has room.
    fn write_batch(&mut self, oldest: u64) -> Result<(), LogError> {
        self.batch.set_cut(self.cut, oldest);
        let active = &mut self.active;
        let watermark = Position::new(active.header.sequence, active.end);
        let blocks = self
            .batch
            .seal(active.header.checks(), active.end, watermark);
        if let Err(error) = active.file.file.write_durable(active.end, blocks) {
            self.failed = true;
            return Err(LogError::Disk(error));
        }
        active.end += blocks.len() as u64;
        active.unconfirmed = !self.batch.is_empty();
        active.max_index = active.max_index.max(self.batch_max_index);
        self.durable = self.staged;
        self.batch.clear();
        self.batch_max_index = 0;
        self.batches_written += 1;
        Ok(())
    }

    /// Confirms on disk that the newest write was durable, if nothing says so yet; returns
    /// whether something was written. For quiet moments: until then rot in that write cannot be
    /// told from a write that was torn by a crash.
    pub fn idle(&mut self) -> Result<bool, LogError> {
        self.check_open()?;
        if !self.active.unconfirmed || !self.batch.is_empty() {
            return Ok(false);
        }
        if self.room() >= BLOCK as u64 {
            // A batch without records: its watermark is all it says.
            self.write_batch(self.oldest())?;
            return Ok(true);
        }
        // The header of the next segment says it too.
        if self.free.is_empty() {
            return Ok(false);
        }
        self.rotate()?;
        Ok(true)
    }

    /// A job that makes a spare segment, if there is none and none is on its way.
    pub fn spare(&mut self) -> Option<SpareJob> {
        if !self.free.is_empty() || self.spare_pending || self.failed {
            return None;
        }
        self.spare_pending = true;
        Some(self.new_segment())
    }

    /// Takes the result of a [`SpareJob`]. [`LogError::NoSpace`] is returned as it came: the log
    /// goes on until its segment is full, and [`LogWriter::spare`] hands the job out again.
    pub fn spare_made(&mut self, made: Result<Spare, LogError>) -> Result<(), LogError> {
        self.spare_pending = false;
        self.free.push(made?.file);
        Ok(())
    }

    /// Bytes of log files, in use or not.
    pub fn file_bytes(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|sealed| sealed.file.bytes).sum();
        let free: u64 = self.free.iter().map(|file| file.bytes).sum();
        self.active.file.bytes + sealed + free
    }

    /// Bytes that a recovery would have to read now.
    pub fn live_bytes(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|sealed| sealed.file.bytes).sum();
        sealed + self.active.end
    }

    /// How many durable writes were made since the log was opened.
    pub fn batches_written(&self) -> u64 {
        self.batches_written
    }

    /// The index of the last durable entry; of the cut, if there is none.
    pub fn last_index(&self) -> u64 {
        self.durable.last_index
    }

    /// The largest payload (data and context together) that an entry may have.
    pub fn entry_bytes_max(&self) -> usize {
        let overhead = BATCH_HEADER + 2 * record_bytes(STATE_BODY) + record_bytes(0);
        // Bodies are padded to 8 bytes.
        (self.batch_bytes_max() - overhead) & !7
    }

    /// The file and byte where the next batch goes.
    #[cfg(test)]
    pub(super) fn active_place(&self) -> (String, u64) {
        (self.active.file.name.clone(), self.active.end)
    }

    fn batch_bytes_max(&self) -> usize {
        let room = self.options.segment_bytes - FIRST_BATCH - BLOCK as u64;
        BATCH_BYTES_MAX.min(room as usize)
    }

    /// What is left of the active segment, without its reserve.
    fn room(&self) -> u64 {
        let end = self.active.file.bytes - BLOCK as u64;
        end.saturating_sub(self.active.end)
    }

    fn oldest(&self) -> u64 {
        let oldest = self.sealed.front().map(|sealed| sealed.header.sequence);
        oldest.unwrap_or(self.active.header.sequence)
    }

    fn term(&self, index: u64) -> Option<u64> {
        let after = self.terms.partition_point(|(from, _)| *from <= index);
        Some(self.terms.get(after.checked_sub(1)?)?.1)
    }

    fn check_open(&self) -> Result<(), LogError> {
        if self.failed {
            Err(LogError::Latched)
        } else {
            Ok(())
        }
    }

    fn new_segment(&mut self) -> SpareJob {
        let job = SpareJob::new(&self.disk, &self.options, self.next_slot);
        self.next_slot += 1;
        job
    }

    /// Goes on in the next segment.
    fn rotate(&mut self) -> Result<(), LogError> {
        let file = match self.free.pop() {
            Some(file) => file,
            None => match self.new_segment().run() {
                Ok(spare) => spare.file,
                Err(error) => {
                    self.failed = !matches!(error, LogError::NoSpace);
                    return Err(error);
                }
            },
        };
        let sequence = self.active.header.sequence + 1;
        let header = SegmentHeader {
            log_id: self.options.log_id,
            bytes: file.bytes,
            sequence,
            oldest: self.oldest(),
            salt: salt(self.options.seed, sequence),
            slot: file.slot,
            previous_end: u32::try_from(self.active.end).expect("offsets fit 32 bits"),
            last_index: self.durable.last_index,
            last_term: self.durable.last_term,
            hard_state: self.durable.hard_state,
            cut: self.cut,
        };
        match activate(file, header) {
            Ok(active) => {
                let full = std::mem::replace(&mut self.active, active);
                self.sealed.push_back(Sealed {
                    file: full.file,
                    header: full.header,
                    max_index: full.max_index,
                });
                Ok(())
            }
            Err(error) => {
                self.failed = true;
                Err(error)
            }
        }
    }
}

/// Writes the header of a segment. What else is in the file has another epoch and is not seen.
fn activate(mut file: SegmentFile, header: SegmentHeader) -> Result<Active, LogError> {
    let mut head = AlignedBuf::new(HEADER_COPIES);
    for copy in head.chunks_exact_mut(BLOCK) {
        header.encode(copy);
    }
    file.file.write_durable(0, &head).map_err(LogError::Disk)?;
    Ok(Active {
        file,
        header,
        end: FIRST_BATCH,
        max_index: 0,
        unconfirmed: false,
    })
}

/// Records that the entry at `index` has `term`, and that none after it counts.
fn push_term(terms: &mut VecDeque<(u64, u64)>, index: u64, term: u64) {
    while terms.back().is_some_and(|(from, _)| *from >= index) {
        terms.pop_back();
    }
    if terms.back().is_none_or(|(_, newest)| *newest != term) {
        terms.push_back((index, term));
    }
}

fn next_slot(disk: &dyn Disk, options: &LogOptions) -> Result<u32, LogError> {
    let names = disk.list()?;
    let slots = names
        .iter()
        .filter_map(|name| slot_of(options.prefix, name));
    Ok(slots.max().unwrap_or(0) + 1)
}

/// A number for the checksums of one use of a segment (splitmix64 of seed and sequence).
fn salt(seed: u64, sequence: u64) -> u64 {
    let mut z = seed.wrapping_add(sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
