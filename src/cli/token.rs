//! `larder token`

use serde::Serialize;

use crate::cli::args::{TokenCommand, TokenCreateArgs};
use crate::cli::context::Context;
use crate::cli::duration::moment;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::recover;
use crate::client::administration::{Administration, Grant, NewToken, TokenFacts, TokenRight};
use crate::services::clock;

#[derive(Serialize)]
struct Tokens {
    tokens: Vec<TokenFacts>,
}

#[derive(Serialize)]
struct Revoked {
    revoked: i64,
}

pub(super) async fn run(context: &Context, command: TokenCommand) -> anyhow::Result<Exit> {
    if let TokenCommand::Recover { data } = command {
        return recover::run(context, data).await;
    }
    context
        .administer(async |administration| administer(context, administration, command).await)
        .await?;
    Ok(Exit::Done)
}

async fn administer(
    context: &Context,
    administration: &Administration,
    command: TokenCommand,
) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create(args) if args.pairing_code => {
            let made = administration.create_pairing_code(&new_token(args)).await?;
            let minutes = made.expires_in_seconds / 60;
            context.output.note(&format!(
                "Within {minutes} minutes, on the machine that is to have the token: \
                 larder pair BOX --code CODE"
            ));
            context.output.data(&made, |made| made.code.clone())?;
        }
        TokenCommand::Create(args) => {
            let new = new_token(args);
            let made = administration.create_token(&new).await?;
            context.output.note(advice(new.caches.as_deref()));
            context.output.data(&made, |made| made.secret.clone())?;
        }
        TokenCommand::List => {
            let tokens = administration.tokens().await?;
            let text = |Tokens { tokens }: &Tokens| list(tokens, clock::now());
            context.output.data(&Tokens { tokens }, text)?;
        }
        TokenCommand::Revoke { id, yes } => {
            administration.revoke_token(id, yes).await?;
            context.output.note(&format!("revoked the token {id}"));
            if context.output.is_json() {
                context.output.data(&Revoked { revoked: id }, |_| String::new())?;
            }
        }
        // Asks no box.
        TokenCommand::Recover { .. } => {}
    }
    Ok(())
}

fn new_token(args: TokenCreateArgs) -> NewToken {
    let grants: Vec<Grant> = args.caches.into_iter().map(|cache| cache.0).collect();
    NewToken {
        label: args.label,
        expires_in_seconds: args.expires.map(|lifetime| lifetime.0.as_secs()),
        caches: (!grants.is_empty()).then_some(grants),
        device: args.device.map(|device| device.to_string()),
    }
}

/// What whoever makes a token should know.
fn advice(grants: Option<&[Grant]>) -> &'static str {
    match grants {
        None => {
            "This token is shown once. Whoever has it may do everything on the box, and may give \
             users of its caches any path."
        }
        Some(grants) if grants.iter().any(|grant| grant.right != TokenRight::Read) => {
            "This token is shown once. Whoever has it may give users of the cache any path."
        }
        Some(_) => "This token is shown once.",
    }
}

fn state(token: &TokenFacts, now: u64) -> &'static str {
    if token.revoked_at.is_some() {
        "revoked"
    } else if token.expires_at.is_some_and(|end| end <= now) {
        "expired"
    } else if token.device.is_some() {
        "good on one device"
    } else {
        "good"
    }
}

fn list(tokens: &[TokenFacts], now: u64) -> String {
    let heads = ["ID", "LABEL", "FOR", "CREATED", "EXPIRES", "LAST USED", "STATE"];
    let row = |token: &TokenFacts| {
        let when = |at: Option<u64>, never: &str| at.map_or(never.to_owned(), moment);
        vec![
            token.id.to_string(),
            token.label.clone(),
            if token.personal { "everything".to_owned() } else { grants(&token.caches) },
            moment(token.created_at),
            when(token.expires_at, "never"),
            when(token.last_used_at, "never"),
            state(token, now).to_owned(),
        ]
    };
    let heads = heads.map(str::to_owned).to_vec();
    output::table(&std::iter::once(heads).chain(tokens.iter().map(row)).collect::<Vec<_>>())
}

fn grants(grants: &[Grant]) -> String {
    let one = |grant: &Grant| {
        let right = match grant.right {
            TokenRight::Read => "read",
            TokenRight::Write => "write",
            TokenRight::ReadWrite => "readwrite",
        };
        format!("{}:{right}", grant.cache)
    };
    grants.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_tokens_shows_what_each_is_for() {
        let personal = TokenFacts {
            id: 1,
            label: "made at the first start".into(),
            personal: true,
            caches: Vec::new(),
            created_at: 0,
            expires_at: None,
            last_used_at: Some(60),
            revoked_at: None,
            device: None,
        };
        let grant = Grant { cache: "main".parse().unwrap(), right: TokenRight::Write };
        let ci = TokenFacts {
            id: 2,
            label: "CI".into(),
            personal: false,
            caches: vec![grant],
            expires_at: Some(86_400),
            last_used_at: None,
            revoked_at: Some(7),
            ..personal.clone()
        };
        let shown = list(&[personal, ci], 100);
        let lines: Vec<Vec<&str>> = shown
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        let at_zero = "1970-01-01 00:00 UTC";
        assert_eq!(
            lines,
            [
                vec!["ID", "LABEL", "FOR", "CREATED", "EXPIRES", "LAST USED", "STATE"],
                vec![
                    "1",
                    "made at the first start",
                    "everything",
                    at_zero,
                    "never",
                    "1970-01-01 00:01 UTC",
                    "good"
                ],
                vec!["2", "CI", "main:write", at_zero, "1970-01-02 00:00 UTC", "never", "revoked"],
            ]
        );
    }

    #[test]
    fn who_makes_a_token_is_told_what_it_gives() {
        let grant = |right| [Grant { cache: "main".parse().unwrap(), right }];
        assert!(advice(None).contains("everything"));
        assert!(advice(Some(&grant(TokenRight::Write))).contains("any path"));
        assert!(!advice(Some(&grant(TokenRight::Read))).contains("any path"));
    }
}
