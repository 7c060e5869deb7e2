//! From the command line to an exit code.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use zzz_lb::args::{self, Command, Options};
use zzz_lb::config::{self, Config};
use zzz_lb::limits::JSON_BYTES;
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
        Err(error) => return refuse(&[error.to_string()]),
    };
    match configure(options.clone()) {
        Ok((config, _)) if config.check => print(&settings(&config)),
        Ok((config, contents)) => ExitCode::from(process::run(config, options, contents)),
        Err(problems) => refuse(&problems),
    }
}

/// The configuration of the options and the file that they name, with its contents; or every problem
/// of it.
fn configure(mut options: Options) -> Result<(Config, Option<Vec<u8>>), Vec<String>> {
    fn lines<T: Display>(errors: Vec<T>) -> Vec<String> {
        errors.iter().map(T::to_string).collect()
    }
    let mut contents = None;
    if let Some(given) = &options.config {
        let shown = given.value.display().to_string();
        let text = read(&given.value)
            .map_err(|error| vec![format!("{} '{shown}': {error}; accepted: a file that can be read", given.source)])?;
        options = config::file::read(&text, &shown, options).map_err(lines)?;
        contents = Some(text);
    }
    Ok((config::resolve(options).map_err(lines)?, contents))
}

/// A file's bytes; of one that is too long, more than is taken.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(JSON_BYTES as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// A line for each setting that differs from its default.
fn settings(config: &Config) -> String {
    let line =
        |setting: &config::Setting| format!("{} = {} ({})\n", setting.name, setting.value, setting.source.place());
    config.changed.iter().map(line).collect()
}

/// Prints to stdout. A reader that has gone, as `head` does, is no failure.
fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    ExitCode::SUCCESS
}

fn refuse(problems: &[String]) -> ExitCode {
    let text: String = problems.iter().map(|problem| format!("load_balancer: {problem}\n")).collect();
    sys::write_stderr(text.as_bytes());
    ExitCode::from(USAGE)
}
