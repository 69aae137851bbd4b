//! quoin: the server.

use quoin::runtime::flags::{self, Command};
use quoin::runtime::{logger, server};
use std::process::ExitCode;

fn main() -> ExitCode {
    let config = match flags::parse(std::env::args().skip(1), |key| std::env::var(key).ok()) {
        Ok(Command::Serve(config)) => config,
        Ok(Command::Version) => {
            println!("quoin {}", server::VERSION);
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
    logger::start(config.log_level);
    match server::serve(&config) {
        Ok(()) => {
            logger::flush();
            ExitCode::SUCCESS
        }
        Err(error) => {
            logger::flush();
            eprintln!("quoin: {error}");
            ExitCode::FAILURE
        }
    }
}
