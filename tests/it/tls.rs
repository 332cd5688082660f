//! HTTPS on the port of plain HTTP, with configured files and without.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use tempfile::TempDir;

use crate::fixture::larder::{Start, TestBox};
use crate::fixture::nix::{NixStore, SecondStore};

/// Longer than a box takes to look at its files again.
const RENEWED_WITHIN: Duration = Duration::from_secs(60);

/// An authority of our own, and files that it made.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// Bytes as PEM (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line)).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, "an authority of a test");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(parameters, new_key()).unwrap();
        fs::write(folder.path().join("ca.pem"), pem("CERTIFICATE", issuer.as_ref().der())).unwrap();
        Self { folder, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a certificate and its key for these names, good until a year.
    fn write(&self, names: &[&str], last_year: i32) {
        let key = new_key();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.not_before = date_time_ymd(2000, 1, 1);
        parameters.not_after = date_time_ymd(last_year, 1, 1);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.path("box.pem"), pem("CERTIFICATE", certificate.der())).unwrap();
        fs::write(self.path("box.key"), pem("PRIVATE KEY", &key.serialize_der())).unwrap();
    }

    fn settings(&self) -> String {
        let (certificate, key) = (self.path("box.pem"), self.path("box.key"));
        format!("tls_certificate = {certificate:?}\ntls_key = {key:?}\n")
    }

    fn start(&self) -> TestBox {
        TestBox::start_as(Start { settings: Some(self.settings()), ..Start::default() })
    }
}

fn curl<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new("curl").args(["-sS", "--max-time", "60"]).args(arguments).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// Checks that a client which trusts the authority is content, in both versions of HTTP.
fn assert_trusted(larder: &TestBox, authority: &Authority, host: &str) {
    let ca = authority.path("ca.pem");
    for (option, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let url = format!("https://{host}:{}/nix-cache-info", larder.http.port());
        let answer =
            curl(["--cacert", ca.to_str().unwrap(), option, "-w", " %{http_version}", &url]);
        assert!(answer.status.success(), "{}", told(&answer));
        assert!(told(&answer).contains("StoreDir: /nix/store"), "{}", told(&answer));
        assert!(told(&answer).ends_with(&format!(" {version}")), "{}", told(&answer));
    }
}

/// Checks that plain HTTP answers, and HTTPS for those who do not look at certificates.
fn assert_rest_works(larder: &TestBox) {
    let path = format!("{}/nix-cache-info", larder.http);
    for url in [format!("http://{path}"), format!("https://{path}")] {
        let answer = curl(["-k", url.as_str()]);
        assert!(told(&answer).contains("StoreDir"), "{url}: {}", told(&answer));
    }
    assert!(larder.run(["status"]).status.success());
}

#[test]
fn nix_substitutes_by_https_from_a_box_with_a_certificate() {
    let nix = NixStore::new();
    let graph = nix.build_graph("https");
    let authority = Authority::new();
    authority.write(&["localhost", "127.0.0.1"], 2099);
    let larder = authority.start();
    larder.push("main", &[graph.top.to_absolute()]);
    assert_trusted(&larder, &authority, "localhost");

    let url = format!("https://localhost:{}/main", larder.http.port());
    let second = SecondStore::new(&url, &larder.public_key);
    let substitute = |ca: &Path| {
        let mut command = second.command("nix-store");
        command.args(["-r", &graph.top.to_absolute(), "--option", "ssl-cert-file"]).arg(ca);
        command.env("NIX_SSL_CERT_FILE", ca).output().unwrap()
    };
    let other = Authority::new();
    assert!(!substitute(&other.path("ca.pem")).status.success(), "another authority");
    let substituted = substitute(&authority.path("ca.pem"));
    assert!(substituted.status.success(), "{}", told(&substituted));
}

#[test]
fn who_pins_the_box_gets_its_own_certificate_whatever_is_configured() {
    let authority = Authority::new();
    authority.write(&["localhost"], 2099);
    let larder = TestBox::start_as(Start {
        settings: Some(authority.settings()),
        args: ["--quic-listen", "127.0.0.2:0"].map(str::to_owned).to_vec(),
        ..Start::default()
    });
    assert_trusted(&larder, &authority, "localhost");
    let mut command = larder.command(["status"]);
    let status = command.env("LARDER_HOST", larder.http.to_string()).output().unwrap();
    assert!(status.status.success(), "{}", told(&status));
    assert!(told(&status).contains("using TLS over TCP"), "{}", told(&status));
}

/// What is wrong, how it comes about, and what the box says of it.
type Case = (&'static str, fn(&Authority), &'static str);

#[test]
fn files_that_are_no_use_are_named_and_the_rest_works() {
    let cases: [Case; 5] = [
        ("missing", |_| {}, "cannot read"),
        (
            "mismatched",
            |authority| {
                authority.write(&["localhost"], 2099);
                fs::write(
                    authority.path("box.key"),
                    pem("PRIVATE KEY", &new_key().serialize_der()),
                )
                .unwrap();
            },
            "is not the one of the certificate",
        ),
        (
            "no key",
            |authority| {
                authority.write(&["localhost"], 2099);
                fs::copy(authority.path("box.pem"), authority.path("box.key")).unwrap();
            },
            "holds no private key",
        ),
        (
            "no certificate",
            |authority| {
                authority.write(&["localhost"], 2099);
                fs::write(authority.path("box.pem"), "nothing\n").unwrap();
            },
            "holds no certificate",
        ),
        (
            "unreadable",
            |authority| {
                authority.write(&["localhost"], 2099);
                fs::remove_file(authority.path("box.key")).unwrap();
                fs::create_dir(authority.path("box.key")).unwrap();
            },
            "cannot read",
        ),
    ];
    for (name, make, expected) in cases {
        let authority = Authority::new();
        make(&authority);
        let larder = authority.start();
        assert_rest_works(&larder);
        assert!(larder.log().contains(expected), "{name}: {}", larder.log());
        assert!(told(&larder.run(["status"])).contains(expected), "{name}");
    }
}

#[test]
fn an_expired_certificate_is_shown_and_said() {
    let authority = Authority::new();
    authority.write(&["localhost"], 2020);
    let larder = authority.start();
    assert_rest_works(&larder);
    assert!(larder.log().contains("expired"), "{}", larder.log());
    let ca = authority.path("ca.pem");
    let url = format!("https://localhost:{}/nix-cache-info", larder.http.port());
    let refused = curl(["--cacert", ca.to_str().unwrap(), &url]);
    assert!(told(&refused).contains("expired"), "{}", told(&refused));
}

#[test]
fn a_renewed_certificate_is_picked_up() {
    let authority = Authority::new();
    let larder = authority.start();
    assert!(larder.log().contains("cannot read"), "{}", larder.log());
    authority.write(&["localhost"], 2099);
    let ca = authority.path("ca.pem");
    let url = format!("https://localhost:{}/nix-cache-info", larder.http.port());
    let deadline = Instant::now() + RENEWED_WITHIN;
    while !curl(["--cacert", ca.to_str().unwrap(), &url]).status.success() {
        assert!(Instant::now() < deadline, "{}", larder.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    // One that is no use leaves the one before in place.
    fs::write(authority.path("box.key"), "half\n").unwrap();
    let deadline = Instant::now() + RENEWED_WITHIN;
    while !larder.log().contains("as before") {
        assert_trusted(&larder, &authority, "localhost");
        assert!(Instant::now() < deadline, "{}", larder.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_trusted(&larder, &authority, "localhost");
}

/// An address of this machine that is not loopback, if it has one.
fn own_address() -> Option<SocketAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent (RFC 5737).
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok()
}

#[test]
fn from_elsewhere_administration_answers_by_tls_and_to_the_boxs_names() {
    let Some(address) = own_address() else {
        println!("skipped, as this machine has no address but loopback");
        return;
    };
    let authority = Authority::new();
    authority.write(&["nix.example.org"], 2099);
    let larder = TestBox::start_as(Start {
        listen: Some("0.0.0.0:0".to_owned()),
        settings: Some(authority.settings()),
        ..Start::default()
    });
    let ask = |scheme: &str, host: &str| {
        let place = format!("{}:{}", address.ip(), larder.http.port());
        let to = format!("{host}:{}:{place}", larder.http.port());
        let url = format!("{scheme}://{host}:{}/api/larder/v1/status", larder.http.port());
        let token = format!("Authorization: Bearer {}", larder.token);
        let status = ["-o", "/dev/null", "-w", "%{http_code}"];
        let answer = curl(
            ["-k", "--connect-to", &to, "-H", &token]
                .into_iter()
                .chain(status)
                .chain([url.as_str()]),
        );
        told(&answer)
    };
    let ip = address.ip().to_string();
    assert_eq!(ask("http", &ip), "403");
    for host in [ip.as_str(), "test", "test.local", "TEST.local", "nix.example.org"] {
        assert_eq!(ask("https", host), "200", "{host}");
    }
    for host in ["evil.example", "test.example.org", "local"] {
        assert_eq!(ask("https", host), "403", "{host}");
    }
}
