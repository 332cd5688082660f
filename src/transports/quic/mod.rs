//! The push protocol: the box's [`QuicServer`] and [`Sessions`], the client's [`BoxConnection`].
//!
//! It goes over QUIC and, where UDP is blocked, over TLS; `link` is the seam, and nothing above it
//! knows the difference. These files move bytes and time; what is said when is decided by `wire`.

mod client;
mod connect;
mod endpoint;
pub mod identity;
mod link;
mod pair;
mod receive;
mod room;
mod send;
mod session;
mod stream;
mod transport;

pub use client::{BoxConnection, RequestError};
pub use connect::{ConnectError, ConnectOptions};
pub use endpoint::{QuicError, QuicServer};
pub use identity::{Identity, IdentityError};
pub use link::LinkError;
pub use pair::{look, meet, pair};
pub use send::{ChunkSource, SourceError};
pub use session::{AdminHandler, QuicParts, Sessions};
pub use stream::StreamError;
