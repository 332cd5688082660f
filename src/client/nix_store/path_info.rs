//! What Nix's database says about a store path.

use rusqlite::{OptionalExtension, Row};

use crate::client::nix_store::NixStore;
use crate::client::nix_store::error::NixStoreError;
use crate::formats::{PathInfo, StorePath};

/// Source: `schema.sql` and `LocalStore::queryPathInfoInternal` in `src/libstore/local-store.cc`
/// (Nix 2.34; the same since 2.0).
const FACTS: &str = "SELECT id, hash, narSize, deriver, sigs, ca FROM ValidPaths WHERE path = ?1";
const REFERENCES: &str = "SELECT ValidPaths.path FROM Refs \
                          JOIN ValidPaths ON ValidPaths.id = Refs.reference \
                          WHERE Refs.referrer = ?1";

/// A row of `ValidPaths`, not looked at yet.
struct Facts {
    id: i64,
    hash: String,
    nar_size: Option<i64>,
    deriver: Option<String>,
    signatures: Option<String>,
    ca: Option<String>,
}

impl NixStore {
    /// The facts about one path; `None` if it is not valid.
    ///
    /// Signatures that Nix took from elsewhere and that are none are left out: they prove nothing.
    ///
    /// # Errors
    ///
    /// [`NixStoreError::Query`], or [`NixStoreError::Row`] where a fact cannot be read.
    ///
    /// # Cost
    ///
    /// Two look-ups by index; no file of the path is touched.
    pub fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>, NixStoreError> {
        let absolute = path.to_absolute();
        let mut facts = self.database.prepare_cached(FACTS)?;
        let Some(facts) = facts.query_row([&absolute], Facts::read).optional()? else {
            return Ok(None);
        };
        let mut references = self.database.prepare_cached(REFERENCES)?;
        let references = references.query_map([facts.id], |row| row.get(0))?;
        let references = references.collect::<Result<Vec<String>, _>>()?;
        facts
            .into_info(path, &references)
            .map(Some)
            .map_err(|NoSuch(field)| NixStoreError::Row { path: absolute, field })
    }

    /// Whether the database takes the path for valid.
    ///
    /// # Errors
    ///
    /// [`NixStoreError::Query`].
    pub fn is_valid(&self, path: &StorePath) -> Result<bool, NixStoreError> {
        let mut facts = self.database.prepare_cached(FACTS)?;
        Ok(facts.exists([path.to_absolute()])?)
    }
}

/// The field that says something that cannot be.
struct NoSuch(&'static str);

impl Facts {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            hash: row.get(1)?,
            nar_size: row.get(2)?,
            deriver: row.get(3)?,
            signatures: row.get(4)?,
            ca: row.get(5)?,
        })
    }

    fn into_info(self, path: &StorePath, references: &[String]) -> Result<PathInfo, NoSuch> {
        let nar_size = self.nar_size.and_then(|size| u64::try_from(size).ok());
        let references = references.iter().map(|text| StorePath::from_absolute(text));
        let deriver = self.deriver.filter(|text| !text.is_empty());
        let deriver = deriver.map(|text| StorePath::from_absolute(&text)).transpose();
        let signatures = self.signatures.unwrap_or_default();
        let mut info = PathInfo {
            store_path: path.clone(),
            nar_hash: self.hash.parse().map_err(|_digits| NoSuch("hash"))?,
            nar_size: nar_size.filter(|size| *size > 0).ok_or(NoSuch("size"))?,
            references: references
                .collect::<Result<_, _>>()
                .map_err(|_text| NoSuch("reference"))?,
            deriver: deriver.map_err(|_text| NoSuch("deriver"))?,
            ca: self.ca.filter(|text| !text.is_empty()),
            signatures: signatures.split(' ').filter_map(|text| text.parse().ok()).collect(),
        };
        info.sort_references();
        Ok(info)
    }
}
