//! How a command ends, for scripts, and the way out where we know one.

use std::borrow::Cow;
use std::error::Error;
use std::process::ExitCode;

use crate::cli::near::near;
use crate::client::administration::AdminError;
use crate::client::backup::FetchBackupError;
use crate::client::box_client::ReachError;
use crate::client::config::ConfigError;
use crate::client::host::HostError;
use crate::client::nix_config::{NixConfigError, PlanError};
use crate::client::nix_store::NixStoreError;
use crate::client::push::PushError;
use crate::client::signing_keys::SigningKeyError;
use crate::client::tokens::TokensError;
use crate::daemon::SettingsError;
use crate::formats::backup::BackupError;
use crate::store::StoreError;
use crate::transports::quic::{ConnectError, RequestError};
use crate::wire::RefusalCode;
use crate::wire::token::ParseTokenError;

/// How a command ended. The numbers are an interface: docs/cli.md lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0
    Done,
    /// 1: it failed; the last line on standard error says why.
    Failed,
    /// 2: the command line or a configuration file is wrong.
    Usage,
    /// 3: there is no such cache, path or token.
    NotFound,
    /// 4: no token, or one that does not allow it.
    NotAuthorised,
    /// 5: the box cannot be reached.
    Unreachable,
    /// 6: a hash or a signature is wrong.
    Verification,
    /// 7: it did what it could, and listed the rest.
    Partly,
    /// 8: refused for want of space.
    NoSpace,
    /// 130: somebody pressed Ctrl-C. What a shell says of a program that SIGINT ended.
    Interrupted,
}

impl Exit {
    const fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::NotAuthorised => 4,
            Self::Unreachable => 5,
            Self::Verification => 6,
            Self::Partly => 7,
            Self::NoSpace => 8,
            Self::Interrupted => 130,
        }
    }

    pub(super) fn from_number(number: u8) -> Self {
        let all = [
            Self::Done,
            Self::Failed,
            Self::Usage,
            Self::NotFound,
            Self::NotAuthorised,
            Self::Unreachable,
            Self::Verification,
            Self::Partly,
            Self::NoSpace,
        ];
        all.into_iter().find(|exit| exit.number() == number).unwrap_or(Self::Failed)
    }

    /// How a command ends that failed with `error`: the first cause that tells decides.
    pub(super) fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(|cause| exit_of_cause(inner(cause))).unwrap_or(Self::Failed)
    }

    /// How a push ends that was stopped by `error`.
    pub(super) fn of_cause(error: &(dyn Error + 'static)) -> Self {
        exit_of_cause(inner(error)).unwrap_or(Self::Failed)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// A failure of the command itself, in words.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Complaint {
    exit: Exit,
    message: String,
    hint: Option<Cow<'static, str>>,
}

impl Complaint {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// The command line lacks something.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(super) fn with_hint(self, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Errors that only pass another one on hide it from the chain; this is the one behind.
fn inner<'a>(cause: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let reach = |error: &'a ReachError| -> &'a (dyn Error + 'static) {
        match error {
            ReachError::Host(error) => error,
            ReachError::Connect(error) => error,
        }
    };
    match cause.downcast_ref::<PushError>() {
        Some(PushError::Reach(error)) => return reach(error),
        Some(PushError::Request(error)) => return error,
        Some(PushError::Signing(error)) => return error,
        _ => {}
    }
    if let Some(PlanError::Config(error)) = cause.downcast_ref() {
        return error;
    }
    if let Some(AdminError::Request(error)) = cause.downcast_ref() {
        return error;
    }
    cause.downcast_ref().map_or(cause, reach)
}

fn exit_of_cause(cause: &(dyn Error + 'static)) -> Option<Exit> {
    if let Some(complaint) = cause.downcast_ref::<Complaint>() {
        return Some(complaint.exit);
    }
    if let Some(NixConfigError::Circle { .. } | NixConfigError::TooLarge(_)) = cause.downcast_ref()
    {
        return Some(Exit::Usage);
    }
    if cause.is::<ConfigError>() || cause.is::<SettingsError>() {
        return Some(Exit::Usage);
    }
    if let Some(PushError::NoSuchCache { .. }) = cause.downcast_ref() {
        return Some(Exit::NotFound);
    }
    if let Some(error) = cause.downcast_ref::<SigningKeyError>() {
        return Some(of_signing_key(error));
    }
    if let Some(BackupError::CutShort | BackupError::Damaged) = cause.downcast_ref() {
        return Some(Exit::Verification);
    }
    if let Some(error) = cause.downcast_ref::<ConnectError>() {
        return Some(of_connect(error));
    }
    if let Some(error) = cause.downcast_ref::<RequestError>() {
        return Some(of_request(error));
    }
    if let Some(AdminError::Refused { status, .. }) = cause.downcast_ref() {
        return Some(match status {
            401 | 403 => Exit::NotAuthorised,
            404 => Exit::NotFound,
            507 => Exit::NoSpace,
            _ => Exit::Failed,
        });
    }
    if let Some(NixStoreError::NotValid(_) | NixStoreError::Vanished(_)) = cause.downcast_ref() {
        return Some(Exit::NotFound);
    }
    let known = [
        (cause.is::<HostError>(), Exit::Unreachable),
        (cause.is::<TokensError>(), Exit::NotAuthorised),
        (cause.is::<ParseTokenError>(), Exit::NotAuthorised),
    ];
    known.into_iter().find_map(|(is, exit)| is.then_some(exit))
}

fn of_request(error: &RequestError) -> Exit {
    match error {
        RequestError::Refused(refusal) => Exit::from_number(refusal.code.exit_code()),
        RequestError::Source(_) => Exit::Partly,
        RequestError::Violation(_) => Exit::Failed,
        _ => Exit::Unreachable,
    }
}

fn of_signing_key(error: &SigningKeyError) -> Exit {
    match error {
        SigningKeyError::Variable(_) | SigningKeyError::NoKey { .. } => Exit::Usage,
        SigningKeyError::None { .. }
        | SigningKeyError::NoneRegistered(_)
        | SigningKeyError::OtherKey { .. } => Exit::NotAuthorised,
        _ => Exit::Failed,
    }
}

fn of_connect(error: &ConnectError) -> Exit {
    match error {
        ConnectError::NoToken | ConnectError::WrongDevice { .. } => Exit::NotAuthorised,
        ConnectError::Refused(refusal) => Exit::from_number(refusal.code.exit_code()),
        ConnectError::NoAddress | ConnectError::Unreachable { .. } | ConnectError::Greeting(_) => {
            Exit::Unreachable
        }
        _ => Exit::Failed,
    }
}

/// What to do about it, where we know.
pub(super) fn hint(error: &anyhow::Error) -> Option<Cow<'static, str>> {
    error.chain().find_map(|cause| match cause.downcast_ref::<Complaint>() {
        Some(complaint) => complaint.hint.clone(),
        None => near_cache(cause).or_else(|| hint_of_cause(inner(cause)).map(Cow::Borrowed)),
    })
}

/// Which cache was meant, perhaps; else which ones there are.
fn near_cache(cause: &(dyn Error + 'static)) -> Option<Cow<'static, str>> {
    let Some(PushError::NoSuchCache { cache, known }) = cause.downcast_ref() else { return None };
    let names: Vec<_> = known.iter().map(ToString::to_string).collect();
    Some(match near(&cache.to_string(), names.clone()) {
        Some(near) => format!("did you mean '{near}'?").into(),
        None if names.is_empty() => HINT_TOKEN.into(),
        None => format!(
            "the token may push to {}; 'larder cache list' shows all, 'larder cache create' makes one",
            names.join(", ")
        )
        .into(),
    })
}

const HINT_TOKEN: &str = "the owner of the box makes one with 'larder token create'; save it with \
                          'larder authtoken', or set LARDER_AUTH_TOKEN";

fn hint_of_cause(cause: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(error) = cause.downcast_ref::<TokensError>() {
        return match error {
            TokensError::Unreadable { .. } => Some(
                "run the command as whoever runs the box, or save a token with 'larder authtoken'",
            ),
            _ => Some(HINT_TOKEN),
        };
    }
    match cause.downcast_ref::<HostError>() {
        Some(HostError::Several(_)) => return Some("say which one with --host NAME"),
        Some(HostError::NoBox) => {
            return Some(
                "start one with 'larder serve', or say where it is with --host HOST[:PORT]; \
                 where multicast is filtered boxes are not found by themselves",
            );
        }
        Some(HostError::NoSuchBox(_)) => {
            return Some("'larder discover' lists the boxes; --host takes HOST[:PORT] too");
        }
        _ => {}
    }
    if let Some(error) = cause.downcast_ref::<ConnectError>() {
        return match error {
            ConnectError::Unreachable { .. } => Some(
                "is 'larder serve' running there, and does UDP get through? --host HOST[:PORT] \
                 names another box",
            ),
            ConnectError::NoToken => Some(HINT_TOKEN),
            ConnectError::Refused(refusal) => hint_of_code(refusal.code),
            _ => None,
        };
    }
    if let Some(RequestError::Refused(refusal)) = cause.downcast_ref() {
        return hint_of_code(refusal.code);
    }
    if let Some(NixConfigError::Generated { .. }) = cause.downcast_ref() {
        return Some(
            "on NixOS '--mode nixos' writes a module; '--output-directory DIR' writes the lines into a \
             folder, from where they can be copied into the configuration that makes the file",
        );
    }
    match cause.downcast_ref() {
        Some(NixStoreError::Open { .. }) => {
            return Some(
                "run the command as root, or leave NIX_REMOTE unset to ask the Nix daemon",
            );
        }
        Some(NixStoreError::NoWay { .. }) => {
            return Some("run the command as root, or start the Nix daemon");
        }
        _ => {}
    }
    if let Some(FetchBackupError::Exists { .. }) = cause.downcast_ref() {
        return Some("give it another name, such as one with the date in it");
    }
    cause.downcast_ref().and_then(hint_of_store)
}

fn hint_of_store(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::Locked { .. } => {
            Some("stop that one first, with Ctrl-C or 'systemctl stop larder'")
        }
        error if error.is_no_space() => Some(
            "make room on the disk of the data folder, and start it again (systemd does so by itself); \
             what was acknowledged is safe",
        ),
        error if error.is_of_disk() => Some(
            "the data folder must be mounted, writable and the user's who runs this; 'dmesg' tells of a \
             disk that fails. Start it again then (systemd does so by itself)",
        ),
        StoreError::OtherStore { .. } => Some(
            "restore it into an empty folder; --other-store takes its tokens and settings over to \
             the packs that are there",
        ),
        _ => None,
    }
}

const fn hint_of_code(code: RefusalCode) -> Option<&'static str> {
    match code {
        RefusalCode::Unauthorised => Some(HINT_TOKEN),
        RefusalCode::NoSuchCache => {
            Some("'larder cache list' shows the caches, 'larder cache create' makes one")
        }
        RefusalCode::NoSpace => Some("'larder status' shows what takes the space"),
        _ => None,
    }
}
