//! What the command says, word for word: `tests/transcripts/`.
//!
//! `TRYCMD=overwrite cargo test --test it transcripts` writes down what it says now; read the
//! difference before you commit it.

use tempfile::TempDir;

#[test]
fn every_command_says_what_it_said() {
    let home = TempDir::new().unwrap();
    let cases = trycmd::TestCases::new();
    cases.register_bin("larder", trycmd::schema::Bin::Path(env!("CARGO_BIN_EXE_larder").into()));
    cases.insert_var("[VERSION]", env!("CARGO_PKG_VERSION")).unwrap();
    for variable in ["LARDER_AUTH_TOKEN", "CACHIX_AUTH_TOKEN", "LARDER_CONFIG", "NIX_REMOTE"] {
        cases.env(variable, "");
    }
    cases.env("HOME", home.path().display().to_string());
    cases.case("tests/transcripts/*.trycmd");
}
