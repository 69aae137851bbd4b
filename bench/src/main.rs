//! quoin-bench: the load tool. It drives quoin, etcd and Redis, measures this machine's own
//! limits, and compares the servers with each other.

mod args;

mod options;

mod keys;

mod workload;

mod watching;

mod pace;

mod record;

mod expiry;

mod os;

mod driver;

mod run;

mod report;

mod floor;

mod compare;

mod storage;

use std::process::ExitCode;

use args::Flag;
use options::{Options, Workload};
use report::Outcome;
use watching::{Kind, Plan};

const COMMANDS: &[(&str, &str)] = &[
    ("put", "write single keys"),
    ("get", "read single keys"),
    ("range", "read intervals of keys"),
    ("txn", "run transactions of a condition, a write and a read"),
    ("mixed", "read and write single keys"),
    ("keepalive", "renew leases"),
    (
        "watch",
        "tell many watches of one key, and check all that they are told",
    ),
    (
        "watch-latency",
        "the time from a write to each of its watches, at a rate of writes",
    ),
    (
        "lease-churn",
        "let many leases run out within a second, beside writes",
    ),
    (
        "registry",
        "instances of services with leases, and those who list and watch them",
    ),
    (
        "floor",
        "measure this machine's limits: synced write, loopback round trip",
    ),
    (
        "storage",
        "the storage engine alone, beside LMDB; 'storage overwrite': the space it takes",
    ),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("quoin-bench: {message}");
            ExitCode::from(2)
        }
    }
}

fn dispatch(args: &[String]) -> Result<ExitCode, String> {
    let Some((command, rest)) = args.split_first() else {
        print!("{}", usage());
        return Ok(ExitCode::from(2));
    };
    match command.as_str() {
        "put" => load(Workload::Put, rest),
        "get" => load(Workload::Get, rest),
        "range" => load(Workload::Range, rest),
        "txn" => load(Workload::Txn, rest),
        "mixed" => load(Workload::Mixed { reads: 0.5 }, rest),
        "keepalive" => load(Workload::KeepAlive, rest),
        "lease-churn" => with_flags(command, expiry::FLAGS, rest, |parsed| {
            let plan = expiry::Plan::from_args(parsed)?;
            report(&expiry::run(&plan)?.0, plan.options())
        }),
        "watch" => watch(Kind::FanOut, command, rest),
        "watch-latency" => watch(Kind::Latency, command, rest),
        "registry" => watch(Kind::Registry, command, rest),
        "floor" => with_flags(command, floor::FLAGS, rest, |parsed| {
            floor::main(parsed).map(|()| ExitCode::SUCCESS)
        }),
        "compare" => with_flags(command, compare::FLAGS, rest, |parsed| {
            let reached = compare::main(parsed)?;
            Ok(if reached {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }),
        "storage" => storage_command(command, rest),
        "help" | "--help" | "-h" => {
            print!("{}", usage());
            Ok(ExitCode::SUCCESS)
        }
        "--version" | "-V" => {
            println!("quoin-bench {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        other => {
            let nearest = COMMANDS
                .iter()
                .min_by_key(|(name, _)| args::distance(name, other));
            Err(match nearest {
                Some((name, _)) if args::distance(name, other) <= 2 => {
                    format!("unknown command '{other}'; did you mean '{name}'?")
                }
                _ => format!("unknown command '{other}'; 'quoin-bench help' lists the commands"),
            })
        }
    }
}

fn usage() -> String {
    let mut text = String::from("quoin-bench COMMAND [FLAGS]\n\n");
    for (name, about) in COMMANDS {
        text += &format!("  {name:<13} {about}\n");
    }
    text + "\n'quoin-bench COMMAND --help' lists the flags of a command.\n"
}

fn with_flags(
    command: &str,
    flags: &[Flag],
    rest: &[String],
    body: impl FnOnce(&args::Parsed) -> Result<ExitCode, String>,
) -> Result<ExitCode, String> {
    if rest.iter().any(|arg| arg == "--help" || arg == "-h") {
        let about = COMMANDS
            .iter()
            .find(|(name, _)| *name == command)
            .map_or("", |(_, it)| it);
        print!("quoin-bench {command}: {about}\n\n{}", args::help(flags));
        return Ok(ExitCode::SUCCESS);
    }
    body(&args::parse(flags, rest)?)
}

fn storage_command(command: &str, rest: &[String]) -> Result<ExitCode, String> {
    let (run, rest): (fn(&_) -> _, _) = match rest.split_first() {
        Some((word, rest)) if word == "overwrite" => (storage::overwrite, rest),
        _ => (storage::compare, rest),
    };
    with_flags(command, storage::FLAGS, rest, |parsed| {
        let met = run(parsed).map_err(|e| e.to_string())?;
        Ok(if met {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    })
}

/// Runs a load and reports it; a failed request makes the exit code 1.
fn load(workload: Workload, rest: &[String]) -> Result<ExitCode, String> {
    with_flags(workload.name(), options::FLAGS, rest, |parsed| {
        let options = Options::from_args(workload, parsed)?;
        report(&run::run(&options)?, &options)
    })
}

/// The same for a load with watches; a lost event makes the exit code 1, too.
fn watch(kind: Kind, command: &str, rest: &[String]) -> Result<ExitCode, String> {
    let flags = match kind {
        Kind::Registry => watching::REGISTRY_FLAGS,
        _ => watching::WATCH_FLAGS,
    };
    with_flags(command, flags, rest, |parsed| {
        let plan = Plan::from_args(kind, parsed)?;
        report(&watching::run(&plan)?, &plan.writes)
    })
}

fn report(outcome: &Outcome, options: &Options) -> Result<ExitCode, String> {
    print!("{}", report::table::render(outcome));
    let write = |file: &Option<std::path::PathBuf>, text: String| match file {
        None => Ok(()),
        Some(file) => std::fs::write(file, text)
            .map_err(|error| format!("cannot write {}: {error}", file.display())),
    };
    let json = format!("{:#}\n", report::json::render(outcome));
    write(&options.json, json)?;
    write(&options.html, report::html::render(outcome))?;
    let failed = outcome.failed() > 0 || outcome.requests == 0;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
