//! `larder serve` as a person and as systemd start it: what it says, what it refuses, how it stops.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

const LARDER: &str = env!("CARGO_BIN_EXE_larder");
/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder for one box's data and settings.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// `larder serve` on any free port of loopback, with `arguments` behind.
    fn serve(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(LARDER);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(self.data());
        command.args(arguments).env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        command
    }

    /// Starts a box, and reads what it prints up to the mention of its token's file.
    fn start(&self) -> (Running, String) {
        let mut process = self.serve(&[]).stdout(Stdio::piped()).spawn().expect("start the box");
        let mut printed = BufReader::new(process.stdout.take().expect("its output"));
        let running = Running(process);
        let mut summary = String::new();
        while !summary.contains("admin.token") {
            let read = printed.read_line(&mut summary).expect("read its summary");
            assert!(read > 0, "it ended after {summary:?}");
        }
        (running, summary)
    }

    /// Starts a box that is expected to refuse.
    fn refused(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let Output { status, stderr, .. } = self.serve(arguments).output().expect("run it");
        (status.code(), String::from_utf8_lossy(&stderr).into_owned())
    }
}

struct Running(Child);

impl Running {
    fn terminate(&mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").arg(pid).status().expect("kill").success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.0.wait().expect("wait for the box").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail where the test has seen the end already.
        let _killed = self.0.kill();
        let _waited = self.0.wait();
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").permissions().mode() & 0o777
}

#[test]
fn a_new_box_says_who_it_is_and_stops_when_asked() {
    let place = Place::new();
    let (mut running, summary) = place.start();

    for expected in ["http://127.0.0.1:", "main.", "admin.token"] {
        assert!(summary.contains(expected), "{expected}: {summary}");
    }
    let token = place.data().join("admin.token");
    let text = fs::read_to_string(&token).expect("the token");
    assert!(text.starts_with("ldr_") && text.ends_with('\n'), "{text:?}");
    assert_eq!(mode(&token), 0o600);
    assert_eq!(mode(&place.data().join("identity.key")), 0o600);

    running.terminate();
    assert_eq!(running.exit_code(), Some(0));
}

#[test]
fn a_box_that_starts_again_is_the_same_box() {
    let place = Place::new();
    let (mut running, first) = place.start();
    let token = fs::read(place.data().join("admin.token")).expect("the token");
    running.terminate();
    running.exit_code();

    let (_running, second) = place.start();

    let without_port = |summary: &str| {
        let words = summary.split_whitespace().filter(|word| !word.contains("127.0.0.1"));
        words.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(without_port(&first), without_port(&second));
    assert_eq!(fs::read(place.data().join("admin.token")).expect("the token"), token);
}

#[test]
fn a_typo_in_the_settings_is_named_with_the_right_key() {
    let place = Place::new();
    let file = place.folder.path().join("larder.toml");
    fs::write(&file, "[store]\nreader = 2\n").expect("settings");

    let (code, said) = place.refused(&["--config", file.to_str().expect("UTF-8")]);

    assert_eq!(code, Some(2), "{said}");
    let expected = "line 2: there is no setting 'store.reader'; did you mean 'store.readers'?";
    assert!(said.contains(expected), "{said}");
    assert!(said.contains("larder.toml"), "{said}");
    assert!(!place.data().exists(), "nothing was made");
}

#[test]
fn a_taken_port_is_named_and_leaves_nothing_behind() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();

    let mut command = Command::new(LARDER);
    command.args(["serve", "--listen", &address, "--data"]).arg(place.data());
    let output = command.output().expect("run it");

    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let port = address.rsplit(':').next().expect("a port");
    assert!(said.contains(port) && said.contains("--listen"), "{said}");
    assert!(!place.data().exists(), "nothing was made");
}

#[test]
fn a_second_box_on_the_same_data_is_refused() {
    let place = Place::new();
    let (_running, _summary) = place.start();

    let (code, said) = place.refused(&[]);

    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another larder is using"), "{said}");
}

#[test]
fn data_of_a_newer_larder_is_refused_and_left_alone() {
    let place = Place::new();
    let (mut running, _summary) = place.start();
    running.terminate();
    running.exit_code();
    let version = place.data().join("VERSION");
    let written = fs::read_to_string(&version).expect("VERSION");
    let newer = written.replace(|digit: char| digit.is_ascii_digit(), "1000");
    assert_ne!(newer, written, "it says a format");
    fs::write(&version, &newer).expect("VERSION");

    let (code, said) = place.refused(&[]);

    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("format 1000"), "{said}");
    assert_eq!(fs::read_to_string(&version).expect("VERSION"), newer);
}

#[test]
fn systemd_is_told_that_it_is_ready_that_it_lives_and_that_it_stops() {
    let place = Place::new();
    let path = place.folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let heard = |wanted: &str| {
        let mut message = [0; 1024];
        loop {
            let length = socket.recv(&mut message).expect(wanted);
            let text = String::from_utf8_lossy(&message[..length]);
            if text.lines().any(|line| line == wanted) {
                return;
            }
        }
    };
    let mut command = place.serve(&[]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000").env_remove("WATCHDOG_PID");
    let process = command.stdout(Stdio::null()).spawn().expect("start the box");
    let mut running = Running(process);

    heard("READY=1");
    heard("WATCHDOG=1");
    heard("WATCHDOG=1");
    running.terminate();
    heard("STOPPING=1");
    assert_eq!(running.exit_code(), Some(0));
}
