//! Many at once, and those who are slow: what one client takes is not taken from the others.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use larder::formats::NarInfo;

use crate::fixture::larder::{Start, TestBox};
use crate::fixture::nix::NixStore;
use crate::fixture::served::narinfo;

/// Longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(60);

fn start(settings: &str) -> TestBox {
    TestBox::start_as(Start { settings: Some(settings.to_owned()), ..Start::default() })
}

fn connect(larder: &TestBox) -> TcpStream {
    let stream = TcpStream::connect(larder.http).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn ask(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
}

/// The length that the head of an answer promises; the head is read, and not a byte more.
fn head(stream: &mut TcpStream) -> u64 {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.unwrap().parse().unwrap()
}

fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut body = vec![0; usize::try_from(head(stream)).unwrap()];
    stream.read_exact(&mut body).unwrap();
    body
}

fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0) | Err(_))
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A box with a path whose NAR does not compress.
fn with_path(settings: &str, seed: &str, bytes: u64) -> (NixStore, TestBox, NarInfo) {
    let nix = NixStore::new();
    let larder = start(settings);
    let path = nix.big_path(seed, bytes);
    larder.push("main", &[path.to_absolute()]);
    let narinfo = narinfo(&larder, "main", &path).unwrap();
    (nix, larder, narinfo)
}

fn connections(larder: &TestBox) -> u64 {
    larder.json(["status"])["http_connections"].as_u64().unwrap()
}

#[test]
fn who_is_idle_makes_room_for_who_comes() {
    let larder = start("[limits]\nconnections = 4\n");
    let mut open = VecDeque::new();
    for _ in 0..60 {
        let mut stream = connect(&larder);
        ask(&mut stream, "nix-cache-info");
        assert!(!answer(&mut stream).is_empty());
        open.push_back(stream);
    }
    // The last ones are kept, the first ones were let go, and the owner gets in.
    let mut last = open.pop_back().unwrap();
    ask(&mut last, "nix-cache-info");
    assert!(!answer(&mut last).is_empty());
    assert!(is_closed(&mut open.pop_front().unwrap()));
    assert!(connections(&larder) <= 4 + 16, "this machine has some more");
    let status = larder.json(["status"]);
    assert_eq!(status["http_connections_refused"], 0, "{status}");
    let shown = larder.run(["status"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("connections"));
}

#[test]
fn a_head_byte_by_byte_is_cut_off_and_silence_between_requests_is_not() {
    let larder = start("[http]\nhead_timeout = \"1 s\"\n");
    let mut idle = connect(&larder);
    ask(&mut idle, "nix-cache-info");
    assert!(!answer(&mut idle).is_empty());
    let mut slow = connect(&larder);
    let begun = Instant::now();
    slow.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut drip = b"GET / HTTP/1.1\r\nX-Long: ".iter().copied().chain(std::iter::repeat(b'x'));
    loop {
        let is_sent = slow.write_all(&[drip.next().unwrap()]).is_ok();
        let is_open = match slow.read(&mut [0; 64]) {
            Ok(read) => read > 0,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        };
        if !(is_sent && is_open) {
            break;
        }
        assert!(begun.elapsed() < SOON, "it is let in for ever");
    }
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    ask(&mut idle, "nix-cache-info");
    assert!(!answer(&mut idle).is_empty(), "an idle one is left alone");
}

#[test]
fn who_reads_slowly_is_waited_for_and_who_stands_still_is_not() {
    let (_nix, larder, narinfo) = with_path("[http]\nstall_timeout = \"1 s\"\n", "slow", 40 << 20);
    let before = connections(&larder);
    let mut still = connect(&larder);
    ask(&mut still, &narinfo.url);
    let mut slow = connect(&larder);
    ask(&mut slow, &narinfo.url);
    let whole = head(&mut slow);
    let (begun, mut read) = (Instant::now(), 0);
    let mut piece = vec![0; usize::try_from(whole / 60).unwrap()];
    while read < whole {
        let wanted = piece.len().min(usize::try_from(whole - read).unwrap());
        slow.read_exact(&mut piece[..wanted]).expect("it is not broken off");
        read += u64::try_from(wanted).unwrap();
        thread::sleep(Duration::from_millis(200));
    }
    assert!(begun.elapsed() > Duration::from_secs(10), "ten times as long as it may stand still");
    drop(slow);
    wait_until("who takes nothing is let go", || connections(&larder) <= before);
    let mut rest = Vec::new();
    let _broken_off = still.read_to_end(&mut rest);
    assert!(u64::try_from(rest.len()).unwrap() < whole, "and gets no whole NAR");
}

#[test]
fn nars_are_read_for_no_more_clients_than_there_is_memory_for() {
    let (_nix, larder, narinfo) = with_path("[limits]\ntransfers = 2\n", "transfers", 32 << 20);
    // This machine has half of them.
    let mut still = connect(&larder);
    ask(&mut still, &format!("main/{}", narinfo.url));
    head(&mut still);
    let mut next = connect(&larder);
    ask(&mut next, &format!("main/{}", narinfo.url));
    let mut other = connect(&larder);
    ask(&mut other, "nix-cache-info");
    assert!(answer(&mut other).starts_with(b"StoreDir"));
    next.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(next.read(&mut [0]).is_err(), "it was answered beside the one that stands still");
    next.set_read_timeout(Some(SOON)).unwrap();
    drop(still);
    let body = answer(&mut next);
    assert_eq!(u64::try_from(body.len()).unwrap(), narinfo.file_size.unwrap());
    // Who asks again on the same connection is answered again.
    ask(&mut next, &format!("main/{}", narinfo.url));
    assert_eq!(answer(&mut next), body);
}

#[test]
fn many_who_read_nars_do_not_keep_anybody_waiting_for_a_narinfo() {
    let (_nix, larder, narinfo) = with_path("", "many", 48 << 20);
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..64)
        .map(|_| {
            let (mut stream, url, over) =
                (connect(&larder), narinfo.url.clone(), Arc::clone(&over));
            thread::spawn(move || {
                let mut piece = vec![0; 64 << 10];
                while !over.load(Ordering::Relaxed) {
                    ask(&mut stream, &url);
                    let mut left = head(&mut stream);
                    while left > 0 && !over.load(Ordering::Relaxed) {
                        let read = stream.read(&mut piece).unwrap();
                        assert_ne!(read, 0, "a transfer is whole");
                        left -= u64::try_from(read).unwrap();
                    }
                }
            })
        })
        .collect();
    wait_until("they read", || connections(&larder) >= 64);
    let mut other = connect(&larder);
    let mut took = Vec::new();
    for number in 0..200 {
        // Each a miss or a hit: both go to the index or to what is kept of it.
        let hash = narinfo.info.store_path.hash();
        let begun = Instant::now();
        ask(&mut other, &format!("{hash}.narinfo?{number}"));
        assert!(!answer(&mut other).is_empty());
        took.push(begun.elapsed());
    }
    over.store(true, Ordering::Relaxed);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    took.sort();
    let (middle, most) = (took[took.len() / 2], took[took.len() - 1]);
    println!("a narinfo beside 64 readers of NARs: {middle:?} in the middle, {most:?} at most");
    assert!(middle < Duration::from_millis(250) && most < Duration::from_secs(3));
}

#[test]
fn a_box_takes_as_many_open_files_as_it_is_given() {
    let larder = TestBox::start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", larder.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words[3], words[4], "{line}");
}
