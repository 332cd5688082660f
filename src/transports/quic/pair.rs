//! Before there is a token: which box is there, what it offers to everybody, and a token for a
//! pairing code.

use std::net::SocketAddr;

use tokio::time::timeout;

use crate::formats::limits::{HANDSHAKE_MAX, MESSAGE_BYTES_MAX};
use crate::formats::signature::SecretKey;
use crate::transports::quic::connect::{self, ConnectError};
use crate::transports::quic::stream::{MessageReader, MessageWriter, StreamError};
use crate::transports::quic::transport::CloseReason;
use crate::wire::hello::{Capabilities, Hello, ProtocolRange, Welcome};
use crate::wire::message::{BoxMessage, ClientMessage, Message};
use crate::wire::pairing::{Pair, Paired};
use crate::wire::{DeviceId, PairingCode, TokenText, Violation};

/// The ID that the first of the addresses shows where a box answers. **Nothing is proven by it**
/// until a connection accepts that very ID.
///
/// # Errors
///
/// [`ConnectError`], above all that nobody answers.
pub async fn meet(addresses: &[SocketAddr]) -> Result<(SocketAddr, DeviceId), ConnectError> {
    // Who accepts nobody hears from everybody who they are.
    match connect::reach(addresses, &[]).await {
        Ok(reached) => Ok((reached.link.remote_address(), reached.device_id)),
        Err(ConnectError::WrongDevice { address, found, .. }) => Ok((address, found)),
        Err(error) => Err(error),
    }
}

/// What the box of that ID says of itself and its caches, to who greets it with that token, or to
/// everybody; and where it answered.
///
/// `device_seed` is that of the client's device key; it matters to a token that is for one device.
///
/// # Errors
///
/// [`ConnectError`]; [`WrongDevice`](ConnectError::WrongDevice) if another box answers.
pub async fn look(
    addresses: &[SocketAddr],
    device_id: DeviceId,
    token: Option<&TokenText>,
    device_seed: &[u8; 32],
    agent: String,
) -> Result<(SocketAddr, Welcome), ConnectError> {
    let device = SecretKey::from_seed("device", device_seed)?;
    let reached = connect::reach(addresses, &[device_id]).await?;
    let token = token.map(TokenText::to_secret_text).unwrap_or_default();
    let hello = Hello {
        protocols: ProtocolRange::OURS,
        agent,
        token: token.into(),
        device_key: *device.public_key().as_bytes(),
        capabilities: Capabilities::OURS,
    };
    let greeted = timeout(HANDSHAKE_MAX * 2, connect::greet(&reached.link, hello)).await;
    let address = reached.link.remote_address();
    reached.link.close(CloseReason::Done).await;
    let (welcome, _control) = greeted.unwrap_or(Err(ConnectError::Greeting(None)))?;
    Ok((address, welcome))
}

/// Shows a pairing code to the box of that ID and no other, and gets a token for it, with the
/// box's name.
///
/// # Errors
///
/// [`ConnectError`]; [`Refused`](ConnectError::Refused) if the code is not good.
pub async fn pair(
    addresses: &[SocketAddr],
    device_id: DeviceId,
    code: PairingCode,
    agent: String,
) -> Result<(String, TokenText), ConnectError> {
    let reached = connect::reach(addresses, &[device_id]).await?;
    let code = code.to_secret_text().into();
    let pair = Pair { protocols: ProtocolRange::OURS, agent, code };
    let asked = async {
        let broken = |error| ConnectError::Greeting(Some(error));
        let opened = reached.link.open_bi().await;
        let (send, recv) = opened.map_err(|error| broken(StreamError::Read(error)))?;
        let mut writer = MessageWriter::new(send);
        let mut reader = MessageReader::new(recv, MESSAGE_BYTES_MAX);
        let sent = writer.send(&ClientMessage::Pair(pair)).await;
        match reader.next().await.map_err(broken)? {
            Some(answer) => token_of(answer, device_id),
            None => Err(ConnectError::Greeting(sent.err())),
        }
    };
    let token = timeout(HANDSHAKE_MAX * 2, asked).await;
    reached.link.close(CloseReason::Done).await;
    token.unwrap_or(Err(ConnectError::Greeting(None)))
}

fn token_of(answer: BoxMessage, device_id: DeviceId) -> Result<(String, TokenText), ConnectError> {
    match answer {
        BoxMessage::Paired(Paired { box_name, token }) => {
            let token = token.as_str().parse::<TokenText>().ok();
            let token = token.filter(|token| token.device_id() == device_id);
            Ok((box_name, token.ok_or(Violation::Name)?))
        }
        BoxMessage::Refused(refusal) => Err(ConnectError::Refused(refusal)),
        other => {
            let place = "as the answer to a pairing code";
            Err(Violation::OutOfTurn { message: other.name(), place }.into())
        }
    }
}
