use proptest::prelude::*;

use super::*;

/// The greeting of a daemon of the given minor version, up to its last word.
fn greeting(minor: u64) -> Vec<u8> {
    let mut words = Request::default().number(0x6478_696f).number(1 << 8 | minor);
    if minor >= 38 {
        words = words.number(1).text("a-feature");
    }
    if minor >= 33 {
        words = words.text("2.99");
    }
    if minor >= 35 {
        words = words.number(2);
    }
    bytes_of(words.number(LAST))
}

const NEXT: u64 = 0x6f6c_6d67;
const LAST: u64 = 0x616c_7473;
const ERROR: u64 = 0x6378_7470;

fn bytes_of(request: Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.send(&mut bytes).unwrap();
    bytes
}

/// What the daemon says is all there before it is asked; what it is told is kept.
#[derive(Debug)]
struct Script {
    says: io::Cursor<Vec<u8>>,
    heard: Vec<u8>,
}

impl Read for Script {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.says.read(bytes)
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.heard.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn greet(says: Vec<u8>) -> Result<Line<Script>, DaemonError> {
    Line::greet(Script { says: io::Cursor::new(says), heard: Vec::new() })
}

fn greeted(answer: Request) -> Line<Script> {
    let mut says = greeting(37);
    says.extend(bytes_of(answer));
    greet(says).unwrap()
}

fn path() -> StorePath {
    "7h7qgvs4kgzsn8a6rb273saxyqh4jxlz-thing".parse().unwrap()
}

fn facts(hash: &str) -> Request {
    let request = Request::default().number(LAST).number(1).text("").text(hash);
    let request = request.number(1).text(&path().to_absolute()).number(1_700_000_000).number(120);
    request.number(0).number(1).text("no signature").text("fixed:r:sha256:x")
}

#[test]
fn every_version_of_the_protocol_is_greeted() {
    for minor in [32, 33, 34, 35, 37, 38, 39, 99] {
        let line = greet(greeting(minor)).unwrap_or_else(|error| panic!("{minor}: {error}"));
        let script = line.0.get_ref();
        assert!(line.0.buffer().is_empty());
        assert_eq!(script.says.position(), u64::try_from(script.says.get_ref().len()).unwrap());
        let mut heard = Request::default().number(0x6e69_7863).number(1 << 8 | 38);
        if minor >= 38 {
            heard = heard.number(0);
        }
        assert_eq!(script.heard, bytes_of(heard.number(0).number(0)), "{minor}");
    }
}

#[test]
fn who_is_no_daemon_of_ours_is_told_from_one_that_hangs_up() {
    let of = |says: Vec<u8>| greet(says).unwrap_err();
    assert!(matches!(of(Vec::new()), DaemonError::Unwelcome));
    assert!(matches!(of(b"HTTP/1.1 400 Bad Request\r\n".to_vec()), DaemonError::Foreign));
    for minor in [10, 31] {
        let error = of(greeting(minor));
        assert!(matches!(error, DaemonError::Version { major: 1, minor: its } if its == minor));
    }
    let two = bytes_of(Request::default().number(0x6478_696f).number(2 << 8));
    assert!(matches!(of(two), DaemonError::Version { major: 2, minor: 0 }));
    let mut says = greeting(38);
    for cut in (0..says.len()).rev() {
        says.truncate(cut);
        assert!(matches!(of(says.clone()), DaemonError::Unwelcome), "{cut}");
    }
}

#[test]
fn facts_are_read_and_checked() {
    let info = |request| {
        let facts = greeted(request).path_info(&path()).unwrap().unwrap();
        facts.into_info(&path())
    };
    let found = info(facts(&"ab".repeat(32))).unwrap();
    assert_eq!(found.nar_hash.as_bytes(), &[0xab; 32]);
    assert_eq!((found.nar_size, found.deriver, found.references), (120, None, vec![path()]));
    assert_eq!(found.ca.as_deref(), Some("fixed:r:sha256:x"));
    assert_eq!(found.signatures, []);
    let error = info(facts("zz")).unwrap_err();
    assert!(matches!(error, NixStoreError::Fact { field: "hash", .. }));

    let absent = Request::default().number(LAST).number(0);
    assert!(greeted(absent).path_info(&path()).unwrap().is_none());
    let mut line = greeted(Request::default().number(LAST).number(1));
    assert!(line.is_valid(&path()).unwrap());
    let asked = bytes_of(Request::default().number(1).text(&path().to_absolute()));
    assert!(line.0.get_ref().heard.ends_with(&asked));
}

#[test]
fn what_the_daemon_says_beside_the_answer_is_passed_over() {
    let activity = Request::default().number(0x5354_5254).number(7).number(3).number(100);
    let activity = activity.text("copying").number(2).number(0).number(5).number(1).text("x");
    let result = activity.number(0).number(0x5253_4c54).number(7).number(101).number(0);
    let stop = result.number(0x5354_4f50).number(7);
    let said = stop.number(NEXT).text("\u{1b}[35;1mwarning:\u{1b}[0m something\n");
    assert!(greeted(said.number(LAST).number(1)).is_valid(&path()).unwrap());
}

#[test]
fn an_error_of_the_daemon_is_passed_on_and_the_next_question_works() {
    let error = Request::default().number(ERROR).text("Error").number(0).text("Error");
    let error = error.text("\u{1b}[31;1merror:\u{1b}[0m the disk\nis full").number(0);
    let error = error.number(1).number(0).text("while thinking");
    let mut line = greeted(error.number(LAST).number(0));
    let said = line.is_valid(&path()).unwrap_err();
    assert!(matches!(said, DaemonError::Said(text) if text == "error: the disk is full"));
    assert!(!line.is_valid(&path()).unwrap());
}

#[test]
fn answers_that_make_no_sense_are_refused() {
    let refused = |answer| greeted(answer).path_info(&path()).unwrap_err();
    let number = |number| Request::default().number(number);
    assert!(matches!(refused(number(77)), DaemonError::Malformed("message")));
    assert!(matches!(refused(number(LAST).number(2)), DaemonError::Malformed("truth value")));
    let huge = number(NEXT).number(u64::MAX);
    assert!(matches!(refused(huge), DaemonError::TooLong { length: u64::MAX, .. }));
    let field = number(0x5253_4c54).number(1).number(2).number(1).number(9);
    assert!(matches!(refused(field), DaemonError::Malformed("field")));
    let position = number(ERROR).text("Error").number(0).text("").text("x").number(1);
    assert!(matches!(refused(position), DaemonError::Malformed("position")));
    let many = number(LAST).number(1).text("").text("x").number(1 << 40);
    assert!(matches!(refused(many), DaemonError::TooLong { .. }));

    let whole = bytes_of(facts(&"ab".repeat(32)));
    for cut in 0..whole.len() {
        let mut says = greeting(38);
        says.extend(whole.get(..cut).unwrap());
        let error = greet(says).unwrap().path_info(&path()).unwrap_err();
        assert!(matches!(error, DaemonError::Closed), "{cut}: {error}");
    }
}

#[test]
fn messages_without_end_end() {
    let mut flood = Request::default();
    for _ in 0..70_000 {
        flood = flood.number(NEXT).text("");
    }
    let error = greeted(flood).is_valid(&path()).unwrap_err();
    assert!(matches!(error, DaemonError::Malformed("flood of messages")));
}

#[test]
fn silence_is_told_from_a_hang_up() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    assert!(matches!(Line::greet(ours).unwrap_err(), DaemonError::Silent));
    drop(theirs);
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    assert!(matches!(Line::greet(ours).unwrap_err(), DaemonError::Unwelcome));
}

proptest! {
    #[test]
    fn garbage_is_an_error(garbage in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut says = greeting(38);
        says.extend(&garbage);
        prop_assert!(greet(says).unwrap().path_info(&path()).is_err());
        let _refused = greet(garbage);
    }
}
