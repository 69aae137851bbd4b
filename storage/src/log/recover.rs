//! Finds out what the log holds after a stop of any kind.
//!
//! Nothing is changed on disk before every check has passed. What is then changed can be broken
//! off at any point: the next recovery finds the same log.

use super::decide::{Head, Use, Verdict, at_end, file_use};
use super::format::{
    Cut, FIRST_BATCH, HeaderCopy, Position, SegmentHeader, batch_epoch, is_segment_size,
};
use super::replay::Replay;
use super::scan::{Found, Record, Scan, scan};
use super::segments::{Candidate, SegmentFile, candidates, read_image};
use super::{LogError, LogOptions};
use crate::disk::{AlignedBuf, BLOCK, Disk};
use std::collections::{BTreeMap, VecDeque};

/// How a log was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// There was no log: this is its first start.
    pub fresh: bool,
    /// How many segments were read.
    pub segments: usize,
    /// How many batches they held.
    pub batches: usize,
    /// The file and byte where a batch was cut off that was never acknowledged.
    pub cut: Option<(String, u64)>,
    /// Files of which one of the two header copies had to be written again.
    pub healed: Vec<String>,
}

/// A segment that is complete.
pub(super) struct Sealed {
    pub(super) file: SegmentFile,
    pub(super) header: SegmentHeader,
    /// The highest index of an entry in it; 0 if it has none.
    pub(super) max_index: u64,
}

/// The segment that is being written.
pub(super) struct Active {
    pub(super) file: SegmentFile,
    pub(super) header: SegmentHeader,
    /// Where the next batch goes.
    pub(super) end: u64,
    pub(super) max_index: u64,
    /// The newest batch holds records, and nothing on disk says yet that it was durable.
    pub(super) unconfirmed: bool,
}

/// A log that was recovered.
pub(super) struct Recovery {
    pub(super) active: Active,
    pub(super) sealed: VecDeque<Sealed>,
    pub(super) free: Vec<SegmentFile>,
    pub(super) replay: Replay,
    pub(super) report: Report,
}

/// The files of a directory, and what becomes of them.
pub(super) enum Outcome {
    /// No log; files that may be used for it.
    Fresh(Vec<SegmentFile>),
    Recovered(Box<Recovery>),
}

/// Whether recovery may change the files that it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repair {
    /// Wipe out what was never acknowledged, and write damaged header copies again.
    Yes,
    /// Only look.
    No,
}

/// Reads everything, decides, and only then wipes out what was never acknowledged.
pub(super) fn recover(
    disk: &dyn Disk,
    options: &LogOptions,
    repair: Repair,
) -> Result<Outcome, LogError> {
    let files = candidates(disk, options.prefix, true)?;
    let newest = find_newest(&files, options.log_id)?;
    let Some(newest) = newest else {
        let mut free = Vec::new();
        for file in files {
            check_file(&file, options.log_id, 0, u64::MAX)?;
            free.push(file.file);
        }
        return Ok(Outcome::Fresh(free));
    };
    let tail = &files[newest];
    let tail_header = tail.header().expect("found by its header").clone();
    check_file(
        tail,
        options.log_id,
        tail_header.sequence,
        tail_header.oldest,
    )?;
    let image = read_image(&tail.file)?;
    let tail_scan = scan(&tail_header, &image, tail.file.bytes);
    let verdict = judge(&tail.file, &tail_header, &tail_scan, tail_scan.watermark)?;
    let (oldest, cut) = newest_cut(&tail_header, &tail_scan);

    let (mut live, free) = sort_files(files, options.log_id, tail_header.sequence, oldest)?;
    let mut report = Report::default();
    let mut chain = Chain {
        log_id: options.log_id,
        replay: None,
        keep_after: cut.index,
        sealed: VecDeque::new(),
    };
    let mut unhealed = Vec::new();
    for sequence in oldest..tail_header.sequence {
        let next = next_header(&live, sequence + 1)?;
        let file = live.remove(&sequence).expect("checked by `sort_files`");
        if file.needs_healing() {
            unhealed.push(report.segments);
        }
        report.batches += chain.read_sealed(file, &next)?;
        report.segments += 1;
    }
    let tail = live
        .remove(&tail_header.sequence)
        .expect("checked by `sort_files`");
    let max_index = chain.replay_scan(&tail.file.name, &tail_header, &tail_scan)?;
    let tail_needs_healing = tail.needs_healing();
    let replay = chain.replay.expect("at least the tail was read");
    replay.finish().map_err(|what| LogError::Corrupt {
        file: tail.file.name.clone(),
        byte: tail_scan.end,
        what,
    })?;
    report.batches += tail_scan.batches.len();
    report.segments += 1;

    let mut file = tail.file;
    if verdict == Verdict::Cut {
        report.cut = Some((file.name.clone(), tail_scan.bad));
    }
    if repair == Repair::Yes {
        wipe(&mut file, &tail_scan, verdict)?;
        for number in unhealed {
            let sealed: &mut Sealed = &mut chain.sealed[number];
            heal(&mut sealed.file, &sealed.header, &mut report)?;
        }
        if tail_needs_healing {
            heal(&mut file, &tail_header, &mut report)?;
        }
    }
    let last = tail_scan
        .batches
        .last()
        .filter(|batch| batch.header.records > 0);
    let unconfirmed = last.is_some_and(|batch| {
        Position::new(tail_header.sequence, batch.end()) > tail_scan.watermark
    });
    Ok(Outcome::Recovered(Box::new(Recovery {
        active: Active {
            file,
            end: tail_scan.end,
            max_index,
            unconfirmed,
            header: tail_header,
        },
        sealed: chain.sealed,
        free,
        replay,
        report,
    })))
}

impl Candidate {
    fn head(&self, log_id: u64, oldest: u64) -> Head {
        if let Some(header) = self.header() {
            return match header {
                header if header.log_id != log_id => Head::Foreign,
                header if header.sequence < oldest => Head::Dead,
                _ => Head::Live,
            };
        }
        if self.other_version().is_some() {
            Head::OtherVersion
        } else if self.copies.iter().all(|copy| *copy == HeaderCopy::Zeros) {
            Head::Zeros
        } else {
            Head::Damaged
        }
    }

    fn other_version(&self) -> Option<u32> {
        self.copies.iter().find_map(|copy| match copy {
            HeaderCopy::Version(version) => Some(*version),
            HeaderCopy::Zeros | HeaderCopy::Damaged | HeaderCopy::Valid(_) => None,
        })
    }

    /// Whether length and name are those that the header tells.
    fn has_form(&self) -> bool {
        match self.header() {
            Some(header) => header.bytes == self.file.bytes && header.slot == self.file.slot,
            None => is_segment_size(self.file.bytes),
        }
    }

    fn needs_healing(&self) -> bool {
        let header = self.header();
        !self
            .copies
            .iter()
            .all(|copy| matches!((copy, header), (HeaderCopy::Valid(a), Some(b)) if a == b))
    }
}

/// The file with the highest number of a segment; files of other logs or versions are refused.
fn find_newest(files: &[Candidate], log_id: u64) -> Result<Option<usize>, LogError> {
    let mut newest: Option<(u64, usize)> = None;
    for (number, file) in files.iter().enumerate() {
        match file.head(log_id, 0) {
            Head::Foreign | Head::OtherVersion => {
                check_file(file, log_id, u64::MAX, 0)?;
            }
            Head::Zeros | Head::Damaged | Head::Live | Head::Dead => {}
        }
        let sequence = file.header().map(|header| header.sequence);
        if let Some(sequence) = sequence
            && newest.is_none_or(|(highest, _)| sequence > highest)
        {
            newest = Some((sequence, number));
        }
    }
    Ok(newest.map(|(_, number)| number))
}

/// Refuses a file or tells its use, given the newest and the oldest segment of the log.
fn check_file(file: &Candidate, log_id: u64, newest: u64, oldest: u64) -> Result<Use, LogError> {
    let head = file.head(log_id, oldest);
    let newer_batch = batch_epoch(&file.first_batch).is_some_and(|epoch| epoch > newest);
    let name = || file.file.name.clone();
    let corrupt = |byte, what| LogError::Corrupt {
        file: name(),
        byte,
        what,
    };
    match file_use(head, newer_batch, file.has_form()) {
        fate @ (Use::Live | Use::Free) => Ok(fate),
        Use::RefuseDamaged => Err(corrupt(
            0,
            "the header of a segment with acknowledged records cannot be read",
        )),
        Use::RefuseForm => Err(corrupt(
            file.file.bytes,
            "the file's length or name is not the one it was written with",
        )),
        Use::RefuseVersion => Err(LogError::UnknownVersion {
            file: name(),
            version: file.other_version().unwrap_or_default(),
        }),
        Use::RefuseForeign => Err(LogError::Foreign {
            file: name(),
            found: file.header().map_or(0, |header| header.log_id),
        }),
    }
}

/// Applies the decision table to the place where reading a segment stopped.
fn judge(
    file: &SegmentFile,
    header: &SegmentHeader,
    scan: &Scan<'_>,
    watermark: Position,
) -> Result<Verdict, LogError> {
    let below = Position::new(header.sequence, scan.end) < watermark;
    match at_end(scan.found, below) {
        Verdict::Refuse(what) => Err(LogError::Corrupt {
            file: file.name.clone(),
            byte: scan.bad,
            what,
        }),
        verdict => Ok(verdict),
    }
}

/// The lowest segment still needed, and the cut, as of the newest state in the newest segment.
fn newest_cut(header: &SegmentHeader, scan: &Scan<'_>) -> (u64, Cut) {
    let mut newest = (header.oldest, header.cut);
    for batch in &scan.batches {
        for (_, record) in batch.records() {
            if let Record::State(state) = record {
                newest = (state.oldest, state.cut);
            }
        }
    }
    newest
}

type Live = BTreeMap<u64, Candidate>;

/// Tells the live files, all of which must be there, from the free ones.
fn sort_files(
    files: Vec<Candidate>,
    log_id: u64,
    newest: u64,
    oldest: u64,
) -> Result<(Live, Vec<SegmentFile>), LogError> {
    let mut live = Live::new();
    let mut free = Vec::new();
    let mut damaged = None;
    for file in files {
        match check_file(&file, log_id, newest, oldest)? {
            Use::Live => {
                let sequence = file.header().map_or(0, |header| header.sequence);
                if live.contains_key(&sequence) {
                    return Err(LogError::Corrupt {
                        file: file.file.name,
                        byte: 0,
                        what: "another file has the same segment",
                    });
                }
                live.insert(sequence, file);
            }
            _ => {
                if file.header().is_none() {
                    damaged = Some(file.file.name.clone());
                }
                free.push(file.file);
            }
        }
    }
    match (oldest..=newest).find(|sequence| !live.contains_key(sequence)) {
        Some(sequence) => Err(LogError::Missing { sequence, damaged }),
        None => Ok((live, free)),
    }
}

fn next_header(live: &Live, sequence: u64) -> Result<SegmentHeader, LogError> {
    let header = live.get(&sequence).and_then(Candidate::header);
    header.cloned().ok_or(LogError::Missing {
        sequence,
        damaged: None,
    })
}

/// The replay of one segment after the other.
struct Chain {
    log_id: u64,
    replay: Option<Replay>,
    keep_after: u64,
    sealed: VecDeque<Sealed>,
}

impl Chain {
    /// Reads a segment that has a successor: it must be whole up to where the successor says.
    fn read_sealed(
        &mut self,
        candidate: Candidate,
        next: &SegmentHeader,
    ) -> Result<usize, LogError> {
        assert!(next.log_id == self.log_id, "foreign files were refused");
        let header = candidate.header().expect("a live file has one").clone();
        let file = candidate.file;
        let image = read_image(&file)?;
        let end = u64::from(next.previous_end);
        if end < FIRST_BATCH || end > file.bytes {
            return Err(LogError::Corrupt {
                file: file.name,
                byte: end.min(header.bytes),
                what: "the next segment's header tells an impossible end of this one",
            });
        }
        let scan = scan(&header, &image, end);
        let watermark = scan.watermark.max(Position::new(header.sequence, end));
        let verdict = judge(&file, &header, &scan, watermark)?;
        if verdict == Verdict::Cut || scan.end != end || scan.found != Found::Full {
            return Err(LogError::Corrupt {
                file: file.name,
                byte: scan.bad,
                what: "the segment goes on after the end that the next one's header tells",
            });
        }
        let max_index = self.replay_scan(&file.name, &header, &scan)?;
        self.sealed.push_back(Sealed {
            file,
            header,
            max_index,
        });
        Ok(scan.batches.len())
    }

    /// Replays the batches of a segment, and returns the highest index in it.
    fn replay_scan(
        &mut self,
        name: &str,
        header: &SegmentHeader,
        scan: &Scan<'_>,
    ) -> Result<u64, LogError> {
        let corrupt = |byte| {
            move |what| LogError::Corrupt {
                file: name.to_owned(),
                byte,
                what,
            }
        };
        let replay = match &mut self.replay {
            Some(replay) => {
                replay.segment(header).map_err(corrupt(0))?;
                replay
            }
            None => self.replay.insert(Replay::new(header, self.keep_after)),
        };
        let mut max_index = 0;
        for batch in &scan.batches {
            for (offset, record) in batch.records() {
                if let Record::Entry(entry) = &record {
                    max_index = max_index.max(entry.index);
                }
                replay.record(record).map_err(corrupt(offset))?;
            }
        }
        Ok(max_index)
    }
}

/// Makes sure that nothing after the end can ever be read as a batch: those further behind
/// first, so that a crash in between leaves the same end.
fn wipe(file: &mut SegmentFile, scan: &Scan<'_>, verdict: Verdict) -> Result<(), LogError> {
    let zeros = AlignedBuf::new(1);
    for offset in scan.behind.iter().rev() {
        file.file.write_durable(*offset, &zeros)?;
    }
    if verdict == Verdict::Cut {
        file.file.write_durable(scan.end, &zeros)?;
    }
    Ok(())
}

/// Writes the header copy again that cannot be read; the other one stays as it is.
fn heal(
    file: &mut SegmentFile,
    header: &SegmentHeader,
    report: &mut Report,
) -> Result<(), LogError> {
    let mut head = AlignedBuf::new(2);
    file.file.read(0, &mut head)?;
    for copy in 0..2 {
        let offset = copy * BLOCK;
        if SegmentHeader::decode(&head[offset..]) != HeaderCopy::Valid(header.clone()) {
            let mut block = AlignedBuf::new(1);
            header.encode(&mut block);
            file.file.write_durable(offset as u64, &block)?;
        }
    }
    report.healed.push(file.name.clone());
    Ok(())
}
