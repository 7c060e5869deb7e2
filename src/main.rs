//! From the command line to an exit code.

use std::fs::File;
use std::io::{Read, Write};
use std::process::ExitCode;

use zzz_lb::args::{self, Command};
use zzz_lb::config;
use zzz_lb::dns::hosts::Hosts;
use zzz_lb::limits::HOSTS_BYTES;
use zzz_lb::process;
use zzz_lb::sys;

/// Exit status: what was asked for makes no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let argv: Vec<_> = std::env::args_os().skip(1).collect();
    let options = match args::parse(argv, &|name: &str| std::env::var_os(name)) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Help) => return print(&args::help::text()),
        Ok(Command::Version) => return print(&args::help::version()),
        Err(error) => return refuse(&error),
    };
    match config::resolve(options, &Hosts::parse(&hosts_file())) {
        Ok(config) => ExitCode::from(process::run(config)),
        Err(error) => refuse(&error),
    }
}

/// The system's table of names, as much as is used of it; nothing where there is none.
fn hosts_file() -> Vec<u8> {
    let mut text = Vec::new();
    if let Ok(file) = File::open("/etc/hosts") {
        // One byte more than is used tells that the last line is not whole.
        let _ = file.take(HOSTS_BYTES as u64 + 1).read_to_end(&mut text);
    }
    text
}

/// Prints to stdout. A reader that has gone, as `head` does, is no failure.
fn print(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    ExitCode::SUCCESS
}

fn refuse(error: &dyn std::fmt::Display) -> ExitCode {
    sys::write_stderr(format!("load_balancer: {error}\n").as_bytes());
    ExitCode::from(USAGE)
}
