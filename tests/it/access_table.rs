//! docs/access.md, walked: every token, cache, action and transport, on a real box.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use larder::formats::{NarInfo, StorePath};
use larder::wire::message::{AdminRequest, BoxMessage, ClientMessage, Offer};
use larder::wire::{DeviceId, Refusal, RefusalCode, TokenText};
use ureq::Agent;

use crate::fixture::larder::TestBox;
use crate::fixture::nix::NixStore;
use crate::fixture::raw_quic::{Heard, RawClient, device_key, hello};

const PAGE: &str = include_str!("../../docs/access.md");
const EXPIRED_WITHIN: Duration = Duration::from_secs(30);

/// How one comes to the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Http,
    Tls,
    Quic,
}

/// What one wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Read,
    Write,
    Admin,
}

impl Transport {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Http, "HTTP"), (Self::Tls, "TLS"), (Self::Quic, "QUIC")];
}

impl Action {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Read, "read"), (Self::Write, "write"), (Self::Admin, "admin")];
}

/// The caches of the table's last columns.
const CACHES: [&str; 3] = ["open", "secret", "nowhere"];

/// A cell's place in the page: token, action, transport and cache.
type Place = (String, &'static str, &'static str, &'static str);

/// What the page says, for the transports that this test knows.
fn page() -> BTreeMap<Place, String> {
    let mut cells = BTreeMap::new();
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    for row in rows {
        let [token, action, over, ends @ ..] = &*row.split(" | ").collect::<Vec<_>>() else {
            panic!("no row of the table: {row}")
        };
        let Some((_, action)) = Action::ALL.into_iter().find(|(_, name)| name == action) else {
            assert!(matches!(*token, "token" | "---"), "what does '{action}' mean?");
            continue;
        };
        for (_, transport) in Transport::ALL {
            if over.split(", ").any(|it| it == transport) {
                for (cache, end) in CACHES.into_iter().zip(ends) {
                    let place = ((*token).to_owned(), action, transport, cache);
                    let twice = cells.insert(place, (*end).to_owned());
                    assert_eq!(twice, None, "two rows say the same: {row}");
                }
            }
        }
    }
    cells
}

/// A box with a public and a private cache, which both have one path.
struct World {
    larder: TestBox,
    path: NarInfo,
    tokens: Vec<(&'static str, Option<String>)>,
    _nix: NixStore,
}

impl World {
    fn new() -> Self {
        let nix = NixStore::new();
        let larder = TestBox::start();
        larder.create_cache("open", &[]);
        larder.create_cache("secret", &["--private"]);
        larder.create_cache("elsewhere", &["--private"]);
        let path: StorePath = nix.big_path("table", 1000);
        for cache in ["open", "secret"] {
            larder.push(cache, &[path.to_absolute()]);
        }
        let mut narinfo = agent().get(larder.url(&format!("open/{}.narinfo", path.hash())));
        narinfo = narinfo.header("Authorization", format!("Bearer {}", larder.token));
        let text = narinfo.call().unwrap().body_mut().read_to_string().unwrap();
        let tokens = tokens(&larder);
        Self { larder, path: text.parse().unwrap(), tokens, _nix: nix }
    }

    async fn ask(
        &self,
        transport: Transport,
        action: Action,
        token: Option<&str>,
        cache: &str,
    ) -> String {
        match transport {
            Transport::Http => self.by_http("http", action, token, cache).to_string(),
            Transport::Tls => self.by_http("https", action, token, cache).to_string(),
            Transport::Quic => self.by_quic(action, token.unwrap_or_default(), cache).await,
        }
    }

    /// The status, which is the same for both ways to show a token.
    fn by_http(&self, scheme: &str, action: Action, token: Option<&str>, cache: &str) -> u16 {
        let narinfo = format!("{cache}/{}.narinfo", self.path.info.store_path.hash());
        let basic = token.map(|it| BASE64.encode(format!("anybody:{it}").as_bytes()));
        let ways = [token.map(|it| format!("Bearer {it}")), basic.map(|it| format!("Basic {it}"))];
        let files = match action {
            Action::Read => vec![
                format!("{cache}/nix-cache-info"),
                narinfo,
                format!("{cache}/{}", self.path.url),
            ],
            Action::Write => vec![narinfo],
            Action::Admin => vec![format!("api/larder/v1/caches/{cache}")],
        };
        let mut ends = Vec::new();
        for file in files {
            let url = self.larder.url(&file).replace("http", scheme);
            ends.extend(
                ways.iter().map(|way| status(&url, action == Action::Write, way.as_deref())),
            );
        }
        assert!(ends.iter().all(|end| *end == ends[0]), "{cache} with {token:?}: {ends:?}");
        ends[0]
    }

    async fn by_quic(&self, action: Action, token: &str, cache: &str) -> String {
        let device_id = self.larder.device_id.parse().unwrap();
        let client = RawClient::connect(self.larder.quic, device_id).await;
        let mut control = client.open().await;
        control.say(&hello(token)).await;
        match control.hear().await {
            Heard::Message(BoxMessage::Welcome(_)) if token.is_empty() => {
                assert!(matches!(control.hear().await, Heard::Broken | Heard::End));
                return "closed".to_owned();
            }
            Heard::Message(BoxMessage::Welcome(_)) => {}
            Heard::Message(BoxMessage::Refused(refusal)) => return name_of(&refusal),
            other => panic!("{other:?}"),
        }
        let mut stream = client.open().await;
        stream.say(&self.message(action, cache)).await;
        match stream.hear().await {
            Heard::Message(BoxMessage::Missing { .. } | BoxMessage::Done(_)) => "yes".to_owned(),
            Heard::Message(BoxMessage::Admin(response)) => response.status.to_string(),
            Heard::Message(BoxMessage::Refused(refusal)) => name_of(&refusal),
            other => panic!("{other:?}"),
        }
    }

    fn message(&self, action: Action, cache: &str) -> ClientMessage {
        let info = self.path.info.clone();
        let cache = cache.parse().unwrap();
        match action {
            Action::Read => ClientMessage::Missing { cache, hashes: vec![info.store_path.hash()] },
            Action::Write => {
                let signature = device_key().sign(info.fingerprint().as_bytes());
                let device_signature = signature.as_bytes().to_vec();
                let offer = Offer { info, device_signature };
                ClientMessage::Offer { cache, offer, inline: Vec::new() }
            }
            Action::Admin => {
                let path = format!("/api/larder/v1/caches/{cache}");
                ClientMessage::Admin(AdminRequest { method: "GET".into(), path, body: Vec::new() })
            }
        }
    }
}

const AUTHORIZATION: &str = "Authorization";

/// What curl is answered, whoever the certificate is from.
fn status(url: &str, is_put: bool, authorization: Option<&str>) -> u16 {
    let mut curl = Command::new("curl");
    curl.args(["-ksS", "--max-time", "60", "-o", "/dev/null", "-w", "%{http_code}"]);
    if let Some(authorization) = authorization {
        curl.args(["-H", &format!("{AUTHORIZATION}: {authorization}")]);
    }
    if is_put {
        curl.args(["-X", "PUT", "--data-binary", "StorePath: x"]);
    }
    let told = curl.arg(url).output().unwrap();
    assert!(told.status.success(), "{url}: {}", String::from_utf8_lossy(&told.stderr));
    str::from_utf8(&told.stdout).unwrap().parse().unwrap()
}

fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).build().into()
}

fn name_of(refusal: &Refusal) -> String {
    match refusal.code {
        RefusalCode::Unauthorised => "unauthorised",
        RefusalCode::Forbidden => "forbidden",
        RefusalCode::NoSuchCache => "no such cache",
        _ => panic!("{refusal}"),
    }
    .to_owned()
}

/// One token of each kind that the page has.
fn tokens(larder: &TestBox) -> Vec<(&'static str, Option<String>)> {
    let made = larder.json(["token", "create", "--cache", "secret", "--expires", "1s"]);
    let expired = made["secret"].as_str().unwrap().to_owned();
    let revoked = larder.json(["token", "create", "--cache", "secret"]);
    larder.json(["token", "revoke", &revoked["token"]["id"].to_string()]);
    wait_until_expired(larder, &expired);
    let other_box = TokenText::new(DeviceId([7; 20]), [3; 32]).to_secret_text();
    let for_both =
        |right: &str| larder.create_token(&[&format!("open:{right}"), &format!("secret:{right}")]);
    vec![
        ("none", None),
        ("personal", Some(larder.token.clone())),
        ("read", Some(for_both("read"))),
        ("write", Some(for_both("write"))),
        ("readwrite", Some(for_both("readwrite"))),
        ("other", Some(larder.create_token(&["elsewhere:readwrite"]))),
        ("expired", Some(expired)),
        ("revoked", Some(revoked["secret"].as_str().unwrap().to_owned())),
        ("of another box", Some(other_box)),
        ("malformed", Some("ldr_x".to_owned())),
    ]
}

fn wait_until_expired(larder: &TestBox, token: &str) {
    let since = Instant::now();
    let url = larder.url("secret/nix-cache-info");
    let bearer = format!("Bearer {token}");
    while agent().get(&url).header(AUTHORIZATION, &bearer).call().unwrap().status() != 401 {
        assert!(since.elapsed() < EXPIRED_WITHIN, "the token does not expire");
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cell_of_the_page_is_what_the_box_does() {
    let mut page = page();
    let world = World::new();
    let mut wrong = Vec::new();
    for (token_name, token) in &world.tokens {
        for (action, action_name) in Action::ALL {
            for (transport, transport_name) in Transport::ALL {
                for cache in CACHES {
                    let place = ((*token_name).to_owned(), action_name, transport_name, cache);
                    let found = world.ask(transport, action, token.as_deref(), cache).await;
                    match page.remove(&place) {
                        Some(expected) if expected == found => {}
                        expected => wrong.push((place, expected, found)),
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "place, what the page says, what the box does: {wrong:#?}");
    assert!(page.is_empty(), "the page has rows of tokens that nobody has tried: {page:?}");
}
