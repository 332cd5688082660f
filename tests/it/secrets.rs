//! Nothing secret is said where it does not have to be: a whole run, and then a search for every
//! secret in everything that was said.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use data_encoding::{BASE64, HEXLOWER};
use larder::wire::{DeviceId, TokenText};

use crate::fixture::larder::{Start, TestBox};
use crate::fixture::nix::NixStore;

/// What must not be found, and what it is.
struct Secret {
    what: &'static str,
    text: Vec<u8>,
}

/// What was said, and where.
#[derive(Default)]
struct Said(Vec<(String, Vec<u8>)>);

impl Said {
    fn add(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.into(), bytes.into()));
    }

    fn run(&mut self, command: &mut Command) -> Output {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let name = format!("{:?}", command.get_args().collect::<Vec<_>>());
        self.add(format!("output of {name}"), output.stdout.clone());
        self.add(format!("errors of {name}"), output.stderr.clone());
        output
    }

    fn http(&mut self, larder: &TestBox, method: &str, path: &str, authorization: &str) {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = ureq::http::Request::builder().method(method).uri(larder.url(path));
        let request = request.header("Authorization", authorization).body(()).unwrap();
        let mut answer = agent.run(request).unwrap();
        self.add(format!("head of {path}"), format!("{:?}", answer.headers()));
        self.add(format!("body of {path}"), answer.body_mut().read_to_vec().unwrap());
    }

    #[track_caller]
    fn assert_silent_about(&self, secrets: &[Secret]) {
        for Secret { what, text } in secrets {
            assert!(text.len() >= 16, "{what} is too short to look for");
            for (place, bytes) in &self.0 {
                let found = bytes.windows(text.len()).any(|window| window == text.as_slice());
                assert!(!found, "{what} is in {place}");
            }
        }
    }
}

/// A token's secret part in the forms that it could leak in.
fn forms(what: &'static str, token: &str) -> Vec<Secret> {
    let parsed: TokenText = token.parse().unwrap();
    let part = token.rsplit('_').next().unwrap();
    let basic = BASE64.encode(format!("anybody:{token}").as_bytes());
    vec![
        // A part is as bad as the whole: what is left can be guessed.
        Secret { what, text: part[..26].into() },
        Secret { what, text: part[26..].into() },
        Secret { what, text: basic[60..].into() },
        Secret { what, text: parsed.secret().to_vec() },
        Secret { what, text: HEXLOWER.encode(parsed.secret()).into() },
    ]
}

/// What the box and the user keep secret in files.
fn keys(larder: &TestBox) -> Vec<Secret> {
    let index = rusqlite::Connection::open(larder.data().join("larder.db")).unwrap();
    let signing: String =
        index.query_row("SELECT secret FROM cache_keys", [], |row| row.get(0)).unwrap();
    let signing = signing.rsplit(':').next().unwrap().to_owned();
    let identity = fs::read_to_string(larder.data().join("identity.key")).unwrap();
    let device = larder.data().join("../home/.local/share/larder/device.key");
    let device = fs::read(device).unwrap().trim_ascii().to_vec();
    vec![
        // Its second half is the public key.
        Secret { what: "the signing key", text: signing[..40].into() },
        Secret { what: "the identity", text: identity.trim().into() },
        Secret { what: "the device key", text: device },
    ]
}

/// The command lines of everything that runs here.
fn command_lines() -> Vec<u8> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.collect::<Vec<_>>().concat()
}

/// What lies in the data folder, but for the files that are for secrets.
fn files(larder: &TestBox, said: &mut Said) {
    for folder in ["", "packs", "tmp"] {
        for entry in fs::read_dir(larder.data().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let is_for_secrets = ["admin.token", "identity.key"].map(|name| path.ends_with(name));
            if path.is_file() && !is_for_secrets.contains(&true) {
                said.add(path.display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
}

/// Tokens of every kind, good and bad.
struct Tokens {
    owner: String,
    writer: String,
    reader: String,
    revoked: String,
    wrong: String,
    elsewhere: String,
}

impl Tokens {
    /// Makes them. Each is printed once, and that is the only place.
    fn new(larder: &TestBox, said: &mut Said) -> Self {
        let mut make = |args: &[&str]| {
            let args = [&["token", "create", "--json", "-vvv"], args].concat();
            let made = larder.command(args).stdin(Stdio::null()).output().unwrap();
            let text: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
            said.add("talk of token create", made.stderr);
            (text["secret"].as_str().unwrap().to_owned(), text["token"]["id"].to_string())
        };
        let (writer, _) = make(&["--cache", "main:write", "--label", "CI"]);
        let (reader, _) = make(&["--cache", "main:read"]);
        let (revoked, id) = make(&["--cache", "main"]);
        said.run(&mut larder.command(["token", "revoke", &id, "--json", "-vvv"]));
        let device_id: DeviceId = larder.device_id.parse().unwrap();
        let wrong = TokenText::new(device_id, [0x5a; 32]).to_secret_text();
        let elsewhere = TokenText::new(DeviceId([7; 20]), [0xa5; 32]).to_secret_text();
        Self { owner: larder.token.clone(), writer, reader, revoked, wrong, elsewhere }
    }

    fn with_names(&self) -> [(&'static str, &str); 6] {
        [
            ("the owner's token", &self.owner),
            ("a writer's token", &self.writer),
            ("a reader's token", &self.reader),
            ("a revoked token", &self.revoked),
            ("a wrong token", &self.wrong),
            ("a token for another box", &self.elsewhere),
        ]
    }
}

/// Pushes, and looks at the processes meanwhile.
fn push(larder: &TestBox, said: &mut Said, token: &str, paths: &[String]) {
    let args = [&["push".to_owned(), "main".to_owned(), "-vvv".to_owned()], paths].concat();
    let mut push = larder.command(args);
    push.env("LARDER_AUTH_TOKEN", token).stdin(Stdio::null());
    let push = push.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    said.add("the list of processes", command_lines());
    let pushed = push.wait_with_output().unwrap();
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    said.add("talk of a push", [pushed.stdout, pushed.stderr].concat());
}

/// Shows every token, and asks for all that is printed, with everything said that can be said.
fn use_over_quic(larder: &TestBox, said: &mut Said, tokens: &Tokens) {
    let shown = tokens.with_names().map(|(_, token)| token);
    for (place, token) in shown.into_iter().chain([&tokens.writer[..80]]).enumerate() {
        let mut status = larder.command(["status", "--json", "-vvv"]);
        let ended = said.run(status.env("LARDER_AUTH_TOKEN", token));
        let expected = if place == 0 { 0 } else { 4 };
        let talk = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(expected), "{place}: {talk}");
    }
    for args in [
        &["token", "list"][..],
        &["token", "list", "--json"],
        &["cache", "list", "--json"],
        &["cache", "show", "main"],
        &["log", "main", "--json"],
        &["fsck", "--json"],
        &["token", "create", "--label", "two\nlines"],
    ] {
        said.run(&mut larder.command(args));
    }
    let mut save = larder.command(["authtoken", "--stdin", "--json", "-vvv"]);
    save.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut save = save.spawn().unwrap();
    save.stdin.take().unwrap().write_all(tokens.writer.as_bytes()).unwrap();
    let saved = save.wait_with_output().unwrap();
    said.add("what authtoken prints", [saved.stdout, saved.stderr].concat());
}

/// Shows every token in every form.
fn use_over_http(larder: &TestBox, said: &mut Said, tokens: &Tokens, narinfo: &str) {
    let shown = tokens.with_names().map(|(_, token)| token);
    for token in shown.into_iter().chain([&tokens.writer[..80]]) {
        let basic = format!("Basic {}", BASE64.encode(format!("anybody:{token}").as_bytes()));
        for authorization in [format!("Bearer {token}"), basic, format!("Strange {token}")] {
            for (method, path) in [
                ("GET", narinfo),
                ("GET", "main/nix-cache-info"),
                ("GET", "private/nix-cache-info"),
                ("GET", "api/larder/v1/tokens"),
                ("GET", "api/larder/v1/nothing"),
                ("POST", "api/larder/v1/tokens"),
                ("PUT", "main/x.narinfo"),
            ] {
                said.http(larder, method, path, &authorization);
            }
        }
    }
    said.http(larder, "GET", "metrics", "");
}

#[test]
fn nothing_secret_is_said() {
    let nix = NixStore::new();
    let graph = nix.build_graph("secrets");
    let big = nix.big_path("secrets", 16 << 20).to_absolute();
    let larder = TestBox::start_as(Start { args: vec!["-vvv".to_owned()], ..Start::default() });
    let mut said = Said::default();
    let tokens = Tokens::new(&larder, &mut said);
    push(&larder, &mut said, &tokens.writer, &[big, graph.top.to_absolute()]);
    use_over_quic(&larder, &mut said, &tokens);
    let narinfo = format!("main/{}.narinfo", graph.top.hash());
    use_over_http(&larder, &mut said, &tokens, &narinfo);
    said.add("the box's log", larder.log());
    assert!(larder.log().contains("DEBUG") && larder.log().contains("TRACE"));
    files(&larder, &mut said);

    let secrets = tokens.with_names().into_iter().flat_map(|(what, token)| forms(what, token));
    let secrets: Vec<_> = secrets.collect();
    said.assert_silent_about(&secrets);
    // The index is where the signing key is at home.
    said.0.retain(|(place, _)| !place.contains("larder.db"));
    said.assert_silent_about(&keys(&larder));
    let bytes: usize = said.0.iter().map(|(_, bytes)| bytes.len()).sum();
    println!("looked for {} texts in {} places, {bytes} bytes", secrets.len() + 3, said.0.len());
}
