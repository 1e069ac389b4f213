//! The command line: reads what is asked for, has it done, prints what became of it.

mod arguments;
mod audit;
mod desk;
mod init;
mod output;
mod qr;
mod show;
mod way;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use postern_shared::error::chain;
use serde::Serialize;
use serde_json::json;

use self::arguments::{
    AgentCommand, Arguments, AuditCommand, Common, GroupCommand, KeyCommand, NewMember,
    PairCommand, Program, UserCommand,
};
use self::audit::VerifyError;
use self::desk::Desk;
use self::init::InitError;
use self::output::{Output, Shape};
use self::way::{AskError, UnreachableError};
use crate::audit::Filter;
use crate::config::{Config, ConfigError};
use crate::operator::{Answer, MemberAsked, Operation};
use crate::serve::{self, ServeError};

/// What a run ends with when something is wrong; the codes stand in `--help`.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Init(#[from] InitError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Unreachable(#[from] UnreachableError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error("cannot start")]
    System(#[source] std::io::Error),
    #[error("cannot write what became of it; it was done")]
    Output(#[from] std::io::Error),
    #[error("the daemon answered something else than was asked; is it of another version?")]
    Mismatch,
}

/// Runs the program with the given command line, and answers with what to exit.
pub fn run(line: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(line) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing is left to do where even this cannot be printed.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    let output = Output::new(arguments.json);
    match carry_out(arguments.command, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.code())
        }
    }
}

fn carry_out(program: Program, output: &Output) -> Result<(), Failure> {
    match program {
        Program::Serve(configured) => Ok(serve::serve(&configured.config)?),
        Program::Check { file } => check(&file, output),
        Program::Init(arguments) => {
            let made = runtime()?.block_on(init::init(arguments))?;
            Ok(output.made(&made)?)
        }
        Program::Key(command) => key(command, output),
        Program::Pair(command) => pair(command, output),
        Program::Group(command) => group(command, output),
        Program::Agent(command) => agent(command, output),
        Program::Audit(command) => audit(command, output),
        Program::User(command) => user(command, output),
        Program::Recover { user, common } => once(common, Operation::RecoverUser { user }, output),
    }
}

fn check(file: &Path, output: &Output) -> Result<(), Failure> {
    match Config::load(file) {
        Ok(_) => Ok(output.checked(file)?),
        Err(error) => Err(error.into()),
    }
}

fn key(command: KeyCommand, output: &Output) -> Result<(), Failure> {
    match command {
        KeyCommand::Mint { name, scopes, origins, with_bookmark, valid, common } => {
            let scopes = scopes.into_iter().collect();
            let operation = if with_bookmark {
                Operation::MintLockedKey { name, scopes, lifetime: valid }
            } else {
                Operation::MintKey { name, scopes, origins, lifetime: valid }
            };
            once(common, operation, output)
        }
        KeyCommand::List { all, common } => session(common, async |desk| {
            let (keys, as_of) = desk.keys(all).await?;
            Ok(output.list(&keys, |keys| show::keys(keys, as_of))?)
        }),
        KeyCommand::Narrow { key, scopes, origins, common } => {
            let scopes = (!scopes.is_empty()).then(|| scopes.into_iter().collect());
            let origins = Some(origins).filter(|origins| !origins.is_empty());
            once(common, Operation::NarrowKey { key, scopes, origins }, output)
        }
        KeyCommand::Revoke { key, common } => once(common, Operation::RevokeKey { key }, output),
    }
}

fn pair(command: PairCommand, output: &Output) -> Result<(), Failure> {
    match command {
        PairCommand::Add { name, email, ttl, legacy_get, qr, common } => {
            let operation = Operation::AddPair { name, email, ttl, reports_by_get: legacy_get };
            let shape = if qr { Shape::WithQr } else { Shape::Plain };
            once_in(common, operation, output, shape)
        }
        PairCommand::List { common } => session(common, async |desk| {
            let (pairs, as_of) = desk.pairs().await?;
            Ok(output.list(&pairs, |pairs| show::pairs(pairs, as_of))?)
        }),
        PairCommand::Remove { pair, common } => {
            once(common, Operation::RemovePair { pair }, output)
        }
        PairCommand::RotateBookmark { pair, qr, common } => {
            let shape = if qr { Shape::WithQr } else { Shape::Plain };
            once_in(common, Operation::RotateBookmark { pair }, output, shape)
        }
        PairCommand::Close { pair, common } => once(common, Operation::ClosePair { pair }, output),
        PairCommand::RotateServerKey { pair, common } => {
            once(common, Operation::RotateServerKey { pair }, output)
        }
    }
}

fn group(command: GroupCommand, output: &Output) -> Result<(), Failure> {
    match command {
        GroupCommand::Add { name, ttl, common } => {
            once(common, Operation::AddGroup { name, ttl }, output)
        }
        GroupCommand::List { common } => session(common, async |desk| {
            let (groups, _) = desk.groups().await?;
            Ok(output.list(&groups, show::groups)?)
        }),
        GroupCommand::Show { group, common } => session(common, async |desk| {
            let (list, members, as_of) = desk.group(&group).await?;
            Ok(output.group(&list, &members, as_of)?)
        }),
        GroupCommand::Remove { group, common } => {
            once(common, Operation::RemoveGroup { group }, output)
        }
        GroupCommand::AddMember { group, member, expires, common } => {
            let member = asked(member);
            once(common, Operation::AddMember { group, member, expires }, output)
        }
        GroupCommand::RemoveMember { group, member, common } => {
            once(common, Operation::RemoveMember { group, member }, output)
        }
    }
}

fn agent(command: AgentCommand, output: &Output) -> Result<(), Failure> {
    match command {
        AgentCommand::Invite { name, groups, valid, common } => {
            once(common, Operation::InviteAgent { name, groups, lifetime: valid }, output)
        }
        AgentCommand::List { all, common } => session(common, async |desk| {
            let (agents, as_of) = desk.agents(all).await?;
            Ok(output.list(&agents, |agents| show::agents(agents, as_of))?)
        }),
        AgentCommand::SetGroups { agent, groups, common } => {
            once(common, Operation::SetAgentGroups { agent, groups }, output)
        }
        AgentCommand::Revoke { agent, common } => {
            once(common, Operation::RevokeAgent { agent }, output)
        }
    }
}

fn audit(command: AuditCommand, output: &Output) -> Result<(), Failure> {
    match command {
        AuditCommand::List { count, no_org, since, until, kind, actor, group, common } => {
            session(common, async |desk| {
                let filter = Filter { since, until, kind, actor, group: None };
                let asked = audit::Asked { no_org, filter, group };
                let (records, as_of) = audit::newest(desk, asked, count).await?;
                Ok(output.list(&records, |records| show::audit(records, as_of))?)
            })
        }
        AuditCommand::Export { since, until, common } => session(common, async |desk| {
            let mut lines = output.lines();
            audit::export(desk, since, until, |line| Ok(lines.line(&line)?)).await?;
            Ok(lines.finish()?)
        }),
        AuditCommand::Verify { file: Some(file), key, known, .. } => {
            Ok(output.verified(&audit::verify_file(&file, key, known)?)?)
        }
        AuditCommand::Verify { file: None, key, known, configured } => {
            session(Common { configured, org: None }, async |desk| {
                Ok(output.verified(&audit::verify(desk, key, known).await?)?)
            })
        }
    }
}

fn user(command: UserCommand, output: &Output) -> Result<(), Failure> {
    match command {
        UserCommand::Invite { email, role, mail, common } => {
            once(common, Operation::InviteUser { email, role, mail }, output)
        }
        UserCommand::List { common } => session(common, async |desk| {
            let (users, as_of) = desk.users().await?;
            Ok(output.list(&users, |users| show::users(users, as_of))?)
        }),
        UserCommand::Role { user, role, common } => {
            once(common, Operation::SetUserRole { user, role }, output)
        }
        UserCommand::Remove { user, common } => {
            once(common, Operation::RemoveUser { user }, output)
        }
    }
}

/// The command line knows that it is a pair, or a network with its note.
fn asked(member: NewMember) -> MemberAsked {
    match (member.pair, member.network, member.note) {
        (Some(pair), _, _) => MemberAsked::Pair(pair),
        (None, Some(network), Some(note)) => MemberAsked::Network { network, note },
        (None, _, _) => unreachable!("the command line requires a pair, or a network and a note"),
    }
}

/// Has one operation carried out and prints the answer.
fn once(common: Common, operation: Operation, output: &Output) -> Result<(), Failure> {
    once_in(common, operation, output, Shape::Plain)
}

fn once_in(
    common: Common,
    operation: Operation,
    output: &Output,
    shape: Shape,
) -> Result<(), Failure> {
    session(common, async |desk| {
        let reply = desk.ask(operation).await?;
        Ok(output.reply(&reply, shape)?)
    })
}

/// Finds the way to the operations, works with it, and leaves everything closed behind.
fn session(
    common: Common,
    work: impl AsyncFnOnce(&Desk) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let config = Config::load(&common.configured.config)?;
    runtime()?.block_on(async {
        let desk = Desk::open(config, common.org).await?;
        let worked = work(&desk).await;
        desk.close().await;
        worked
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::System)
}

impl Failure {
    /// The exit code; `--help` says what each means.
    fn code(&self) -> u8 {
        match self {
            Failure::Ask(AskError::Refused(problem)) if problem.status < 500 => 3,
            Failure::Ask(AskError::Unreachable(_)) | Failure::Unreachable(_) => 4,
            Failure::Serve(ServeError::StoreFailed) => 5,
            Failure::Verify(VerifyError::Broken(_)) => 6,
            Failure::Ask(AskError::Refused(_) | AskError::Lost { .. } | AskError::Late { .. })
            | Failure::Config(_)
            | Failure::Init(_)
            | Failure::Serve(_)
            | Failure::Verify(_)
            | Failure::System(_)
            | Failure::Output(_)
            | Failure::Mismatch => 1,
        }
    }

    /// The failure for scripts.
    fn to_json(&self) -> serde_json::Value {
        let error = match self {
            Failure::Config(ConfigError::Mistakes { path, mistakes }) => {
                let mistake = |mistake: &postern_shared::document::Mistake| {
                    json!({
                        "line": mistake.line,
                        "column": mistake.column,
                        "path": mistake.path,
                        "message": mistake.message,
                    })
                };
                let mistakes: Vec<_> = mistakes.iter().map(mistake).collect();
                return json!({"file": path, "mistakes": mistakes});
            }
            Failure::Ask(AskError::Refused(problem)) => json!(problem),
            Failure::Verify(VerifyError::Broken(broken)) => {
                json!({"detail": chain(self), "broken": broken})
            }
            Failure::Config(ConfigError::Read { .. })
            | Failure::Ask(_)
            | Failure::Unreachable(_)
            | Failure::Init(_)
            | Failure::Serve(_)
            | Failure::Verify(_)
            | Failure::System(_)
            | Failure::Output(_)
            | Failure::Mismatch => json!({"detail": chain(self)}),
        };
        json!({"error": error})
    }
}

/// What is printed of an answer for scripts: its content, without the word for what it is.
fn content(answer: &Answer) -> Result<serde_json::Value, serde_json::Error> {
    fn of(content: &impl Serialize) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::to_value(content)
    }
    match answer {
        Answer::KeyMinted(it) => of(it),
        Answer::Keys(it) => of(it),
        Answer::PairAdded(it) => of(it),
        Answer::Pairs(it) => of(it),
        Answer::GroupAdded(it) => of(it),
        Answer::Groups(it) => of(it),
        Answer::Group(it) => of(it),
        Answer::MemberAdded(it) => of(it),
        Answer::Members(it) => of(it),
        Answer::AgentInvited(it) => of(it),
        Answer::Agents(it) => of(it),
        Answer::AgentGroupsSet(it) => of(it),
        Answer::Removed(it) => of(it),
        Answer::PairClosed(it) => of(it),
        Answer::KeyNarrowed(it) => of(it),
        Answer::BookmarkRotated(it) => of(it),
        Answer::ServerKeyRotated(it) => of(it),
        Answer::LockedKeyMinted(it) => of(it),
        Answer::Audit(it) => of(it),
        Answer::AuditOpened(it) => of(it),
        Answer::AuditPart(it) => of(it),
        Answer::AuditStray(it) => of(it),
        Answer::UserInvited(it) => of(it),
        Answer::Users(it) => of(it),
        Answer::UserRoleSet(it) => of(it),
        Answer::UserRecovery(it) => of(it),
    }
}
