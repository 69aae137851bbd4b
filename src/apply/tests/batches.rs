//! How entries are gathered into transactions of the tree, and where a crash cuts them, must
//! show in no outcome.

use super::random::request;
use super::*;
use proptest::prelude::*;

type Outcomes = Vec<(u64, Outcome)>;

/// Entries of one or more commands, each command with its own number.
pub fn entries(history: &[Request<'static>], sizes: &[usize]) -> Vec<Entry<'static, u64>> {
    let mut commands = history.iter().enumerate().map(|(at, request)| Command {
        waiter: at as u64,
        request: request.clone(),
    });
    let mut entries = Vec::new();
    for (at, size) in sizes.iter().cycle().enumerate() {
        let commands: Vec<_> = commands.by_ref().take(*size).collect();
        // Entries of no commands are part of every log.
        if commands.is_empty() && *size > 0 {
            break;
        }
        let index = at as u64 + 1;
        let conf_state = index.is_multiple_of(5).then(|| vec![at as u8]);
        entries.push(Entry {
            index,
            term: 1 + index / 7,
            bytes: 100,
            conf_state,
            commands,
        });
    }
    entries
}

pub fn open(store: MapStore, commands: usize) -> Applier<MapStore, u64> {
    Applier::open(
        store,
        BatchLimits {
            commands,
            bytes: 450,
        },
    )
    .unwrap()
}

/// Purges to the end; the outcomes of physical compactions come last, so sort them in.
pub fn finish<S: Store>(applier: &mut Applier<S, u64>, mut outcomes: Outcomes) -> Outcomes {
    while applier.has_background() {
        applier.background(3, &mut outcomes).unwrap();
    }
    outcomes.sort_by_key(|(waiter, _)| *waiter);
    outcomes
}

fn run_one_by_one(entries: &[Entry<'static, u64>]) -> (Applier<MapStore, u64>, Outcomes) {
    let mut applier = open(MapStore::default(), 1);
    let mut outcomes = Vec::new();
    for entry in entries {
        applier
            .apply(
                std::slice::from_ref(entry),
                &mut { usize::MAX },
                &mut outcomes,
            )
            .unwrap();
    }
    let outcomes = finish(&mut applier, outcomes);
    (applier, outcomes)
}

proptest! {
    #[test]
    fn outcomes_do_not_depend_on_the_batches(
        history in prop::collection::vec(request(), 1..60),
        sizes in prop::collection::vec(0..5usize, 1..4).prop_filter("progress", |s| s.iter().any(|&s| s > 0)),
        turns in prop::collection::vec(1..8usize, 1..5),
        commands in 1..12usize,
    ) {
        let entries = entries(&history, &sizes);
        let (one, expected) = run_one_by_one(&entries);
        prop_assert_eq!(expected.len(), history.len());
        let mut applier = open(MapStore::default(), commands);
        let mut outcomes = Vec::new();
        let mut rest = &entries[..];
        for turn in turns.iter().cycle() {
            let (now, later) = rest.split_at((*turn).min(rest.len()));
            applier.apply(now, &mut { usize::MAX }, &mut outcomes).unwrap();
            rest = later;
            if rest.is_empty() {
                break;
            }
            if turn % 2 == 0 {
                applier.background(1, &mut outcomes).unwrap();
            }
        }
        let outcomes = finish(&mut applier, outcomes);
        prop_assert_eq!(outcomes, expected);
        prop_assert_eq!(applier.meta(), one.meta());
        prop_assert_eq!(&applier.store().tree, &one.store().tree);
    }

    #[test]
    fn a_replay_applies_each_entry_once(
        history in prop::collection::vec(request(), 1..40),
        durable in 0..40usize,
        applied in 0..40usize,
        back in 0..40usize,
    ) {
        let entries = entries(&history, &[2, 0, 1]);
        let (one, expected) = run_one_by_one(&entries);
        let durable = durable.min(entries.len());
        let applied = applied.clamp(durable, entries.len());
        // What a checkpoint has saved, and what was published after it and is lost.
        let mut applier = open(MapStore::default(), 4);
        applier.apply(&entries[..durable], &mut { usize::MAX }, &mut Vec::new()).unwrap();
        let saved = applier.store().clone();
        applier.apply(&entries[durable..applied], &mut { usize::MAX }, &mut Vec::new()).unwrap();
        // The log may begin before what the checkpoint covers.
        let mut applier = open(saved, 3);
        let mut outcomes = Vec::new();
        applier.apply(&entries[durable.saturating_sub(back)..], &mut { usize::MAX }, &mut outcomes).unwrap();
        let outcomes = finish(&mut applier, outcomes);
        let before: usize = entries[..durable].iter().map(|entry| entry.commands.len()).sum();
        prop_assert_eq!(&outcomes, &expected[before..]);
        prop_assert_eq!(applier.meta(), one.meta());
        prop_assert_eq!(&applier.store().tree, &one.store().tree);
    }
}

#[test]
fn a_batch_is_one_transaction_of_the_tree() {
    let put = |value: &'static [u8]| {
        Request::Put(PutRequest {
            key: b"k",
            value,
            ..Default::default()
        })
    };
    let history: Vec<_> = (0..10).map(|_| put(b"v")).collect();
    let entries = entries(&history, &[1]);
    let mut applier = Applier::open(
        MapStore::default(),
        BatchLimits {
            commands: 4,
            ..Default::default()
        },
    )
    .unwrap();
    let mut outcomes = Vec::new();
    applier
        .apply(&entries, &mut { usize::MAX }, &mut outcomes)
        .unwrap();
    assert_eq!(applier.store().commits, 3, "four, four and two commands");
    let revisions: Vec<_> = outcomes
        .iter()
        .map(|(_, outcome)| outcome.clone())
        .collect();
    let expected: Vec<_> = (2..12).map(|revision| Outcome::Put { revision }).collect();
    assert_eq!(revisions, expected);
}

#[test]
fn a_physical_compaction_is_answered_when_the_purge_is_done() {
    let mut server = Server::new();
    for value in ["1", "2", "3", "4", "5"] {
        server.put("k", value);
    }
    let request = Request::Compact(CompactRequest {
        revision: 6,
        physical: true,
    });
    let commands = vec![Command {
        waiter: 77,
        request,
    }];
    let index = server.applier.meta().applied_index + 1;
    let entry = Entry {
        index,
        term: 1,
        bytes: 1,
        conf_state: None,
        commands,
    };
    let mut outcomes = Vec::new();
    server
        .applier
        .apply(&[entry], &mut { usize::MAX }, &mut outcomes)
        .unwrap();
    assert_eq!(outcomes, []);
    assert_eq!(
        server.range(RangeRequest {
            revision: 5,
            ..all()
        }),
        Err(Error::Compacted)
    );
    let mut slices = 0;
    while outcomes.is_empty() {
        assert!(server.applier.has_background());
        server.applier.background(2, &mut outcomes).unwrap();
        slices += 1;
    }
    assert_eq!(slices, 3, "five events, two at a time");
    let response = Box::new(Response::Compact);
    assert_eq!(
        outcomes,
        [(
            77,
            Outcome::Done {
                revision: 6,
                response
            }
        )]
    );
    assert_eq!(server.applier.store().tree.len(TreeId::Revision), 1);
}

#[test]
#[should_panic(expected = "the log has a gap")]
fn a_gap_in_the_log_stops_everything() {
    let entry = |index| Entry {
        index,
        term: 1,
        bytes: 0,
        conf_state: None,
        commands: vec![],
    };
    let mut applier = open(MapStore::default(), 9);
    let _ = applier.apply(&[entry(1), entry(3)], &mut { usize::MAX }, &mut Vec::new());
}

#[test]
fn an_answer_without_room_is_left_out_but_its_write_takes_place() {
    let mut server = Server::new();
    server.put("a", &"x".repeat(1000));
    let put = Request::Put(PutRequest {
        key: b"a",
        ignore_value: true,
        prev_kv: true,
        ..Default::default()
    });
    let answers = |server: &mut Server| {
        let index = server.applier.meta().applied_index + 1;
        let command = Command {
            waiter: 0,
            request: put.clone(),
        };
        let entry = Entry {
            index,
            term: 1,
            bytes: 0,
            conf_state: None,
            commands: vec![command; 3],
        };
        let mut outcomes = Vec::new();
        let applied = server.applier.apply(&[entry], &mut 2500, &mut outcomes);
        applied.unwrap();
        outcomes
            .iter()
            .map(|(_, outcome)| match outcome {
                Outcome::Failed { error, .. } => Err(*error),
                _ => Ok(()),
            })
            .collect::<Vec<_>>()
    };
    // Two of the three fit; the next turn has room again.
    for _ in 0..2 {
        let expected = [Ok(()), Ok(()), Err(Error::ResponseTooLarge)];
        assert_eq!(answers(&mut server), expected);
    }
    assert_eq!(server.revision(), 8, "all six were written");
    assert!(Error::ResponseTooLarge.outcome_unknown());
}
