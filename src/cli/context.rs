//! What the commands on a user's machine begin with: configuration, tokens, the device key, and
//! the way to the box.

use std::env;
use std::path::PathBuf;

use crate::cli::args::Global;
use crate::cli::exit::{Complaint, Exit};
use crate::cli::output::Output;
use crate::client::administration::Administration;
use crate::client::box_client::{Connector, Notice};
use crate::client::config::ClientConfig;
use crate::client::host::{Host, Target};
use crate::client::places::Places;
use crate::client::signing_keys::SigningKeys;
use crate::client::tokens::Purpose;
use crate::client::{device_key, tokens};

/// What was said on every command's line.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) output: Output,
    pub(super) host: Option<Host>,
    pub(super) config: Option<PathBuf>,
}

impl Context {
    /// `LARDER_HOST` says the host where the command line does not; empty it says nothing.
    pub(super) fn new(global: &Global) -> anyhow::Result<Self> {
        let variable = env::var("LARDER_HOST").ok().filter(|text| !text.is_empty());
        let host = match (&global.host, variable) {
            (Some(host), _) => Some(host.clone()),
            (None, Some(text)) => {
                let host = text.parse();
                Some(host.map_err(|error| Complaint::usage(format!("LARDER_HOST: {error}")))?)
            }
            (None, None) => None,
        };
        Ok(Self { output: Output::new(global), host, config: global.config.clone() })
    }

    pub(super) fn places(&self) -> anyhow::Result<Places> {
        Ok(Places::new(self.config.as_deref(), |name| env::var_os(name))?)
    }

    /// All that it takes to connect.
    pub(super) fn connector(&self) -> anyhow::Result<Connector> {
        self.connector_for(Purpose::Use)
    }

    fn connector_for(&self, purpose: Purpose) -> anyhow::Result<Connector> {
        let places = self.places()?;
        let config = ClientConfig::read(&places.config_file)?;
        let mut tokens =
            tokens::at_hand(|name| env::var_os(name), &config, &places.box_folder, purpose)?;
        let is_box_here = places.box_folder.join("VERSION").exists();
        let target = Target::choose(self.host.clone(), &config, is_box_here);
        if let Target::Named(host) = &target
            && let Some(paired) = config.paired(host)
        {
            tokens.retain(|token| token.device_id() == paired);
            if tokens.is_empty() {
                let message = format!("there is no token for the box {paired}, paired as {host}");
                return Err(Complaint::new(Exit::NotAuthorised, message)
                    .with_hint(
                        "fetch one with 'larder pair BOX --code CODE', or 'larder authtoken'",
                    )
                    .into());
            }
        }
        let device_seed = device_key::load_or_make(&places.device_key_file)?;
        let output = self.output.clone();
        let notice = Notice::new(move |sentence| output.note(sentence));
        Ok(Connector { target, tokens, device_seed, notice })
    }

    /// Where keys for self-signed caches come from.
    pub(super) fn signing_keys(&self) -> anyhow::Result<SigningKeys> {
        let folder = self.places()?.signing_keys_folder;
        Ok(SigningKeys::new(|name| env::var_os(name), folder)?)
    }

    /// Connects for administration, does it, and says goodbye however it ended: a box keeps a place
    /// for who has only fallen silent.
    pub(super) async fn administer<T>(
        &self,
        work: impl AsyncFnOnce(&Administration) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let connector = self.connector_for(Purpose::Administration)?;
        let administration = Administration::over(connector.connect().await?);
        let done = work(&administration).await;
        administration.close().await;
        done
    }
}
