//! Putting a box together: settings to options, and the order of start and stop.

mod first_start;
pub mod logging;
mod notify;
mod open_files;
mod owner;
mod recover;
mod restore;
pub mod run;
pub mod settings;
mod settings_file;
mod sockets;
mod time_sync;

pub use first_start::ADMIN_TOKEN_FILE;
pub use owner::OwnerError;
pub use recover::{RecoverError, Recovered, recover_admin_token};
pub use restore::{RestoreError, restore_backup};
pub use run::{DaemonError, Summary, run};
pub use settings::{ServeOverrides, Settings};
pub use settings_file::SettingsError;
pub use sockets::SocketError;
