//! What other releases of Nix ask, as `tests/nix-matrix --record` wrote it down: replayed header
//! for header on as many connections, and answered rightly.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use larder::formats::{NarInfo, StorePath};
use serde::Deserialize;

use crate::fixture::larder::TestBox;
use crate::fixture::nix::{Graph, NixStore};
use crate::fixture::served::narinfo;

/// A request as it stands in a line of the recording. Placeholders are in braces: `host`, `absent`
/// (a path that nobody has), and for each path of the graph `NAME` and `nar:NAME`.
#[derive(Deserialize)]
struct Request {
    connection: u32,
    method: String,
    target: String,
    version: String,
    headers: Vec<(String, String)>,
}

/// An answer, its body as it came.
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// A box that has the graph, and what stands for the placeholders.
struct Scene {
    nix: NixStore,
    larder: TestBox,
    parts: BTreeMap<String, (StorePath, NarInfo)>,
}

impl Scene {
    fn new() -> Self {
        let (nix, larder) = (NixStore::new(), TestBox::start());
        let Graph { top, closure, .. } = nix.build_graph("recorded");
        larder.push("main", &[top.to_absolute()]);
        let part = |path: &StorePath| {
            let name = path.name().split('-').next().unwrap().to_owned();
            (name, (path.clone(), narinfo(&larder, "main", path).unwrap()))
        };
        let parts = closure.iter().map(part).collect();
        Self { nix, larder, parts }
    }

    fn filled_in(&self, text: &str) -> String {
        let mut text = text.replace("{host}", &self.larder.http.to_string());
        text = text.replace("{absent}", "7h7qgvs4kgzsn8a6rb273saxyqh4jxlz");
        for (name, (path, narinfo)) in &self.parts {
            text = text.replace(&format!("{{{name}}}"), &path.hash().to_string());
            text = text.replace(&format!("{{nar:{name}}}"), &narinfo.url);
        }
        assert!(!text.contains('{'), "what is that? {text}");
        text
    }

    /// Sends it just so, and reads the answer.
    fn ask(&self, stream: &mut BufReader<TcpStream>, request: &Request) -> Answer {
        let mut head = format!(
            "{} {} {}\r\n",
            request.method,
            self.filled_in(&request.target),
            request.version
        );
        for (name, value) in &request.headers {
            head.push_str(&format!("{name}: {}\r\n", self.filled_in(value)));
        }
        stream.get_mut().write_all(format!("{head}\r\n").as_bytes()).unwrap();
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(stream.read_line(&mut line).unwrap() > 0, "closed within {lines:?}");
            if line == "\r\n" {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &String| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        let headers: BTreeMap<_, _> = lines[1..].iter().map(header).collect();
        let length = headers.get("content-length").expect("a length").parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        Answer { status, headers, body }
    }

    fn check(&self, request: &Request, answer: &Answer) {
        let encoding = answer.headers.get("content-encoding").map_or("identity", String::as_str);
        let accepted = request.headers.iter().find(|(name, _)| name == "Accept-Encoding");
        let accepted = accepted.map_or("identity", |(_, value)| value);
        let body = match encoding {
            "identity" => answer.body.clone(),
            "zstd" if accepted.contains("zstd") => zstd::decode_all(&*answer.body).unwrap(),
            other => panic!("{other} for who accepts {accepted}"),
        };
        let target = &request.target;
        assert_eq!(answer.status, if target.contains("absent") { 404 } else { 200 }, "{target}");
        let nar = target.split_once("{nar:").and_then(|(_, rest)| rest.strip_suffix('}'));
        if let Some(part) = nar {
            let (path, _) = &self.parts[part];
            assert!(zstd::decode_all(&*body).unwrap() == self.nix.dump(path), "{target}");
        } else if let Some((_, (_, narinfo))) =
            self.parts.iter().find(|(name, _)| target.contains(&format!("{{{name}}}.narinfo")))
        {
            let found: NarInfo = String::from_utf8(body).unwrap().parse().unwrap();
            assert_eq!(found.info.fingerprint(), narinfo.info.fingerprint(), "{target}");
        }
    }
}

#[test]
fn what_other_releases_of_nix_ask_is_answered() {
    let scene = Scene::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/requests");
    let mut releases = 0;
    for file in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let mut connections = BTreeMap::new();
        let mut narinfos = 0;
        for line in text.lines() {
            let request: Request = serde_json::from_str(line).unwrap();
            let stream = connections
                .entry(request.connection)
                .or_insert_with(|| BufReader::new(TcpStream::connect(scene.larder.http).unwrap()));
            let answer = scene.ask(stream, &request);
            scene.check(&request, &answer);
            narinfos += usize::from(request.target.ends_with(".narinfo"));
        }
        assert_eq!(narinfos, 6, "five paths and one that is not there");
        releases += 1;
    }
    assert_eq!(releases, 3);
}
