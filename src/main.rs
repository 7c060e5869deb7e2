//! The command line in, an exit status out.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use zzz_lb::args::{self, Command, Options};
use zzz_lb::config::{self, Config};
use zzz_lb::limits::JSON_BYTES;
use zzz_lb::log;
use zzz_lb::process;
use zzz_lb::sys;

/// Exit status: the command line or the configuration is wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    if sys::is_journal(std::env::var_os("JOURNAL_STREAM").as_deref()) {
        log::use_journal();
    }
    let argv: Vec<_> = std::env::args_os().skip(1).collect();
    let (options, mut problems) = match args::parse_with(argv, &|name: &str| std::env::var_os(name), process::hosts()) {
        Ok(Command::Run(mut options)) => {
            options.remarks = args::remarks(std::env::vars_os());
            (options, Vec::new())
        }
        Ok(Command::Healthcheck(wanted)) => {
            return match process::healthcheck(&wanted) {
                Ok(()) => ExitCode::SUCCESS,
                Err(problem) => {
                    sys::write_stderr(format!("load_balancer: {problem}\n").as_bytes());
                    ExitCode::FAILURE
                }
            };
        }
        Ok(Command::Help) => return print(&args::help::text()),
        Ok(Command::Version) => return print(&args::help::version()),
        Err(refused) => (*refused.options, lines(&refused.errors)),
    };
    if options.check.as_ref().is_some_and(|given| given.value) {
        let config = configure(&options, &mut problems).map(|(config, _)| config);
        let checked = process::check(config.as_ref(), &options);
        let status = print(&checked.plan);
        problems.extend(checked.problems);
        return if problems.is_empty() { status } else { refuse(&problems) };
    }
    let configured = if problems.is_empty() { configure(&options, &mut problems) } else { None };
    match (process::question(), configured) {
        (Some(question), Some((config, _))) => match process::could_take_over(&question, &config) {
            Ok(answer) => print(&format!("{answer}\n")),
            Err(problem) => refuse(&[problem]),
        },
        (Some(_), None) => refuse(&problems),
        (None, Some((config, contents))) => ExitCode::from(process::run(config, options, contents)),
        (None, None) => ExitCode::from(process::refuse(&problems)),
    }
}

/// Returns the configuration of the options and of the file that they name, with the file's contents. `None`: there are
/// problems, all of which are in `problems`.
fn configure(options: &Options, problems: &mut Vec<String>) -> Option<(Config, Option<Vec<u8>>)> {
    let (mut all, mut contents) = (options.clone(), None);
    if let Some(given) = &options.config {
        let shown = given.value.display().to_string();
        match sys::file::read(&given.value, JSON_BYTES) {
            Ok(text) => match config::file::read(&text, &shown, options.clone()) {
                Ok(with_file) => (all, contents) = (with_file, Some(text)),
                Err(errors) => problems.extend(lines(&errors)),
            },
            Err(error) => {
                problems.push(format!("{} '{shown}': {error}; accepted: a file that can be read", given.source));
            }
        }
    }
    match config::resolve(all) {
        Ok(config) => problems.is_empty().then_some((config, contents)),
        Err(mut errors) => {
            // A port that could not be read has its default here, so a clash with the admin port may not exist.
            let whole = problems.is_empty();
            errors.retain(|error| whole || !matches!(error, config::Error::ListenersClash { .. }));
            problems.extend(lines(&errors));
            None
        }
    }
}

fn lines<T: Display>(errors: &[T]) -> Vec<String> {
    errors.iter().map(T::to_string).collect()
}

/// Prints to stdout. It is no failure if the reader has gone, as `head` does.
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
