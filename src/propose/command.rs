//! The data of a log entry: one batch of commands of one front.
//!
//! All integers are little-endian. A batch is a header of 32 bytes,
//!
//! ```text
//! offset  size  field
//!      0     1  version      1
//!      1     1  flags        0
//!      2     2  front        number of the front on its member
//!      4     4  count        how many commands follow, at least 1
//!      8     8  member       id of the member whose front built the batch
//!     16     8  boot         that process's boot epoch: no two runs of a member share one
//!     24     8  sequence     grows with each batch of that front in that run
//! ```
//!
//! and then `count` commands back to back, with nothing after the last:
//!
//! ```text
//! offset  size  field
//!      0     4  length       of the body, at most MAX_BODY
//!      4     1  kind         see CommandKind
//!      5     8  waiter       the front's own number for whoever waits for the answer
//!     13     .  body         the archive of the request, as it came from the client
//! ```
//!
//! (member, boot, front, sequence) names a batch, and with the waiter a command: by these names,
//! never by its index, is an applied command matched with the request that waits for it. Empty
//! entry data is no batch: it is the entry with which a leader begins its term.

use crate::wire::Kind;
use bytes::Bytes;
use std::fmt;

/// The version of the batch format that this build writes and reads.
pub const VERSION: u8 = 1;

/// Size of the header of a batch.
pub const BATCH_HEADER: usize = SEQUENCE_AT + 8;

/// Size of the header of a command.
pub const COMMAND_HEADER: usize = WAITER_AT + 8;

/// The longest body that a command may carry. Far above any limit on requests that a server
/// can be configured with; it bounds what a decoder accepts.
pub const MAX_BODY: usize = 1 << 28;

const FRONT_AT: usize = 2;
const COUNT_AT: usize = FRONT_AT + 2;
const MEMBER_AT: usize = COUNT_AT + 4;
const BOOT_AT: usize = MEMBER_AT + 8;
const SEQUENCE_AT: usize = BOOT_AT + 8;

const KIND_AT: usize = 4;
const WAITER_AT: usize = KIND_AT + 1;

const _: () = assert!(BATCH_HEADER == 32 && COMMAND_HEADER == 13);

/// What a command asks for, and so the type of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CommandKind {
    /// Write one key.
    Put = 1,
    /// Delete a key or an interval.
    DeleteRange = 2,
    /// Compare and run.
    Txn = 3,
    /// Drop history.
    Compact = 4,
    /// Make a lease; id and time are settled.
    LeaseGrant = 5,
    /// End a lease.
    LeaseRevoke = 6,
    /// End leases whose time is over.
    LeaseExpire = 7,
    /// Write down how long leases have left.
    LeaseCheckpoint = 8,
    /// Raise an alarm, or take one back.
    Alarm = 9,
}

impl CommandKind {
    /// The kind with that number.
    pub fn from_code(code: u8) -> Option<CommandKind> {
        match code {
            1 => Some(CommandKind::Put),
            2 => Some(CommandKind::DeleteRange),
            3 => Some(CommandKind::Txn),
            4 => Some(CommandKind::Compact),
            5 => Some(CommandKind::LeaseGrant),
            6 => Some(CommandKind::LeaseRevoke),
            7 => Some(CommandKind::LeaseExpire),
            8 => Some(CommandKind::LeaseCheckpoint),
            9 => Some(CommandKind::Alarm),
            _ => None,
        }
    }

    /// The kind of frame whose body such a command carries.
    pub fn wire_kind(self) -> Kind {
        match self {
            CommandKind::Put => Kind::Put,
            CommandKind::DeleteRange => Kind::DeleteRange,
            CommandKind::Txn => Kind::Txn,
            CommandKind::Compact => Kind::Compact,
            CommandKind::LeaseGrant => Kind::LeaseGrant,
            CommandKind::LeaseRevoke => Kind::LeaseRevoke,
            CommandKind::LeaseExpire => Kind::LeaseExpire,
            CommandKind::LeaseCheckpoint => Kind::LeaseCheckpoint,
            CommandKind::Alarm => Kind::Alarm,
        }
    }

    /// The kind of command for the body of such a frame; `None` if it is no write.
    pub fn from_wire(kind: Kind) -> Option<CommandKind> {
        match kind {
            Kind::Put => Some(CommandKind::Put),
            Kind::DeleteRange => Some(CommandKind::DeleteRange),
            Kind::Txn => Some(CommandKind::Txn),
            Kind::Compact => Some(CommandKind::Compact),
            Kind::LeaseGrant => Some(CommandKind::LeaseGrant),
            Kind::LeaseRevoke => Some(CommandKind::LeaseRevoke),
            Kind::LeaseExpire => Some(CommandKind::LeaseExpire),
            Kind::LeaseCheckpoint => Some(CommandKind::LeaseCheckpoint),
            Kind::Alarm => Some(CommandKind::Alarm),
            _ => None,
        }
    }
}

/// Who built a batch, and which one of theirs it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchId {
    /// The member's id.
    pub member: u64,
    /// The boot epoch of its process.
    pub boot: u64,
    /// The number of the front.
    pub front: u16,
    /// Grows with each batch of that front in that run.
    pub sequence: u64,
}

/// One command, in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command<'a> {
    /// The front's number for whoever waits.
    pub waiter: u64,
    /// What is asked for.
    pub kind: CommandKind,
    /// The archive of the request; not yet validated.
    pub body: &'a [u8],
}

/// A batch whose framing has been checked from end to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch<'a> {
    id: BatchId,
    count: u32,
    commands: &'a [u8],
}

/// Why bytes are no batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandError {
    /// They end inside a header or a body.
    Truncated {
        /// How many bytes there are.
        len: usize,
    },
    /// Written by a version of the format that this build does not know.
    UnknownVersion(u8),
    /// Flags that must be zero are not.
    UnknownFlags(u8),
    /// A batch of no commands.
    Empty,
    /// A command of a kind that this build does not know.
    UnknownKind {
        /// Where its header starts in the batch.
        at: usize,
        /// The kind found.
        kind: u8,
    },
    /// A body longer than any may be.
    BodyTooLong {
        /// Where its header starts in the batch.
        at: usize,
        /// The length found.
        len: u32,
    },
    /// Bytes after the last command.
    TrailingBytes {
        /// Where they start.
        at: usize,
    },
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Truncated { len } => write!(f, "a batch of commands ends at byte {len}"),
            CommandError::UnknownVersion(v) => {
                write!(
                    f,
                    "a batch of commands in format {v}; this build knows {VERSION}"
                )
            }
            CommandError::UnknownFlags(v) => write!(f, "a batch of commands with flags {v:#04x}"),
            CommandError::Empty => f.write_str("a batch of no commands"),
            CommandError::UnknownKind { at, kind } => {
                write!(
                    f,
                    "a command of unknown kind {kind} at byte {at} of its batch"
                )
            }
            CommandError::BodyTooLong { at, len } => {
                write!(f, "a command of {len} bytes at byte {at} of its batch")
            }
            CommandError::TrailingBytes { at } => {
                write!(
                    f,
                    "bytes after the last command, from byte {at} of the batch"
                )
            }
        }
    }
}

impl std::error::Error for CommandError {}

impl<'a> Batch<'a> {
    /// Checks the framing of a whole batch: after this, walking it cannot fail.
    pub fn decode(bytes: &'a [u8]) -> Result<Batch<'a>, CommandError> {
        let (id, count) = decode_header(bytes)?;
        let mut at = BATCH_HEADER;
        for _ in 0..count {
            at = check_command(bytes, at)?;
        }
        if at != bytes.len() {
            return Err(CommandError::TrailingBytes { at });
        }
        Ok(Batch {
            id,
            count,
            commands: &bytes[BATCH_HEADER..],
        })
    }

    /// Who built it.
    pub fn id(&self) -> BatchId {
        self.id
    }

    /// Who built a batch, and how many commands it claims to hold; its framing is unchecked.
    pub fn head(bytes: &[u8]) -> Option<(BatchId, u32)> {
        decode_header(bytes).ok()
    }

    /// How many commands it holds, at least one.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The same batch with only the commands that `keep` wants; `None` if it wants none.
    pub fn keep(&self, mut keep: impl FnMut(&Command<'a>) -> bool) -> Option<Built> {
        let BatchId {
            member,
            boot,
            front,
            sequence,
        } = self.id;
        let mut kept = BatchBuilder::new(member, boot, front, usize::MAX, u32::MAX);
        kept.sequence = sequence;
        for command in self.commands().filter(|command| keep(command)) {
            // With no bound nothing is full.
            let _ = kept.push(command.waiter, command.kind, command.body);
        }
        kept.take()
    }

    /// The commands in order.
    pub fn commands(&self) -> Commands<'a> {
        Commands {
            left: self.count,
            rest: self.commands,
        }
    }
}

impl<'a> IntoIterator for Batch<'a> {
    type Item = Command<'a>;
    type IntoIter = Commands<'a>;

    fn into_iter(self) -> Commands<'a> {
        self.commands()
    }
}

/// Walks the commands of a checked batch.
#[derive(Debug, Clone)]
pub struct Commands<'a> {
    left: u32,
    rest: &'a [u8],
}

impl<'a> Iterator for Commands<'a> {
    type Item = Command<'a>;

    #[inline]
    fn next(&mut self) -> Option<Command<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        // `Batch::decode` has walked these very bytes, so neither of these ever ends the walk
        // early; they are written so that no index can be out of range.
        let (header, rest) = self.rest.split_at_checked(COMMAND_HEADER)?;
        let kind = CommandKind::from_code(header[KIND_AT])?;
        let (body, rest) = rest.split_at_checked(u32_at(header, 0) as usize)?;
        self.rest = rest;
        Some(Command {
            waiter: u64_at(header, WAITER_AT),
            kind,
            body,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Commands<'_> {}

fn decode_header(bytes: &[u8]) -> Result<(BatchId, u32), CommandError> {
    // The version comes first, so that a later format may have a header of another size.
    match bytes.first() {
        None => return Err(CommandError::Truncated { len: 0 }),
        Some(&VERSION) => {}
        Some(&other) => return Err(CommandError::UnknownVersion(other)),
    }
    if bytes.len() < BATCH_HEADER {
        return Err(CommandError::Truncated { len: bytes.len() });
    }
    if bytes[1] != 0 {
        return Err(CommandError::UnknownFlags(bytes[1]));
    }
    let count = u32_at(bytes, COUNT_AT);
    if count == 0 {
        return Err(CommandError::Empty);
    }
    let id = BatchId {
        member: u64_at(bytes, MEMBER_AT),
        boot: u64_at(bytes, BOOT_AT),
        front: u16::from_le_bytes([bytes[FRONT_AT], bytes[FRONT_AT + 1]]),
        sequence: u64_at(bytes, SEQUENCE_AT),
    };
    Ok((id, count))
}

/// Checks the command at `at` and returns where the next one starts.
#[inline]
fn check_command(bytes: &[u8], at: usize) -> Result<usize, CommandError> {
    let truncated = CommandError::Truncated { len: bytes.len() };
    let header = bytes.get(at..at + COMMAND_HEADER).ok_or(truncated)?;
    let len = u32_at(header, 0);
    if len as usize > MAX_BODY {
        return Err(CommandError::BodyTooLong { at, len });
    }
    if CommandKind::from_code(header[KIND_AT]).is_none() {
        return Err(CommandError::UnknownKind {
            at,
            kind: header[KIND_AT],
        });
    }
    let end = at + COMMAND_HEADER + len as usize;
    if end > bytes.len() {
        return Err(truncated);
    }
    Ok(end)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}

/// Gathers the writes of one front until they leave as one batch.
#[derive(Debug)]
pub struct BatchBuilder {
    member: u64,
    boot: u64,
    front: u16,
    /// Of the batch being built.
    sequence: u64,
    /// Bounds of a batch; a single command may exceed the bytes and then travels alone.
    max_bytes: usize,
    max_commands: u32,
    /// Empty, or the header (its count still open) and the commands so far.
    bytes: Vec<u8>,
    count: u32,
    /// What to reserve for the next batch: the size of the last, within `max_bytes`.
    reserve: usize,
}

/// A finished batch.
#[derive(Debug, Clone)]
pub struct Built {
    /// Its sequence number.
    pub sequence: u64,
    /// How many commands.
    pub count: u32,
    /// The encoded batch.
    pub bytes: Bytes,
}

/// The command was not added: take the batch first, then add it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchFull;

impl BatchBuilder {
    /// A builder for one front in one run of a member. A batch holds at most `max_commands`
    /// and, unless it is one command alone, at most `max_bytes`.
    pub fn new(member: u64, boot: u64, front: u16, max_bytes: usize, max_commands: u32) -> Self {
        assert!(max_commands > 0, "a batch holds at least one command");
        BatchBuilder {
            member,
            boot,
            front,
            sequence: 1,
            max_bytes,
            max_commands,
            bytes: Vec::new(),
            count: 0,
            reserve: BATCH_HEADER,
        }
    }

    /// Adds a command, copying its body straight behind its header.
    ///
    /// A command that would burst the batch is refused and nothing changes; an empty batch takes
    /// any legal command.
    ///
    /// # Panics
    /// If the body is longer than [`MAX_BODY`]; fronts refuse such requests long before.
    #[inline]
    pub fn push(&mut self, waiter: u64, kind: CommandKind, body: &[u8]) -> Result<(), BatchFull> {
        assert!(body.len() <= MAX_BODY, "a body of {} bytes", body.len());
        let grown = self.bytes.len() + COMMAND_HEADER + body.len();
        if self.count == 0 {
            self.begin(body.len());
        } else if self.count == self.max_commands || grown > self.max_bytes {
            return Err(BatchFull);
        }
        let mut header = [0; COMMAND_HEADER];
        header[..KIND_AT].copy_from_slice(&(body.len() as u32).to_le_bytes());
        header[KIND_AT] = kind as u8;
        header[WAITER_AT..].copy_from_slice(&waiter.to_le_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(body);
        self.count += 1;
        Ok(())
    }

    /// No command waits in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Commands gathered so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes gathered so far, headers included.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Closes the batch and starts the next; `None` if nothing was gathered.
    pub fn take(&mut self) -> Option<Built> {
        if self.count == 0 {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes[COUNT_AT..COUNT_AT + 4].copy_from_slice(&self.count.to_le_bytes());
        self.reserve = bytes.len().min(self.max_bytes);
        let built = Built {
            sequence: self.sequence,
            count: self.count,
            bytes: bytes.into(),
        };
        self.sequence += 1;
        self.count = 0;
        Some(built)
    }

    fn begin(&mut self, first_body: usize) {
        let first = BATCH_HEADER + COMMAND_HEADER + first_body;
        self.bytes.reserve_exact(self.reserve.max(first));
        let mut header = [0; BATCH_HEADER];
        header[0] = VERSION;
        header[FRONT_AT..COUNT_AT].copy_from_slice(&self.front.to_le_bytes());
        header[MEMBER_AT..BOOT_AT].copy_from_slice(&self.member.to_le_bytes());
        header[BOOT_AT..SEQUENCE_AT].copy_from_slice(&self.boot.to_le_bytes());
        header[SEQUENCE_AT..].copy_from_slice(&self.sequence.to_le_bytes());
        self.bytes.extend_from_slice(&header);
    }
}

/// Decodes arbitrary bytes and checks that what is accepted is encoded the same way again.
/// The entry point of the fuzz target and of the tests below.
#[doc(hidden)]
pub fn fuzz_batch(bytes: &[u8]) {
    let Ok(batch) = Batch::decode(bytes) else {
        return;
    };
    let BatchId {
        member,
        boot,
        front,
        sequence,
    } = batch.id();
    // A builder counts on from its sequence; no front lives to see the last number.
    if sequence == u64::MAX {
        return;
    }
    let mut again = BatchBuilder::new(member, boot, front, usize::MAX, u32::MAX);
    again.sequence = sequence;
    let mut seen = 0;
    for command in batch.commands() {
        again
            .push(command.waiter, command.kind, command.body)
            .expect("no bound is set");
        seen += 1;
    }
    assert_eq!(seen, batch.count(), "a checked batch is walked to its end");
    let built = again.take().expect("a batch is never empty");
    assert_eq!(built.bytes, bytes, "one batch has one encoding");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn golden() -> BatchBuilder {
        let mut builder = BatchBuilder::new(
            0x1112_1314_1516_1718,
            0x2122_2324_2526_2728,
            3,
            1 << 20,
            100,
        );
        builder.sequence = 0x3132_3334_3536_3738;
        builder
            .push(0x4142_4344_4546_4748, CommandKind::Put, b"abc")
            .unwrap();
        builder.push(1, CommandKind::Compact, b"").unwrap();
        builder
    }

    #[rustfmt::skip]
    const GOLDEN: &[u8] = &[
        1, 0, 3, 0, 2, 0, 0, 0,
        0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,
        0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21,
        0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31,
        3, 0, 0, 0, 1, 0x48, 0x47, 0x46, 0x45, 0x44, 0x43, 0x42, 0x41, b'a', b'b', b'c',
        0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0,
    ];

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let built = golden().take().unwrap();
        assert_eq!(built.bytes, GOLDEN);
        assert_eq!((built.sequence, built.count), (0x3132_3334_3536_3738, 2));
        let batch = Batch::decode(GOLDEN).unwrap();
        assert_eq!(
            batch.id(),
            BatchId {
                member: 0x1112_1314_1516_1718,
                boot: 0x2122_2324_2526_2728,
                front: 3,
                sequence: 0x3132_3334_3536_3738
            }
        );
        let commands: Vec<_> = batch.commands().collect();
        assert_eq!(commands[0].waiter, 0x4142_4344_4546_4748);
        assert_eq!(
            (commands[0].kind, commands[0].body),
            (CommandKind::Put, &b"abc"[..])
        );
        assert_eq!(
            commands[1],
            Command {
                waiter: 1,
                kind: CommandKind::Compact,
                body: b""
            }
        );
        assert_eq!(commands.len(), 2);
    }

    #[test]
    fn every_shorter_or_longer_form_is_refused() {
        for len in 0..GOLDEN.len() {
            let error = Batch::decode(&GOLDEN[..len]).unwrap_err();
            assert_eq!(error, CommandError::Truncated { len });
        }
        let mut longer = GOLDEN.to_vec();
        longer.push(0);
        assert_eq!(
            Batch::decode(&longer),
            Err(CommandError::TrailingBytes { at: GOLDEN.len() })
        );
    }

    #[test]
    fn each_wrong_field_is_named() {
        let with = |at: usize, value: u8| {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] = value;
            Batch::decode(&bytes).unwrap_err()
        };
        assert_eq!(with(0, 2), CommandError::UnknownVersion(2));
        assert_eq!(with(1, 1), CommandError::UnknownFlags(1));
        assert_eq!(with(COUNT_AT, 0), CommandError::Empty);
        assert_eq!(
            with(COUNT_AT, 3),
            CommandError::Truncated { len: GOLDEN.len() }
        );
        assert_eq!(with(COUNT_AT, 1), CommandError::TrailingBytes { at: 48 });
        assert_eq!(with(36, 0), CommandError::UnknownKind { at: 32, kind: 0 });
        assert_eq!(with(36, 99), CommandError::UnknownKind { at: 32, kind: 99 });
        assert_eq!(
            with(35, 0xff),
            CommandError::BodyTooLong {
                at: 32,
                len: 0xff00_0003
            }
        );
    }

    #[test]
    fn every_flipped_bit_is_refused_or_read_as_written() {
        for bit in 0..GOLDEN.len() * 8 {
            let mut bytes = GOLDEN.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fuzz_batch(&bytes);
        }
    }

    #[test]
    fn a_full_batch_refuses_and_keeps_what_it_has() {
        let mut builder = BatchBuilder::new(1, 1, 0, BATCH_HEADER + 2 * (COMMAND_HEADER + 10), 9);
        builder.push(1, CommandKind::Put, &[7; 10]).unwrap();
        builder.push(2, CommandKind::Put, &[8; 10]).unwrap();
        assert_eq!(builder.push(3, CommandKind::Put, b""), Err(BatchFull));
        let first = builder.take().unwrap();
        assert_eq!((first.count, first.sequence), (2, 1));
        assert!(builder.take().is_none());

        // A command over the bound travels alone, and nothing joins it.
        builder.push(3, CommandKind::Txn, &[9; 1000]).unwrap();
        assert_eq!(builder.push(4, CommandKind::Put, b""), Err(BatchFull));
        let second = builder.take().unwrap();
        assert_eq!((second.count, second.sequence), (1, 2));
        assert_eq!(
            Batch::decode(&second.bytes)
                .unwrap()
                .commands()
                .next()
                .unwrap()
                .body
                .len(),
            1000
        );
    }

    #[test]
    fn commands_are_taken_out_of_a_batch() {
        let batch = Batch::decode(GOLDEN).unwrap();
        let whole = batch.keep(|_| true).unwrap();
        assert_eq!(whole.bytes, GOLDEN);
        let one = batch.keep(|command| command.waiter == 1).unwrap();
        let one = Batch::decode(&one.bytes).unwrap();
        assert_eq!((one.id(), one.count()), (batch.id(), 1));
        assert!(batch.keep(|_| false).is_none());
    }

    #[test]
    fn the_number_of_commands_is_bounded_too() {
        let mut builder = BatchBuilder::new(1, 1, 0, 1 << 20, 2);
        builder.push(1, CommandKind::Put, b"a").unwrap();
        builder.push(2, CommandKind::Put, b"b").unwrap();
        assert_eq!(builder.push(3, CommandKind::Put, b"c"), Err(BatchFull));
    }

    proptest! {
        #[test]
        fn what_is_built_is_decoded(
            commands in prop::collection::vec(
                (any::<u64>(), 1u8..=9, prop::collection::vec(any::<u8>(), 0..200)), 1..40),
        ) {
            let mut builder = BatchBuilder::new(7, 8, 9, usize::MAX, u32::MAX);
            for (waiter, kind, body) in &commands {
                let kind = CommandKind::from_code(*kind).unwrap();
                builder.push(*waiter, kind, body).unwrap();
            }
            let built = builder.take().unwrap();
            let batch = Batch::decode(&built.bytes).unwrap();
            prop_assert_eq!(batch.count() as usize, commands.len());
            for (read, (waiter, kind, body)) in batch.commands().zip(&commands) {
                prop_assert_eq!(read.waiter, *waiter);
                prop_assert_eq!(read.kind as u8, *kind);
                prop_assert_eq!(read.body, &body[..]);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz_batch(&bytes);
            if bytes.len() > 8 {
                // Past the first checks more often than chance would get.
                bytes[0] = VERSION;
                bytes[1] = 0;
                bytes[4..8].copy_from_slice(&[1, 0, 0, 0]);
                fuzz_batch(&bytes);
            }
        }
    }
}
