//! quoin: the server.

use quoin::runtime::flags::{self, Command};
use quoin::runtime::{logger, server, version};
use std::process::ExitCode;

/// No configuration is longer: something else was named.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

fn main() -> ExitCode {
    // What is not text is no setting.
    let variables: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let mut args = Vec::new();
    for arg in std::env::args_os().skip(1) {
        match arg.into_string() {
            Ok(arg) => args.push(arg),
            Err(arg) => {
                eprintln!("quoin: {arg:?} is not UTF-8");
                return ExitCode::FAILURE;
            }
        }
    }
    let config = match flags::parse(args, &variables, read_file) {
        Ok(Command::Serve(config)) => config,
        Ok(Command::Version) => {
            print!("{}", version::text());
            return ExitCode::SUCCESS;
        }
        Ok(Command::Help) => {
            print!("{}", flags::help());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("quoin: {error}");
            return ExitCode::FAILURE;
        }
    };
    let started = logger::start(config.log_level, config.log_format, &config.log_outputs);
    if let Err(error) = started {
        eprintln!("quoin: {error}");
        return ExitCode::FAILURE;
    }
    match server::serve(&config) {
        Ok(()) => {
            logger::flush();
            ExitCode::SUCCESS
        }
        Err(error) => {
            logger::log(
                logger::Level::Fatal,
                concat!(file!(), ":", line!()),
                format_args!("{error}"),
            );
            logger::flush();
            ExitCode::FAILURE
        }
    }
}

fn read_file(path: &str) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(std::io::Error::other("it is longer than 1 MiB"));
    }
    Ok(text)
}
