//! A data folder on a disk of its own that is full, read-only, or away.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::fixture::larder::{Start, TestBox};
use crate::fixture::nix::NixStore;
use crate::fixture::served::{assert_served, get};

/// Longer than the box lets pass until it tries a disk that failed once more.
const SEEN_WITHIN: Duration = Duration::from_secs(30);

/// A disk in memory, a folder of which is mounted as the data folder. Unmounted when dropped.
struct Disk {
    folder: Arc<TempDir>,
    disk: PathBuf,
}

impl Disk {
    /// Nothing where nobody may mount, which is a failure with `CI` set.
    fn or_skip() -> Option<Self> {
        let folder = Arc::new(TempDir::with_prefix("larder-box").unwrap());
        let disk = folder.path().join("disk");
        fs::create_dir(&disk).unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        let text = disk.display().to_string();
        if let Err(error) = mount(&["-t", "tmpfs", "-o", "size=96m", "none", &text]) {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            println!("skipped, as nothing can be mounted: {error}");
            return None;
        }
        let made = Self { folder, disk };
        fs::create_dir(made.disk.join("data")).unwrap();
        made.attach();
        Some(made)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn attach(&self) {
        let [from, to] = [self.disk.join("data"), self.data()].map(|it| it.display().to_string());
        mount(&["--bind", &from, &to]).unwrap();
    }

    /// Takes the disk away while files on it are open.
    fn detach(&self) {
        unmount(&self.data()).unwrap();
    }

    fn remount(&self, how: &str) {
        let data = self.data().display().to_string();
        mount(&["-o", &format!("remount,bind,{how}"), &data]).unwrap();
    }

    fn start(&self) -> Result<TestBox, String> {
        let settings = Some("[store]\nmin_free = \"1 MiB\"\npack_size = \"16 MiB\"".to_owned());
        TestBox::try_start_in(Arc::clone(&self.folder), Start { settings, ..Start::default() })
    }

    /// Takes what room there is.
    fn fill(&self) -> PathBuf {
        let path = self.disk.join("filler");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The first is not there while the disk is away.
        let _away = unmount(&self.data());
        let _gone = unmount(&self.disk);
    }
}

fn mount(args: &[&str]) -> Result<(), String> {
    let output = Command::new("mount").args(args).output().map_err(|error| error.to_string())?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(error) }
}

fn unmount(path: &Path) -> Result<(), String> {
    let output = Command::new("umount").arg("-l").arg(path).output();
    let output = output.map_err(|error| error.to_string())?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(error) }
}

fn readiness(larder: &TestBox) -> String {
    String::from_utf8(get(&larder.url("readyz")).unwrap()).unwrap()
}

fn wait_until_ready(larder: &TestBox) {
    let started = Instant::now();
    while readiness(larder) != "ready\n" {
        assert!(started.elapsed() < SEEN_WITHIN, "{}", readiness(larder));
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_full_disk_is_said_and_left_behind_as_soon_as_there_is_room() {
    let Some(disk) = Disk::or_skip() else { return };
    let (nix, mut larder) = (NixStore::new(), disk.start().unwrap());
    let (kept, more) = (nix.big_path("kept", 300_000), nix.big_path("more", 300_000));
    larder.push("main", &[kept.to_absolute()]);

    let filler = disk.fill();
    let refused = larder.run(["push", "main", &more.to_absolute()]);
    assert_eq!(refused.status.code(), Some(8), "{}", String::from_utf8_lossy(&refused.stderr));
    // The index's log has room of its own for a while.
    let mut refused = larder.run(["cache", "create", "c0"]);
    for number in 1.. {
        if !refused.status.success() {
            break;
        }
        assert!(number < 200, "nothing is refused");
        refused = larder.run(["cache", "create", &format!("c{number}")]);
    }
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("disk is full"), "{said}");
    assert!(readiness(&larder).contains("ready for readers"), "{}", readiness(&larder));
    let status = larder.run(["status"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(said.contains("DISK FAILS") && said.contains("FULL"), "{said}");
    assert_eq!(status.status.code(), Some(1));
    assert_served(&larder, &nix, &kept);

    // Started now, it serves, or says what it lacks.
    larder.kill();
    drop(larder);
    match disk.start() {
        Ok(larder) => assert_served(&larder, &nix, &kept),
        Err(error) => assert!(error.contains("make room on the disk"), "{error}"),
    }
    let larder = {
        fs::remove_file(&filler).unwrap();
        disk.start().unwrap()
    };
    larder.push("main", &[more.to_absolute()]);

    // And without a restart.
    let filler = disk.fill();
    while larder.run(["token", "create"]).status.success() {}
    assert!(readiness(&larder).contains("ready for readers"), "{}", readiness(&larder));
    fs::remove_file(&filler).unwrap();
    wait_until_ready(&larder);
    assert!(larder.run(["cache", "create", "room-again"]).status.success());
    assert_served(&larder, &nix, &kept);
    assert_served(&larder, &nix, &more);
}

#[test]
fn a_read_only_disk_is_said_at_the_start() {
    let Some(disk) = Disk::or_skip() else { return };
    let (nix, mut larder) = (NixStore::new(), disk.start().unwrap());
    let kept = nix.big_path("kept", 300_000);
    larder.push("main", &[kept.to_absolute()]);
    larder.stop();
    disk.remount("ro");
    let Err(error) = disk.start() else { panic!("it started") };
    assert!(error.contains("Read-only file system") && error.contains("writable"), "{error}");
    assert!(error.contains("exit status: 1"), "{error}");
    disk.remount("rw");
    let larder = disk.start().unwrap();
    assert_served(&larder, &nix, &kept);
}

#[test]
fn a_disk_that_was_away_for_a_while_has_lost_nothing() {
    let Some(disk) = Disk::or_skip() else { return };
    let (nix, mut larder) = (NixStore::new(), disk.start().unwrap());
    let (kept, more) = (nix.big_path("kept", 300_000), nix.big_path("more", 300_000));
    let after = nix.big_path("after", 300_000);
    larder.push("main", &[kept.to_absolute()]);
    // No pack is open for reading then.
    larder.stop();
    drop(larder);
    let larder = disk.start().unwrap();

    disk.detach();
    let url = get(&larder.url(&format!("main/{}.narinfo", kept.hash())));
    let url = url.map(|text| String::from_utf8(text).unwrap());
    let url = url.as_deref().and_then(|text| text.strip_prefix("StorePath")).map(str::to_owned);
    let url = url.and_then(|text| Some(text.lines().nth(1)?.strip_prefix("URL: ")?.to_owned()));
    let url = larder.url(&format!("main/{}", url.unwrap()));
    // Broken off, or a miss; never a clean end of something else.
    let read = ureq::get(&url).call().ok().and_then(|mut it| it.body_mut().read_to_vec().ok());
    assert_eq!(read, None);
    let pushed = larder.run(["push", "main", &more.to_absolute()]).status.success();
    let status = larder.run(["status"]);
    let said = String::from_utf8_lossy(&status.stderr).into_owned();
    assert!(!status.status.success() && said.contains("disk"), "{said}");
    assert!(readiness(&larder).contains("ready for readers"), "{}", readiness(&larder));

    disk.attach();
    wait_until_ready(&larder);
    assert_served(&larder, &nix, &kept);
    larder.push("main", &[after.to_absolute()]);
    assert_served(&larder, &nix, &after);
    if pushed {
        assert_served(&larder, &nix, &more);
    }
    assert_eq!(larder.json(["fsck"])["damaged"], serde_json::json!([]));
    // At a start it is missed, and no other folder is begun in its place.
    drop(larder);
    disk.detach();
    fs::write(disk.data().join("README"), "the disk goes here").unwrap();
    let Err(error) = disk.start() else { panic!("it started") };
    assert!(error.contains("is no data folder of larder"), "{error}");
    disk.attach();
    assert_served(&disk.start().unwrap(), &nix, &after);
}
