//! The rules of the house, held by a test: which folder may know which, where time, chance and
//! I/O may enter, and how long a file may grow.

use std::fs;
use std::path::{Path, PathBuf};

/// Folder or file of a crate -> the modules of that crate that it may name.
type Directions = [(&'static str, &'static [&'static str])];

const MAY_USE: &Directions = &[
    ("api", &[]),
    ("limits", &[]),
    ("chance", &[]),
    ("wire", &["api"]),
    ("etcd", &["api"]),
    ("client", &["wire", "api"]),
    ("propose", &["wire", "api", "limits"]),
    ("consensus", &["limits", "chance", "propose"]),
    ("apply", &["wire", "api", "limits", "propose"]),
    ("lease", &["api", "limits"]),
    ("watch", &["api", "limits", "chance"]),
    (
        "node",
        &[
            "wire",
            "etcd",
            "api",
            "limits",
            "chance",
            "propose",
            "consensus",
            "apply",
            "lease",
            "watch",
        ],
    ),
    (
        "runtime",
        &[
            "wire",
            "etcd",
            "api",
            "limits",
            "chance",
            "propose",
            "consensus",
            "apply",
            "node",
        ],
    ),
];

/// The same for the storage crate.
const STORAGE_MAY_USE: &Directions = &[
    ("disk", &[]),
    ("log", &["disk"]),
    ("page", &["disk"]),
    ("tree", &["disk", "page"]),
    ("mvcc", &["tree"]),
    ("snapshot", &["mvcc", "tree"]),
];

/// External crates that few places may name: the crate, and the path prefixes of its homes. Of
/// tokio the server has the traits by which the HTTP/2 codec knows a socket, and nothing else.
const QUARANTINED: &[(&str, &[&str])] = &[
    ("glommio", &["src/runtime/"]),
    ("io_uring", &["storage/src/disk/"]),
    ("raft", &["src/consensus/"]),
    ("h2", &["src/runtime/http2"]),
    ("hyper", &["src/runtime/http"]),
    ("tokio", &["src/client/", "src/runtime/http_io.rs"]),
];

/// Folders whose code takes time, chance and I/O as inputs.
const PURE: &[&str] = &[
    "src/api.rs",
    "src/api/",
    "src/chance.rs",
    "src/wire/",
    "src/etcd/",
    "src/propose/",
    "src/consensus/",
    "src/apply/",
    "src/watch/",
    "src/lease/",
    "src/node/",
    "storage/src/log/",
    "storage/src/page/",
    "storage/src/tree/",
    "storage/src/mvcc/",
    "storage/src/snapshot/",
];

/// What must not stand in them.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "std::net",
    "std::fs",
    "std::thread",
    "thread_rng",
    "rand::random",
    "getrandom",
    "RandomState",
];

/// Where unsafe code may stand, each block with its argument.
const UNSAFE_HOMES: &[&str] = &[
    "storage/src/disk/",
    "storage/src/page/cast.rs",
    "storage/src/tree/frames.rs",
    "storage/src/tree/publish.rs",
    "src/runtime/",
    "bench/",
];

/// The most lines a file may have.
const LINES_MAX: usize = 800;

/// Files that are longer today; a number here may only fall.
const LONGER: &[(&str, usize)] = &[];

/// What the top folder holds, dotfiles and what git ignores aside.
const TOP: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "bench",
    "docs",
    "src",
    "storage",
    "tests",
    "tools",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        let hidden = path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden && !path.ends_with("target") {
            collect(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// Every Rust file below the given folders: its path from the top, and its text.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut paths);
    }
    assert!(!paths.is_empty(), "no sources below {folders:?}");
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source file is text");
            let name = path
                .strip_prefix(root())
                .expect("below the top")
                .display()
                .to_string();
            (name, text)
        })
        .collect()
}

/// The text before the test module, without comment lines.
fn product_code(text: &str) -> String {
    let body = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    body.lines()
        .filter(|l| !l.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether a file exists only in tests: by its name, or because a feature for tests holds it.
fn is_test_file(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    name.contains("/tests/") || last.contains("test") || last == "sim.rs" || last == "model.rs"
}

fn leading_name(text: &str) -> String {
    text.trim_start()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// The modules of the own crate that a piece of code names.
fn named_modules(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let names = match rest.strip_prefix('{') {
            Some(list) => list
                .split('}')
                .next()
                .unwrap_or("")
                .split(',')
                .map(leading_name)
                .collect(),
            None => vec![leading_name(rest)],
        };
        found.extend(names.into_iter().filter(|n| !n.is_empty()));
    }
    found
}

fn check_directions(base: &str, table: &Directions, wrong: &mut Vec<String>) {
    for (name, text) in sources(&[base]) {
        if is_test_file(&name) {
            continue;
        }
        let inner = name[base.len()..].trim_start_matches('/');
        let own = inner.split(['/', '.']).next().unwrap_or("");
        if ["lib", "main"].contains(&own) {
            continue;
        }
        let Some((_, allowed)) = table.iter().find(|(m, _)| *m == own) else {
            wrong.push(format!("{name}: the folder `{own}` is not in the table"));
            continue;
        };
        for used in named_modules(&product_code(&text)) {
            let known = table.iter().any(|(m, _)| *m == used);
            if known && used != own && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{name}: `{own}` must not know `{used}`"));
            }
        }
    }
}

/// Whether the code names an external crate (and not a module whose name ends alike).
fn names_crate(code: &str, krate: &str) -> bool {
    code.match_indices(&format!("{krate}::")).any(|(at, _)| {
        let before = code[..at].strip_suffix("::").unwrap_or(&code[..at]);
        before.len() == at && !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
    })
}

fn report(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn folders_know_only_what_the_table_allows() {
    let mut wrong = Vec::new();
    check_directions("src", MAY_USE, &mut wrong);
    check_directions("storage/src", STORAGE_MAY_USE, &mut wrong);
    report(wrong);
}

#[test]
fn the_direction_check_sees_grouped_and_single_names() {
    let code =
        "use crate::{apply::range, node};\nuse crate::runtime::x;\nfn f(y: mycrate::wire) {}";
    assert_eq!(named_modules(code), ["apply", "node", "runtime"]);
}

#[test]
fn quarantined_crates_stay_in_their_folder() {
    let mut wrong = Vec::new();
    for (name, text) in sources(&["src", "storage/src"]) {
        let code = product_code(&text);
        for (krate, homes) in QUARANTINED {
            if names_crate(&code, krate) && !homes.iter().any(|home| name.starts_with(home)) {
                wrong.push(format!("{name}: `{krate}` belongs in {homes:?}"));
            }
        }
    }
    report(wrong);
}

#[test]
fn the_crate_check_tells_a_crate_from_a_module() {
    assert!(names_crate("use raft::Ready;", "raft"));
    assert!(!names_crate("use crate::raft::Ready;", "raft"));
    assert!(!names_crate("use my_raft::Ready;", "raft"));
}

#[test]
fn pure_folders_take_time_chance_and_io_as_inputs() {
    let mut wrong = Vec::new();
    for (name, text) in sources(&["src", "storage/src"]) {
        if !PURE.iter().any(|p| name.starts_with(p)) || is_test_file(&name) {
            continue;
        }
        let code = product_code(&text);
        wrong.extend(
            IMPURE
                .iter()
                .filter(|word| code.contains(**word))
                .map(|w| format!("{name}: `{w}`")),
        );
    }
    report(wrong);
}

#[test]
fn every_file_says_what_it_is_and_can_be_read_in_one_sitting() {
    let mut wrong = Vec::new();
    for (name, text) in sources(&["src", "storage", "bench", "tools", "tests"]) {
        if !text.starts_with("//!") && !text.starts_with("#![") {
            wrong.push(format!("{name}: no module comment at the top"));
        }
        let allowed = LONGER
            .iter()
            .find(|(n, _)| *n == name)
            .map_or(LINES_MAX, |(_, lines)| *lines);
        let lines = text.lines().count();
        if lines > allowed {
            wrong.push(format!("{name}: {lines} lines, at most {allowed}"));
        }
    }
    report(wrong);
}

#[test]
fn unsafe_code_stays_in_the_files_that_need_it() {
    let mut wrong = Vec::new();
    for (name, text) in sources(&["src", "storage/src", "bench", "tools"]) {
        let code = product_code(&text);
        let has = ["unsafe {", "unsafe fn", "unsafe impl"]
            .iter()
            .any(|w| code.contains(w));
        if has && !UNSAFE_HOMES.iter().any(|h| name.starts_with(h)) {
            wrong.push(name);
        }
    }
    report(wrong);
}

#[test]
fn the_top_folder_holds_only_the_house() {
    for entry in fs::read_dir(root()).expect("the top folder") {
        let name = entry
            .expect("a readable entry")
            .file_name()
            .to_string_lossy()
            .into_owned();
        let ignored = ["target", "build", "proptest-regressions"].contains(&name.as_str());
        let known = TOP.contains(&name.as_str()) || ignored || name.starts_with('.');
        assert!(known, "{name} does not belong at the top");
    }
}
