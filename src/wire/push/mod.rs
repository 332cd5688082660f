//! The push conversation as two state machines: [`Sender`] on the client, [`Receiver`] on the
//! box. Events go in, actions come out; neither reads a socket or a clock. PROTOCOL.md, "Push".

mod check;
mod receiver;
mod sender;

pub use receiver::{Receiver, ReceiverAction, ReceiverEvent};
pub use sender::{Sender, SenderAction, SenderError, SenderEvent};
