//! `larder discover`

use std::net::SocketAddr;

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::transports::discovery::browse::{BROWSE_TIME_DEFAULT, FoundBox, browse};

#[derive(Serialize)]
struct Boxes {
    boxes: Vec<ShownBox>,
}

#[derive(Serialize)]
struct ShownBox {
    name: String,
    device_id: String,
    addresses: Vec<String>,
    http_port: u16,
    quic_port: u16,
    version: String,
    caches: Vec<String>,
}

impl From<FoundBox> for ShownBox {
    fn from(found: FoundBox) -> Self {
        Self {
            name: found.name.to_string(),
            device_id: found.device_id.to_string(),
            addresses: found.addresses.iter().map(SocketAddr::to_string).collect(),
            http_port: found.http_port,
            quic_port: found.quic_port,
            version: found.version,
            caches: found.caches.iter().map(ToString::to_string).collect(),
        }
    }
}

pub(super) async fn run(context: &Context) -> anyhow::Result<Exit> {
    let boxes: Vec<_> =
        browse(BROWSE_TIME_DEFAULT).await?.into_iter().map(ShownBox::from).collect();
    if boxes.is_empty() {
        context.output.note("no box announces itself on this network");
    }
    context.output.data(&Boxes { boxes }, |Boxes { boxes }| text(boxes))?;
    Ok(Exit::Done)
}

fn text(boxes: &[ShownBox]) -> String {
    if boxes.is_empty() {
        return String::new();
    }
    let heads = ["NAME", "ADDRESS", "DEVICE ID", "VERSION", "CACHES"].map(str::to_owned).to_vec();
    let row = |found: &ShownBox| {
        let address = found.addresses.first().cloned().unwrap_or_default();
        let (name, id) = (found.name.clone(), found.device_id.clone());
        vec![name, address, id, found.version.clone(), found.caches.join(", ")]
    };
    output::table(&std::iter::once(heads).chain(boxes.iter().map(row)).collect::<Vec<_>>())
}
