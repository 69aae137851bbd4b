//! A full disk: writes that add are refused and the alarm is raised; what frees goes on, and so do
//! reads and checkpoints; and only whoever takes the alarm back opens the store again.

use super::leases::{Bench, SECOND};
use super::node::Settings;
use super::rules;
use quoin::api::{
    Alarm, AlarmAction, AlarmKind, AlarmRequest, CompactRequest, DeleteRangeRequest, PutRequest,
    Request,
};
use quoin::apply::{alarms, is_raised};
use quoin_storage::disk::sim::SimDisk;

const MIB: u64 = 1 << 20;

fn settings(boot: u64) -> Settings {
    let mut settings = rules::settings(boot);
    settings.segment_bytes = 64 * 4096;
    settings.tree.spare_bytes = MIB;
    settings.tree.young_bytes_max = 8 * MIB;
    settings.checkpoint.interval_ns = SECOND;
    settings.checkpoint.log_bytes = 200_000;
    settings
}

impl Bench {
    /// Puts one key, over and over; says whether it was refused.
    fn put_refused(&mut self, number: u64) -> bool {
        let key = format!("key-{number:06}");
        let put = PutRequest {
            key: key.as_bytes(),
            value: &[b'v'; 2_000],
            ..PutRequest::default()
        };
        let before = self.failed;
        self.propose(&[Request::Put(put)]);
        self.failed > before
    }

    /// Puts until one is refused, and lets the alarm be raised.
    fn fill(&mut self) -> u64 {
        let mut number = 0;
        while !self.put_refused(number) {
            number += 1;
            assert!(number < 20_000, "the disk has no end");
            self.pass(SECOND / 50);
        }
        self.pass(SECOND);
        number
    }

    fn raised(&self) -> Vec<Alarm> {
        let snapshot = self.node.reader.pin();
        let raised = alarms(&snapshot, None).expect("a sound tree");
        let meta = self.node.order.applier().meta();
        assert_eq!(is_raised(meta, AlarmKind::NoSpace), !raised.is_empty());
        raised
    }

    fn disarm(&mut self) {
        self.propose(&[Request::Alarm(AlarmRequest {
            action: AlarmAction::Deactivate,
            member_id: 1,
            alarm: Some(AlarmKind::NoSpace),
        })]);
    }

    fn delete_all(&mut self) {
        let failed = self.failed;
        self.propose(&[Request::DeleteRange(DeleteRangeRequest {
            key: b"key-",
            range_end: b"key.",
            ..DeleteRangeRequest::default()
        })]);
        let revision = self.node.order.applier().meta().revision;
        self.propose(&[Request::Compact(CompactRequest {
            revision,
            physical: false,
        })]);
        assert_eq!(self.failed, failed, "what frees is not refused");
        let mut waited = 0;
        while self.node.order.applier().has_background() {
            self.pass(SECOND);
            waited += 1;
            assert!(waited < 1_000, "the compaction goes on");
        }
        // Pages are free once two checkpoints have passed.
        self.pass(5 * SECOND);
    }
}

const ALARM: Alarm = Alarm {
    kind: AlarmKind::NoSpace,
    member_id: 1,
};

#[test]
fn a_full_disk_raises_the_alarm_and_deletes_and_compaction_go_on() {
    let disk = SimDisk::new(5);
    disk.set_capacity(6 * MIB);
    let mut bench = Bench::on(disk, settings);
    let written = bench.fill();
    assert!(written > 100, "{written} writes");
    assert_eq!(bench.raised(), [ALARM]);
    assert!(bench.put_refused(0), "what replaces adds, too");
    assert_eq!(bench.keys().0.len() as u64, written, "reads go on");
    // More space alone changes nothing, nor does a restart: somebody is to look.
    bench.delete_all();
    bench.disk.set_capacity(100 * MIB);
    bench.pass(5 * SECOND);
    assert_eq!(bench.raised(), [ALARM]);
    assert!(bench.put_refused(0));
    for power in [false, true] {
        bench.restart(power, SECOND);
        assert_eq!(bench.raised(), [ALARM]);
        assert!(bench.put_refused(0));
    }
    bench.disarm();
    assert_eq!(bench.raised(), []);
    assert!(!bench.put_refused(0));
    bench.pass(5 * SECOND);
    assert_eq!(bench.raised(), [], "nothing was refused since");
}

#[test]
fn a_disk_that_is_still_full_raises_the_alarm_again() {
    let disk = SimDisk::new(6);
    disk.set_capacity(6 * MIB);
    let mut bench = Bench::on(disk, settings);
    bench.fill();
    assert_eq!(bench.raised(), [ALARM]);
    bench.disarm();
    assert_eq!(bench.raised(), []);
    assert!(bench.put_refused(0), "there is no more space than before");
    bench.pass(2 * SECOND);
    assert_eq!(bench.raised(), [ALARM]);
    bench.delete_all();
    bench.disarm();
    assert!(!bench.put_refused(0), "what was freed is used");
}

#[test]
fn a_log_without_space_raises_the_alarm_as_soon_as_it_has_some() {
    let disk = SimDisk::new(7);
    let mut bench = Bench::on(disk, settings);
    for number in 0..50 {
        assert!(!bench.put_refused(number));
    }
    // Not a byte more: the tree holds its spare, the log can make no segment.
    let used = bench.disk.used_bytes();
    bench.disk.set_capacity(used);
    let mut refused = false;
    for number in 0..400 {
        refused |= bench.put_refused(number);
    }
    assert!(refused, "a log that is full takes no writes");
    bench.disk.set_capacity(100 * MIB);
    bench.pass(5 * SECOND);
    assert_eq!(bench.raised(), [ALARM]);
    bench.disarm();
    assert!(!bench.put_refused(0));
}
