//! Nix's configuration on a user's machine: `larder use` puts a cache into it, `larder remove`
//! takes it out again, and nothing else in the files changes.

mod conf;
mod error;
mod file;
#[cfg(fuzzing)]
pub mod fuzzed;
mod machine;
mod mode;
mod netrc;
mod nixos;
mod plan;
mod settings;

pub use conf::UsedCache;
pub use error::NixConfigError;
pub use machine::{Machine, NIX_MIN};
pub use mode::{Mode, NoMode, Wish};
pub use plan::{Plan, PlanError, ShownChange, Use, used_in};
