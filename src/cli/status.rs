//! `larder status`

use crate::cli::context::Context;
use crate::cli::duration::{moment, span};
use crate::cli::exit::Exit;
use crate::cli::output::{bytes, counted, facts};
use crate::client::administration::{
    BoxStatus, CheckFacts, ClockFacts, ConnectionFacts, SpaceFacts,
};

pub(super) async fn run(context: &Context) -> anyhow::Result<Exit> {
    let status = context.administer(async |administration| Ok(administration.status().await?));
    let status = status.await?;
    context.output.data(&status, text)?;
    Ok(if is_healthy(&status) { Exit::Done } else { Exit::Failed })
}

fn is_healthy(status: &BoxStatus) -> bool {
    let last_is_sound = status.check.last.as_ref().is_none_or(|last| last.is_sound());
    status.store.damaged_chunks == 0 && status.disk_problem.is_none() && last_is_sound
}

fn text(status: &BoxStatus) -> String {
    let BoxStatus { store, pushes, .. } = status;
    let up = span(status.now.saturating_sub(status.started_at));
    let caches = status.caches.iter().map(|cache| {
        let hidden = match cache.paths_hidden {
            0 => String::new(),
            hidden => format!(", {hidden} hidden"),
        };
        format!("{}: {}{hidden}", cache.name, counted(cache.paths_visible, "path"))
    });
    let mut shown = vec![
        ("box", format!("{}, larder {}, up {up}", status.name, status.version)),
        ("device ID", status.device_id.clone()),
        ("caches", caches.collect::<Vec<_>>().join("\n")),
        (
            "store",
            format!(
                "{}, {} hidden\n{} of NARs in {} on disk ({}, {})",
                counted(store.paths_visible, "path"),
                store.paths_hidden,
                bytes(store.nar_bytes),
                bytes(store.pack_bytes),
                counted(store.chunks, "chunk"),
                counted(store.pack_files, "pack")
            ),
        ),
        (
            "pushes",
            format!(
                "{} under way; since the start: {} stored, {} known, {} hidden, {} kept the first, \
                 {} refused",
                pushes.under_way,
                pushes.stored,
                pushes.known,
                pushes.hidden,
                pushes.kept_first,
                pushes.refused
            ),
        ),
        ("check", check_text(&status.check)),
    ];
    shown.extend(connections_text(&status.connections).map(|text| ("connections", text)));
    if status.space.total_bytes > 0 {
        shown.push(("disk", space_text(&status.space)));
    }
    shown.extend(quota_text(status).map(|text| ("quota", text)));
    if let Some(clock) = status.clock.as_ref().filter(|clock| !clock.trusted) {
        shown.push(("CLOCK", clock_text(clock, status.now)));
    }
    if let Some(problem) = &status.disk_problem {
        let sentence = "pushes are refused until the disk can be written again";
        shown.push(("DISK FAILS", format!("{problem}; {sentence}")));
    }
    if let Some(problem) = &status.certificate_problem {
        shown.push(("HTTPS", problem.clone()));
    }
    if store.damaged_chunks > 0 {
        let sentence = format!(
            "{}; the paths that need them are not served whole until they are pushed again",
            counted(store.damaged_chunks, "chunk")
        );
        shown.push(("DAMAGED", sentence));
    }
    facts(&shown)
}

fn connections_text(connections: &ConnectionFacts) -> Option<String> {
    let ConnectionFacts { http_connections: http, quic_connections: quic, .. } = connections;
    let text = format!("{} HTTP, {} of pushers and administrators", (*http)?, (*quic)?);
    let refused = [connections.http_connections_refused?, connections.quic_connections_refused?];
    Some(match refused {
        [0, 0] => text,
        [http, quic] => {
            format!(
                "{text}; since the start {http} and {quic} REFUSED, see [limits] in larder.toml"
            )
        }
    })
}

fn space_text(space: &SpaceFacts) -> String {
    let kept = space.kept_free_bytes.saturating_add(space.promised_bytes);
    let (available, total) = (bytes(space.available_bytes), bytes(space.total_bytes));
    let room = match space.available_bytes.saturating_sub(kept) {
        0 => "FULL: pushes are refused, 'larder gc' makes room".to_owned(),
        left => format!("{} for pushes", bytes(left)),
    };
    format!("{available} of {total} free, {room}")
}

fn quota_text(status: &BoxStatus) -> Option<String> {
    let quota = status.space.quota_bytes?;
    let stored = status.caches.iter().map(|cache| cache.stored_bytes).sum::<u64>();
    let (text, beyond) = (bytes(stored), bytes(stored.saturating_sub(quota)));
    Some(match stored > quota {
        true => format!("{text}, {beyond} BEYOND {}: the next collection frees it", bytes(quota)),
        false => format!("{text} of {}", bytes(quota)),
    })
}

fn clock_text(clock: &ClockFacts, now: u64) -> String {
    let problem = clock.problem.as_deref().unwrap_or("not trusted");
    let left = match clock.pause_left {
        0 => String::new(),
        left => format!(", {} left", span(left)),
    };
    format!("paused at {}: {problem}{left}", moment(now))
}

fn check_text(check: &CheckFacts) -> String {
    if let Some(running) = &check.running {
        let (done, total) = (bytes(running.done_bytes), bytes(running.total_bytes));
        return format!("running: {done} of {total}");
    }
    match &check.last {
        None => "none since the start; 'larder fsck' makes one".to_owned(),
        Some(last) => {
            let ended = moment(last.ended_at);
            match (&last.error, last.damaged.len()) {
                (Some(error), _) => format!("failed at {ended}: {error}"),
                (None, 0) => format!("all was well at {ended}"),
                (None, 1) => format!("1 thing was damaged at {ended}"),
                (None, damaged) => format!("{damaged} things were damaged at {ended}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> BoxStatus {
        let text = r#"{"version":"0.0.1","name":"office","device_id":"abcd-efgh","started_at":100,
            "now":3800,"caches":[{"name":"main","url_path":"/main","public":true,
            "signing":"managed","public_keys":[],"priority":30,"root_position":1,"description":"",
            "created_at":0,"paths_visible":7,"paths_hidden":1}],
            "store":{"paths_visible":7,"paths_hidden":1,"nars":7,"nar_bytes":3145728,"chunks":40,
            "damaged_chunks":0,"pack_files":1,"pack_bytes":1048576},
            "pushes":{"under_way":0,"stored":7,"known":2,"hidden":1,"kept_first":0,"refused":3},
            "http_connections":0,"check":{"running":null,"last":null}}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn one_screen_tells_how_the_box_is() {
        let expected = "\
box        office, larder 0.0.1, up 1 h 1 min
device ID  abcd-efgh
caches     main: 7 paths, 1 hidden
store      7 paths, 1 hidden
           3.0 MiB of NARs in 1.0 MiB on disk (40 chunks, 1 pack)
pushes     0 under way; since the start: 7 stored, 2 known, 1 hidden, 0 kept the first, 3 refused
check      none since the start; 'larder fsck' makes one
";
        assert_eq!(text(&status()), expected);
        assert!(is_healthy(&status()));
    }

    #[test]
    fn connections_are_shown_and_more_so_when_some_were_refused() {
        let some = Some;
        let mut connected = status();
        connected.connections = ConnectionFacts {
            http_connections: some(12),
            http_connections_refused: some(0),
            quic_connections: some(1),
            quic_connections_refused: some(0),
        };
        let line = "connections  12 HTTP, 1 of pushers and administrators\n";
        assert!(text(&connected).contains(line), "{}", text(&connected));
        connected.connections.http_connections_refused = some(7);
        assert!(text(&connected).contains("; since the start 7 and 0 REFUSED"));
    }

    #[test]
    fn a_clock_that_is_not_trusted_is_shown() {
        let mut paused = status();
        let clock = r#"{"trusted":false,"pause_left":7200,"problem":"it has jumped"}"#;
        paused.clock = Some(serde_json::from_str(clock).unwrap());
        let expected = "CLOCK      paused at 1970-01-01 01:03 UTC: it has jumped, 2 h 0 min left\n";
        assert!(text(&paused).contains(expected), "{}", text(&paused));
        assert!(is_healthy(&paused));
    }

    #[test]
    fn damage_is_unhealthy_and_shown() {
        let mut damaged = status();
        damaged.store.damaged_chunks = 2;
        assert!(!is_healthy(&damaged));
        assert!(text(&damaged).contains("DAMAGED    2 chunks;"), "{}", text(&damaged));

        let mut checked = status();
        let last = r#"{"started_at":1,"ended_at":60,"error":null,"records":1,"bytes":1,"paths":1,
            "damaged":["pack 1: a record"]}"#;
        checked.check.last = Some(serde_json::from_str(last).unwrap());
        assert!(!is_healthy(&checked));
        let expected = "check      1 thing was damaged at 1970-01-01 00:01 UTC";
        assert!(text(&checked).contains(expected), "{}", text(&checked));
    }
}
