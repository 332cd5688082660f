//! Ctrl-C in long commands that can be gone on with.

use tokio::signal;

use crate::cli::context::Context;
use crate::cli::exit::Exit;

/// Runs `push` to its end, or until somebody presses Ctrl-C: then what is under way is let go, and
/// the box keeps what it took for the next push.
pub(super) async fn ends(
    context: &Context,
    push: impl Future<Output = anyhow::Result<Exit>>,
) -> anyhow::Result<Exit> {
    tokio::select! {
        ended = push => ended,
        Ok(()) = signal::ctrl_c() => {
            context.output.note(
                "interrupted; what has arrived stays on the box for a day, and the next push of \
                 the same paths sends only the rest",
            );
            Ok(Exit::Interrupted)
        }
    }
}
