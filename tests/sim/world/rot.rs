//! What a start makes of files that rotted while the node was stopped, and of a disk that fails to
//! read them: it refuses and says where, or nothing is lost.

use super::super::node::{Node, Stopped, TREE};
use super::{MS, World};
use quoin::node::messages::{FrontId, FrontInput, OrderOutput};
use quoin_storage::disk::Disk;
use quoin_storage::disk::sim::SimDisk;
use quoin_storage::mvcc::Horizon;
use quoin_storage::tree::{TreeError, check};

const PAGE: u64 = 4096;

impl World {
    /// Turns one bit over in a copy of the files, as a start has left them that then was stopped.
    /// Such a start has confirmed the newest batch of the log, so that no rot may pass for a
    /// write that was torn.
    pub(super) fn rot(&mut self) {
        let mut disk = self.disk.kill();
        if self.chance.one_in(2) {
            disk = disk.crash();
        }
        let names = disk.list().expect("the power is on");
        let name = &names[self.chance.below(names.len() as u64) as usize];
        let bytes = disk.bytes(name).expect("listed just now");
        if bytes.is_empty() {
            return;
        }
        // Most bytes are zeros of blocks that nobody uses; the others are more telling.
        let mut byte = 0;
        for _ in 0..20 {
            byte = self.chance.below(bytes.len() as u64);
            if bytes[byte as usize] != 0 {
                break;
            }
        }
        let bit = self.chance.below(8) as u8;
        disk.flip_bit(name, byte, bit);
        self.rotted += 1;
        let place = format!("bit {bit} of byte {byte} of {name}");
        if name == TREE
            && let Err(error) = check(&disk, TREE)
        {
            // A long value is named by its first page.
            let at = byte / PAGE;
            let named = match error {
                TreeError::Corrupt { page, .. } => page <= at && at < page + 4,
                _ => false,
            };
            assert!(named, "{place}: {error}");
            self.refused += 1;
            return;
        }
        match self.sound_start(&disk) {
            Ok(()) => {}
            Err(Stopped(why)) => {
                assert!(
                    name != TREE && why.contains(name.as_str()),
                    "{place}: {why}"
                );
                self.refused += 1;
            }
        }
    }

    /// Starts a node that nothing disturbs, and compares all that it has once it has taken in its
    /// log.
    fn sound_start(&mut self, disk: &SimDisk) -> Result<(), Stopped> {
        let (seed, mut now_ns) = (self.chance.next_u64(), self.now_ns);
        let mut node = Node::start(disk, &self.settings(), seed, now_ns)?;
        let mut leads = false;
        for _ in 0..1000 {
            now_ns += MS;
            for output in node.turn(now_ns)? {
                leads |= matches!(
                    output,
                    OrderOutput::Front(FrontId(0), FrontInput::LocalReads(true))
                );
            }
            if leads {
                break;
            }
            node.log_step(10)?;
            node.checkpoint_step()?;
        }
        assert!(leads, "the node never leads");
        let snapshot = node.reader.pin();
        let horizon = Horizon::decode(snapshot.user()).expect("a horizon");
        self.journal.clone().check_all(&snapshot, horizon);
        Ok(())
    }

    /// The disk is to fail one of the next reads.
    pub(super) fn fail_a_read(&mut self) {
        let next = self.disk.reads() + 1;
        self.disk.fail_read_at(next + self.chance.below(16));
    }

    /// A start has failed though the power is on: it must have been such a read.
    pub(super) fn unread(&mut self, why: &str) {
        let names = self.disk.list().expect("the power is on");
        let named = names.iter().any(|name| why.contains(name.as_str()));
        assert!(named && why.contains("read"), "it refuses to start: {why}");
        self.unread += 1;
        self.disk = self.disk.kill();
    }
}
