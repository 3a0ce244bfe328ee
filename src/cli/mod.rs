//! The command line. A client's command makes one connection, asks, prints and ends; `serve`,
//! `worker`, `probe` and the agent's `repair` hand over to those who do the work.

mod admission;
mod args;
mod connection;
mod damage;
mod demo;
mod exit;
mod fsck;
mod host;
mod out;
mod repair;
mod session;
mod show;
mod stop_all;
mod text;
mod token;
mod view;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::{Arguments, Command, Global, RepairArguments, ServeArguments, SessionCommand};
use connection::Connection;
use exit::{FAILURE, Failure, Form};

use crate::config::{self, ConfigError, Overrides};

/// Reads the command line, does what it says, and tells how it went.
pub fn main() -> ExitCode {
    let Arguments { global, command } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return not_parsed(error),
    };
    let form = Form::from(&global);
    let done = match command {
        Command::Worker { link, session } => return crate::worker::run(&link, &session),
        Command::Probe => return crate::worker::probe(),
        Command::Repair(RepairArguments { known: Some(known), paths, before, .. }) => {
            return crate::worker::repair(&paths[0], &known, before);
        }
        Command::Repair(arguments) => repair::repair(&global, &arguments),
        Command::Fsck(arguments) => fsck::fsck(&global, &arguments),
        Command::Health => return run(host::health(&global)).unwrap_or_else(|failure| failure.report(form)),
        Command::Serve(flags) => serve(&global, flags),
        Command::EndWorkers => end_workers(&global),
        Command::CheckConfig => host::check_config(&global),
        Command::Token(command) => token::token(&global, command),
        Command::Demo(arguments) => run(demo::demo(&global, &arguments)).flatten(),
        Command::Devices => run(host::devices(&global)).flatten(),
        Command::StopAll => run(stop_all::stop_all(&global)).flatten(),
        Command::Drain => run(admission::drain(&global)).flatten(),
        Command::Undrain => run(admission::undrain(&global)).flatten(),
        Command::Handover => run(admission::handover(&global)).flatten(),
        Command::Session(command) => run(session(&global, command)).flatten(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(form),
    }
}

/// Help, the version, or what is wrong with the command line, which may want JSON all the same.
fn not_parsed(error: clap::Error) -> ExitCode {
    let is_failure =
        error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if is_failure && std::env::args_os().any(|word| word == "--json") {
        return Failure::from(error).report(Form::Json);
    }
    error.exit()
}

fn serve(global: &Global, flags: ServeArguments) -> Result<(), Failure> {
    let overrides = Overrides {
        state_dir: flags.state_dir,
        runtime_dir: flags.runtime_dir,
        media_dir: flags.media_dir,
        tcp: flags.tcp,
        http: flags.http,
        log_level: flags.log_level,
    };
    let settings = config::load(global.config.as_deref(), &overrides)?;
    crate::daemon::serve(settings).map_err(|error| match error.downcast::<ConfigError>() {
        Ok(error) => error.into(),
        Err(error) => Failure::new(FAILURE, format!("{error:#}")),
    })
}

fn end_workers(global: &Global) -> Result<(), Failure> {
    let settings = config::load(global.config.as_deref(), &Overrides::default())?;
    let service_result = std::env::var("SERVICE_RESULT").ok();
    crate::daemon::end_workers(&settings, service_result.as_deref())
        .map_err(|error| Failure::new(FAILURE, format!("{error:#}")))
}

async fn session(global: &Global, command: SessionCommand) -> Result<(), Failure> {
    match command {
        SessionCommand::Start { file, max_duration } => {
            // The file first: a mistake in it needs no agent.
            let object = session::read(&file)?;
            session::start(&Connection::open(global).await?, global.json, &object, max_duration).await
        }
        SessionCommand::Stop(arguments) => {
            session::stop(&Connection::open(global).await?, global.json, &arguments).await
        }
        SessionCommand::Show { id } => session::show(&Connection::open(global).await?, global.json, id).await,
        SessionCommand::List { state, since } => {
            session::list(&Connection::open(global).await?, global.json, state, since).await
        }
        SessionCommand::Watch { id } => watch::watch(&Connection::open(global).await?, global.json, id).await,
    }
}

/// Runs a client's command to its end.
fn run<F: Future>(command: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(FAILURE, format!("no event loop can be made: {error}")))?;
    Ok(runtime.block_on(command))
}
