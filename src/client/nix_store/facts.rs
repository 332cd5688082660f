//! What Nix says about a store path, from its database or its daemon, before it is believed.

use crate::client::nix_store::error::NixStoreError;
use crate::formats::{PathInfo, StorePath};

/// The facts about a path as Nix tells them: texts that nobody has looked at yet.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// With its algorithm, `sha256:`.
    pub(super) nar_hash: String,
    pub(super) nar_size: Option<u64>,
    /// With the store's folder, as the deriver.
    pub(super) references: Vec<String>,
    /// Empty where there is none.
    pub(super) deriver: String,
    pub(super) signatures: Vec<String>,
    /// Empty where there is none.
    pub(super) ca: String,
}

impl Facts {
    /// Reads the texts. Signatures that Nix took from elsewhere and that are none are left out:
    /// they prove nothing.
    ///
    /// # Errors
    ///
    /// [`NixStoreError::Fact`] with the fact that cannot be.
    pub(super) fn into_info(self, path: &StorePath) -> Result<PathInfo, NixStoreError> {
        let none = |field| NixStoreError::Fact { path: path.clone(), field };
        let references = self.references.iter().map(|text| StorePath::from_absolute(text));
        let deriver = Some(self.deriver).filter(|text| !text.is_empty());
        let deriver = deriver.map(|text| StorePath::from_absolute(&text)).transpose();
        let mut info = PathInfo {
            store_path: path.clone(),
            nar_hash: self.nar_hash.parse().map_err(|_digits| none("hash"))?,
            nar_size: self.nar_size.filter(|size| *size > 0).ok_or_else(|| none("size"))?,
            references: references.collect::<Result<_, _>>().map_err(|_text| none("reference"))?,
            deriver: deriver.map_err(|_text| none("deriver"))?,
            ca: Some(self.ca).filter(|text| !text.is_empty()),
            signatures: self.signatures.iter().filter_map(|text| text.parse().ok()).collect(),
        };
        info.sort_references();
        Ok(info)
    }
}
