//! The formats to the byte, and decoding hostile bytes.

use super::*;

fn sample_leaf() -> Box<PageBytes> {
    let mut bytes = Box::new([0; PAGE]);
    let page = page_mut(&mut bytes);
    page.init(7, 0x0102, 0);
    let mut cell = CellBuf::default();
    assert!(page.insert(0, cell.leaf(StoredKey::new(b"b", None), &[b"two"], true)));
    assert!(page.insert(
        0,
        cell.leaf(StoredKey::new(b"a", None), &[b"on", b"e"], false)
    ));
    let run = Run {
        id: 0x99,
        crc: 0xaabb_ccdd,
        len: 2000,
    };
    assert!(page.insert(2, cell.leaf_run(StoredKey::new(b"c", None), run, true)));
    bytes
}

fn sample_branch() -> Box<PageBytes> {
    let mut bytes = Box::new([0; PAGE]);
    let page = page_mut(&mut bytes);
    page.init(8, 3, 1);
    let mut cell = CellBuf::default();
    let child = |id| Child {
        id,
        crc: 0x1122_3344,
        counted: 5,
    };
    assert!(page.insert(0, cell.branch(StoredKey::new(b"", None), child(2))));
    let key = [b'k'; 600];
    let run = Run {
        id: 0x55,
        crc: 0x0506_0708,
        len: 600,
    };
    assert!(page.insert(1, cell.branch(StoredKey::new(&key, Some(run)), child(3))));
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_leaf() {
    let bytes = sample_leaf();
    assert_eq!(
        hex(&bytes[..30]),
        concat!(
            "4c",
            "00",
            "0300",
            "d80f",
            "0000",
            "0700000000000000",
            "0201000000000000",
            "ee0f",
            "f70f",
            "d80f"
        )
    );
    assert_eq!(
        hex(&bytes[0xfd8..]),
        concat!(
            "05",
            "0100",
            "1000",
            "63",
            "9900000000000000",
            "ddccbbaa",
            "d0070000",
            "00",
            "0100",
            "0300",
            "61",
            "6f6e65",
            "01",
            "0100",
            "0300",
            "62",
            "74776f"
        )
    );
    assert!(bytes[30..0xfd8].iter().all(|&byte| byte == 0));
    verify(&bytes, 7).expect("well formed");
}

#[test]
fn golden_branch() {
    let bytes = sample_branch();
    assert_eq!(
        hex(&bytes[..28]),
        concat!(
            "42",
            "01",
            "0200",
            "820f",
            "0000",
            "0800000000000000",
            "0300000000000000",
            "e90f",
            "820f"
        )
    );
    let long = format!(
        "{}{}{}{}{}{}{}{}{}",
        "02",
        "5000",
        "0300000000000000",
        "44332211",
        "0500000000000000",
        "5500000000000000",
        "08070605",
        "58020000",
        "6b".repeat(64)
    );
    let first = concat!(
        "00",
        "0000",
        "0200000000000000",
        "44332211",
        "0500000000000000"
    );
    assert_eq!(hex(&bytes[0xf82..]), format!("{long}{first}"));
    verify(&bytes, 8).expect("well formed");
}

fn sample_meta() -> Meta {
    Meta {
        generation: 3,
        txn: 4,
        end: 5,
        live: 2,
        roots: [
            Root {
                id: 2,
                crc: 0x0102_0304,
                level: 1,
                counted: 9,
            },
            Root::default(),
            Root::default(),
        ],
        bitmap: Run {
            id: 4,
            crc: 0x0a0b_0c0d,
            len: 1,
        },
        user: b"user".to_vec(),
    }
}

#[test]
fn golden_meta() {
    let bytes = sample_meta().encode();
    assert_eq!(
        hex(&bytes[..144]),
        [
            "71756f696e747201",
            "01000000",
            "00100000",
            "0300000000000000",
            "0400000000000000",
            "0500000000000000",
            "0200000000000000",
            "0200000000000000",
            "04030201",
            "01000000",
            "0900000000000000",
            &"00".repeat(48),
            "0400000000000000",
            "0d0c0b0a",
            "01000000",
            "04000000",
            "75736572"
        ]
        .concat()
    );
    assert!(bytes[144..4092].iter().all(|&byte| byte == 0));
    let crc = crc32fast::hash(&bytes[..4092]);
    assert_eq!(bytes[4092..], crc.to_le_bytes());
    assert_eq!(Meta::decode(&bytes), Ok(sample_meta()));
}

#[test]
fn damaged_metas_are_told_apart() {
    let good = sample_meta().encode();
    for at in (0..PAGE).step_by(if cfg!(miri) { 411 } else { 1 }) {
        let mut bytes = *good;
        bytes[at] ^= 0x10;
        let fault = Meta::decode(&bytes).expect_err("damaged");
        let foreign = at < 8;
        assert_eq!(fault == MetaFault::Foreign, foreign, "byte {at}: {fault}");
    }
    let mut newer = *good;
    newer[8] = 2;
    let crc = crc32fast::hash(&newer[..4092]);
    newer[4092..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Meta::decode(&newer), Err(MetaFault::Version(2)));
}

/// Mutations of well-formed pages: refused, or readable in every way.
#[test]
fn mutated_pages_never_lead_outside() {
    let mut state = 1u64;
    let mut next = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize
    };
    let rounds = if cfg!(miri) { 2 } else { 40_000 };
    for sample in [sample_leaf(), sample_branch(), sample_meta().encode()] {
        for _ in 0..rounds {
            let mut bytes = *sample;
            for _ in 0..1 + next() % 3 {
                // The header, the slots and the cells are at both ends.
                let at = match next() % 2 {
                    0 => next() % 40,
                    _ => PAGE - 1 - next() % 130,
                };
                bytes[at] = match next() % 3 {
                    0 => bytes[at] ^ (1 << (next() % 8)),
                    1 => [0, 1, 0x7f, 0x80, 0xff][next() % 5],
                    _ => next() as u8,
                };
            }
            fuzz_page(&bytes);
        }
    }
    for len in [0, 1, 24, 4095] {
        fuzz_page(&vec![0xff; len]);
    }
}

/// Whatever a page is said to lie between, as long as it is true, a search finds the same.
#[test]
fn guesses_find_what_halving_finds() {
    let mut random = 1u64;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (random >> 33) % below
    };
    for round in 0..if cfg!(miri) { 3 } else { 300 } {
        // Evenly spread, bunched together, and alike but for the last bytes.
        let width = [1 << 31, 40, 3][round % 3];
        let prefix = vec![b'p'; next(12) as usize];
        let mut keys: Vec<Vec<u8>> = (0..2 + next(60))
            .map(|_| {
                let mut key = prefix.clone();
                key.extend((0..next(4)).map(|_| next(width) as u8));
                key.extend((next(width) as u32).to_be_bytes());
                key
            })
            .collect();
        keys.sort();
        keys.dedup();
        let mut bytes = [0; PAGE];
        let page = page_mut(&mut bytes);
        page.init(2, 1, 1);
        let mut cell = CellBuf::default();
        let child = Child {
            id: 3,
            ..Child::default()
        };
        for (at, key) in keys.iter().enumerate() {
            // The first key of a branch is its lower bound, and stands with its parent.
            let key = if at == 0 { &[][..] } else { key };
            assert!(page.insert(at, cell.branch(StoredKey::new(key, None), child)));
        }
        let mut end = keys.last().unwrap().clone();
        end.push(0xff);
        // A parent with the page as its middle child.
        let mut parent = [0; PAGE];
        let parent = page_mut(&mut parent);
        parent.init(4, 1, 2);
        for (at, key) in [&[][..], &keys[0], &end].into_iter().enumerate() {
            assert!(parent.insert(at, cell.branch(StoredKey::new(key, None), child)));
        }
        let between = parent.between(1, Between::default());
        let load = |_: Run| Err::<&[u8], ()>(());
        for key in &keys {
            for key in [key.clone(), [key.as_slice(), &[0]].concat()] {
                let plain = page.route(&key, Between::default(), &load).unwrap();
                assert_eq!(page.route(&key, between, &load).unwrap(), plain);
                assert_eq!(plain, keys.partition_point(|k| *k <= key) - 1);
            }
        }
    }
}
