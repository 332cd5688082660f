//! Pins and single files: made by the command, kept whatever happens, served one by one.

use std::fs;
use std::path::Path;
use std::process::Output;

use larder::formats::StorePath;
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::fixture::laptop::told;
use crate::fixture::larder::TestBox;
use crate::fixture::nix::NixStore;

/// What the tree of these tests has in it.
const TREE: &str = r#"
  mkdir -p $out/bin $out/share/doc
  head -c 700000 /dev/urandom > $out/bin/tool
  : > $out/share/nothing
  echo '<script>alert(1)</script>' > $out/share/doc/index.html
  echo text > "$out/share/doc/read me.txt"
  ln -s ../doc/index.html $out/share/doc/inside
  ln -s $out/bin $out/programs
  ln -s /etc/passwd $out/abroad
  ln -s ../../../etc/passwd $out/upwards
  ln -s nowhere $out/dangling
  ln -s circle $out/circle
"#;

/// A box with that tree in its cache `main`.
struct World {
    larder: TestBox,
    path: StorePath,
    nix: NixStore,
}

impl World {
    fn new(seed: &str) -> Self {
        let (nix, larder) = (NixStore::new(), TestBox::start());
        let path = nix.build_script(seed, TREE);
        larder.push("main", &[path.to_absolute()]);
        Self { larder, path, nix }
    }

    fn absolute(&self) -> String {
        self.path.to_absolute()
    }

    fn pin(&self, name: &str, options: &[&str]) -> serde_json::Value {
        let path = self.absolute();
        self.larder.json(["pin", "main", name, &path].iter().chain(options))
    }

    fn serve_url(&self, file: &str) -> String {
        self.larder.url(&format!("main/serve/{}{file}", self.path.hash()))
    }

    fn contents(&self, file: &str) -> Vec<u8> {
        fs::read(Path::new(&self.absolute()).join(file)).unwrap()
    }

    fn rebuild_index(&mut self) {
        self.larder.stop();
        let data = self.larder.data().display().to_string();
        let rebuilt = self.larder.run(["fsck", "--rebuild-index", "--data", &data]);
        assert!(rebuilt.status.success(), "{}", told(&rebuilt));
        self.larder.restart_in_place();
    }
}

/// Name and revision of each pin of `main`.
fn listed(larder: &TestBox) -> Vec<(String, u64)> {
    let pins = larder.json(["pin", "list", "main"])["pins"].take();
    let each = |pin: &serde_json::Value| {
        (pin["name"].as_str().unwrap().to_owned(), pin["revision"].as_u64().unwrap())
    };
    pins.as_array().unwrap().iter().map(each).collect()
}

fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).build().into()
}

fn get(url: &str) -> Response<Body> {
    agent().get(url).call().unwrap()
}

fn bytes(mut answer: Response<Body>) -> Vec<u8> {
    assert!(answer.status().is_success(), "{answer:?}");
    answer.body_mut().read_to_vec().unwrap()
}

/// The text of a 404.
fn not_found(url: &str) -> String {
    let mut answer = get(url);
    assert_eq!(answer.status(), 404, "{url}");
    answer.body_mut().read_to_string().unwrap()
}

fn header<'a>(answer: &'a Response<Body>, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// Runs `larder pin` with these arguments, which must end with `code`; what it said.
fn refused(larder: &TestBox, code: i32, args: &[&str]) -> String {
    let ended: Output = larder.run(["pin"].iter().chain(args));
    assert_eq!(ended.status.code(), Some(code), "{args:?}: {}", told(&ended));
    told(&ended)
}

#[test]
fn a_pin_has_revisions_and_the_newest_ones_artifacts_have_a_url() {
    let world = World::new("revisions");
    let made = world.pin("v1", &["--artifact", "bin/tool", "-a", "share/doc/read me.txt"]);
    assert_eq!((&made["revision"], &made["keep"]), (&1.into(), &"forever".into()), "{made}");
    let urls: Vec<_> =
        made["urls"].as_array().unwrap().iter().map(|url| url.as_str().unwrap()).collect();
    assert!(urls[0].ends_with("/main/pin/v1/bin/tool"), "{made}");
    assert!(urls[1].ends_with("/main/pin/v1/share/doc/read%20me.txt"), "{made}");
    let tool = world.larder.url("main/pin/v1/bin/tool");
    assert!(bytes(get(&tool)) == world.contents("bin/tool"));
    assert_eq!(bytes(get(&world.larder.url("main/pin/v1/share/doc/read%20me.txt"))), b"text\n");
    // What was not named is no artifact, and the root has no pins.
    let other = not_found(&world.larder.url("main/pin/v1/share/doc/index.html"));
    assert!(other.contains("such an artifact"), "{other}");
    not_found(&world.larder.url("pin/v1/bin/tool"));
    not_found(&world.larder.url("main/pin/v2/bin/tool"));

    // The URL goes on with the next revision.
    let next = world.nix.build_script("next", "mkdir -p $out/bin; echo next > $out/bin/tool");
    world.larder.push("main", &[next.to_absolute()]);
    world.larder.json(["pin", "main", "v1", &next.to_absolute(), "--artifact", "bin/tool"]);
    assert_eq!(bytes(get(&tool)), b"next\n");
    assert_eq!(listed(&world.larder), [("v1".to_owned(), 2), ("v1".to_owned(), 1)]);

    let shown = world.larder.run(["pin", "list", "main"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("NAME") && lines[1].contains(&next.to_absolute()), "{text}");
    assert!(lines[2].ends_with("/main/pin/v1/bin/tool"), "{text}");
    assert!(lines[3].contains(&world.absolute()), "{text}");

    let removed = world.larder.json(["pin", "remove", "main", "v1"]);
    assert_eq!(removed, serde_json::json!({"name": "v1", "revisions": 2}));
    not_found(&tool);
    let empty = world.larder.run(["pin", "list", "main"]);
    assert!(empty.status.success() && empty.stdout.is_empty(), "{}", told(&empty));
}

#[test]
fn as_many_revisions_stay_as_was_said() {
    let world = World::new("keep");
    for _ in 0..3 {
        world.pin("v1", &["--keep-forever"]);
    }
    let made = world.pin("v1", &["--keep-revisions", "2"]);
    assert_eq!(made["keep"], serde_json::json!({"revisions": 2}));
    assert_eq!(listed(&world.larder), [("v1".to_owned(), 4), ("v1".to_owned(), 3)]);
    let made = world.pin("week", &["--keep-days", "7"]);
    assert_eq!(made["keep"], serde_json::json!({"days": 7}));
    let shown = world.larder.run(["pin", "list", "main"]);
    assert!(told(&shown).contains("7 days") && told(&shown).contains("2 revisions"));
}

#[test]
fn there_may_be_many_pins() {
    let world = World::new("many");
    // More than a page of them, over the connection that the command uses.
    for n in 0..70 {
        let name = format!("build-{:02}", n % 35);
        world.pin(&name, &[]);
    }
    let listed = listed(&world.larder);
    assert_eq!(listed.len(), 70);
    assert_eq!(listed[..2], [("build-00".to_owned(), 2), ("build-00".to_owned(), 1)]);
    assert_eq!(listed[69], ("build-34".to_owned(), 1));
}

#[test]
fn pins_survive_a_kill_and_a_new_index_and_go_with_their_cache() {
    let mut world = World::new("kept");
    world.pin("gone", &[]);
    world.larder.json(["pin", "remove", "main", "gone"]);
    for _ in 0..3 {
        world.pin("v1", &["--keep-revisions", "2", "--artifact", "bin/tool"]);
    }
    let expected = [("v1".to_owned(), 3), ("v1".to_owned(), 2)];
    let tool = world.contents("bin/tool");
    world.larder.kill();
    world.larder.restart_in_place();
    assert_eq!(listed(&world.larder), expected);
    world.rebuild_index();
    assert_eq!(listed(&world.larder), expected);
    assert!(bytes(get(&world.larder.url("main/pin/v1/bin/tool"))) == tool);
    assert!(world.larder.run(["fsck"]).status.success());
    // A number is never given again.
    assert_eq!(world.pin("gone", &[])["revision"], 2);

    assert!(world.larder.run(["cache", "delete", "main", "--yes"]).status.success());
    world.larder.create_cache("main", &[]);
    assert_eq!(listed(&world.larder), []);
    world.rebuild_index();
    assert_eq!(listed(&world.larder), []);
}

#[test]
fn single_files_come_out_of_a_path_byte_for_byte() {
    let world = World::new("files");
    for (file, same_as) in [
        ("/bin/tool", "bin/tool"),
        ("/programs/tool", "bin/tool"),
        ("/share/nothing", "share/nothing"),
        ("/share/doc/inside", "share/doc/index.html"),
        ("/share/doc/read%20me.txt", "share/doc/read me.txt"),
    ] {
        let expected = world.contents(same_as);
        let url = world.serve_url(file);
        let answer = get(&url);
        assert_eq!(header(&answer, "content-length"), expected.len().to_string(), "{file}");
        assert!(bytes(answer) == expected, "{file}");
        let head = agent().head(&url).call().unwrap();
        assert_eq!(header(&head, "content-length"), expected.len().to_string(), "{file}");
    }
    // The root's caches serve them too.
    let hash = world.path.hash();
    let at_root = world.larder.url(&format!("serve/{hash}/bin/tool"));
    assert!(bytes(get(&at_root)) == world.contents("bin/tool"));
    // A path that is a file itself.
    let single = world.nix.build_script("single", "echo single > $out");
    world.larder.push("main", &[single.to_absolute()]);
    let url = world.larder.url(&format!("main/serve/{}", single.hash()));
    assert_eq!(bytes(get(&url)), b"single\n");
}

#[test]
fn a_part_is_sent_where_a_part_is_asked_for() {
    let world = World::new("ranges");
    let (url, whole) = (world.serve_url("/bin/tool"), world.contents("bin/tool"));
    let answer = get(&url);
    let etag = header(&answer, "etag").to_owned();
    assert_eq!(header(&answer, "accept-ranges"), "bytes");
    assert!(etag.starts_with('"') && etag.len() > 50, "{etag}");
    let again = agent().get(&url).header("If-None-Match", &etag).call().unwrap();
    assert_eq!(again.status(), 304);
    for (range, part) in [
        ("bytes=0-0", &whole[..1]),
        ("bytes=300000-300999", &whole[300_000..301_000]),
        ("bytes=-10", &whole[whole.len() - 10..]),
    ] {
        let answer = agent().get(&url).header("Range", range).call().unwrap();
        assert_eq!(answer.status(), 206, "{range}");
        assert!(header(&answer, "content-range").ends_with(&format!("/{}", whole.len())));
        assert!(bytes(answer) == part, "{range}");
    }
    let beyond = agent().get(&url).header("Range", "bytes=700000-").call().unwrap();
    assert_eq!(
        (beyond.status().as_u16(), header(&beyond, "content-range")),
        (416, "bytes */700000")
    );
    let changed = agent().get(&url).header("Range", "bytes=0-0").header("If-Range", "\"other\"");
    assert_eq!(changed.call().unwrap().status(), 200);
}

#[test]
fn a_browser_runs_nothing_of_what_was_pushed() {
    let world = World::new("html");
    world.pin("site", &["--artifact", "share/doc/index.html"]);
    let pinned = world.larder.url("main/pin/site/share/doc/index.html");
    for url in [world.serve_url("/share/doc/index.html"), pinned] {
        let answer = get(&url);
        assert_eq!(header(&answer, "content-type"), "application/octet-stream");
        assert_eq!(
            header(&answer, "content-disposition"),
            "attachment; filename*=UTF-8''index.html"
        );
        assert_eq!(header(&answer, "content-security-policy"), "sandbox; default-src 'none'");
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
        assert_eq!(bytes(answer), b"<script>alert(1)</script>\n");
    }
    let text = get(&world.serve_url("/share/doc/read%20me.txt"));
    assert_eq!(header(&text, "content-type"), "text/plain; charset=utf-8");
    assert_eq!(header(&text, "content-security-policy"), "sandbox; default-src 'none'");
}

#[test]
fn what_is_no_file_of_a_path_is_not_found() {
    let world = World::new("none");
    for (file, why) in [
        ("", "directory"),
        ("/share", "directory"),
        ("/share/", "not found"),
        ("/nothing", "no such file"),
        ("/bin/tool/below", "no such file"),
        ("/dangling", "no such file"),
        ("/circle", "no such file"),
        ("/abroad", "leads out"),
        ("/upwards", "leads out"),
        ("/%2e%2e/etc/passwd", "not found"),
        ("/bin%00", "not found"),
        ("/%ff", "not found"),
    ] {
        let said = not_found(&world.serve_url(file));
        assert!(said.contains(why), "{file}: {said}");
    }
    let elsewhere = world.larder.url(&format!("main/serve/{}/bin/tool", "0".repeat(32)));
    assert!(not_found(&elsewhere).contains("no such path"));
    let put = agent().put(world.serve_url("/bin/tool")).send("x").unwrap();
    assert_eq!(put.status(), 405);

    // A name that is not UTF-8 keeps a path from having a listing.
    let graph = world.nix.build_graph("none");
    world.larder.push("main", &[graph.top.to_absolute()]);
    let middle = graph.closure.iter().find(|path| path.name().starts_with("middle")).unwrap();
    let said = not_found(&world.larder.url(&format!("main/serve/{}/dangling", middle.hash())));
    assert!(said.contains("not UTF-8"), "{said}");
    let path = middle.to_absolute();
    let said = refused(&world.larder, 3, &["main", "v1", &path, "--artifact", "dangling"]);
    assert!(said.contains("not UTF-8"), "{said}");
    world.larder.json(["pin", "main", "v1", &path]);
}

#[test]
fn what_cannot_be_pinned_is_refused_and_leaves_nothing() {
    let world = World::new("refused");
    let (larder, path) = (&world.larder, world.absolute());
    let unknown = format!("/nix/store/{}-unknown", "0".repeat(32));
    let said = refused(larder, 3, &["main", "v1", &unknown]);
    assert!(said.contains("is not in the cache 'main'"), "{said}");
    let renamed = format!("{path}x");
    refused(larder, 3, &["main", "v1", &renamed]);
    let said = refused(larder, 3, &["main", "v1", &renamed, "-a", "bin/tool"]);
    assert!(said.contains("is not in the cache 'main'"), "{said}");
    let said = refused(larder, 3, &["nowhere", "v1", &path]);
    assert!(said.contains("no cache called 'nowhere'"), "{said}");

    let graph = world.nix.build_graph("hidden");
    let top = graph.top.to_absolute();
    let pushed = larder.run(["push", "main", "--no-closure", &top]);
    assert_eq!(pushed.status.code(), Some(7), "{}", told(&pushed));
    let said = refused(larder, 3, &["main", "v1", &top]);
    assert!(said.contains("is hidden in the cache 'main'"), "{said}");

    for (file, why) in [
        ("bin/none", "no such file"),
        ("bin", "directory"),
        ("abroad", "leads out"),
        ("upwards", "leads out"),
        ("dangling", "no such file"),
    ] {
        let said = refused(larder, 3, &["main", "v1", &path, "-a", "bin/tool", "-a", file]);
        assert!(said.contains(&format!("'{file}'")) && said.contains(why), "{said}");
    }
    for file in ["/bin/tool", "../x", "bin//tool", "bin/", "", "a\nb"] {
        refused(larder, 2, &["main", "v1", &path, "--artifact", file]);
    }
    let files: Vec<_> = (0..33).map(|n| format!("--artifact=f{n}")).collect();
    let all = ["main", "v1", &path].into_iter().chain(files.iter().map(String::as_str));
    let said = refused(larder, 1, &all.collect::<Vec<_>>());
    assert!(said.contains("at most 32 artifacts"), "{said}");

    let said = refused(larder, 3, &["remove", "main", "v1"]);
    assert!(said.contains("has no pin 'v1'"), "{said}");
    assert_eq!(listed(larder), []);
}

#[test]
fn a_command_line_that_makes_no_sense_is_refused() {
    let world = World::new("usage");
    let (larder, path) = (&world.larder, world.absolute());
    let long = "x".repeat(1000);
    for name in ["", ".", "..", "-x", "a/b", "a b", "ä", "a\nb", "../../etc", "a%2f", &long] {
        let said = refused(larder, 2, &["main", "--", name, &path]);
        assert!(said.contains("a pin's name has 1 to 100"), "{name:?}: {said}");
        refused(larder, 2, &["remove", "main", "--", name]);
    }
    for options in [
        &["--keep-days", "0"][..],
        &["--keep-revisions", "0"],
        &["--keep-days", "-1"],
        &["--keep-days", "4294967296"],
        &["--keep-days", "many"],
        &["--keep-days", "1", "--keep-revisions", "1"],
        &["--keep-days", "1", "--keep-forever"],
        &["--keep-revisions", "1", "--keep-forever"],
    ] {
        refused(larder, 2, &[&["main", "v1", &path], options].concat());
    }
    for line in
        [&["main"][..], &["main", "v1"], &["Main", "v1", &path], &["list"], &["remove", "main"]]
    {
        refused(larder, 2, line);
    }
    assert_eq!(listed(larder), []);
    // The words of the command are good names of pins, and the store path may be a link to it.
    let link = larder.data().parent().unwrap().join("result");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for name in ["list", "remove"] {
        larder.json(["pin", "main", name, link.to_str().unwrap()]);
    }
    assert_eq!(listed(larder), [("list".to_owned(), 1), ("remove".to_owned(), 1)]);
    let missing = link.with_file_name("missing");
    refused(larder, 1, &["main", "v1", missing.to_str().unwrap()]);
}

#[test]
fn who_may_write_pins_and_who_may_read_lists() {
    let world = World::new("rights");
    let (larder, path) = (&world.larder, world.absolute());
    larder.create_cache("team", &["--private"]);
    larder.push("team", &[&path]);
    let run = |token: &str, args: &[&str]| {
        let mut command = larder.command(["pin"].iter().chain(args));
        let ended = command.env("LARDER_AUTH_TOKEN", token).output().unwrap();
        (ended.status.code().unwrap(), told(&ended))
    };
    let [reader, writer, both, other] =
        ["team:read", "team:write", "team:readwrite", "main:readwrite"]
            .map(|right| larder.create_token(&[right]));
    let pin = ["team", "v1", &path, "-a", "share/doc/read me.txt"];
    let (list, remove) = (["list", "team"], ["remove", "team", "v1"]);
    for (token, code) in [(&reader, 4), (&other, 3), (&writer, 0), (&both, 0)] {
        let (ended, said) = run(token, &pin);
        assert_eq!(ended, code, "{said}");
    }
    for (token, code) in [(&reader, 0), (&other, 3), (&writer, 4), (&both, 0)] {
        let (ended, said) = run(token, &list);
        assert_eq!(ended, code, "{said}");
    }
    let (_, unknown) = run(&other, &["list", "meat"]);
    assert_eq!(run(&other, &list).1.replace("team", "meat"), unknown);
    assert_eq!(run(&reader, &remove).0, 4);
    // Nothing else of the administration has become theirs.
    let status = larder.command(["status"]).env("LARDER_AUTH_TOKEN", &both).output().unwrap();
    assert_eq!(status.status.code(), Some(4), "{}", told(&status));
    assert!(told(&status).contains("needs a personal token"), "{}", told(&status));

    let hash = world.path.hash();
    let files = ["pin/v1/share/doc/read%20me.txt".to_owned(), format!("serve/{hash}/bin/tool")];
    for file in files {
        let url = larder.url(&format!("team/{file}"));
        assert_eq!(get(&url).status(), 401, "{url}");
        for (token, status) in [(&reader, 200), (&writer, 404), (&other, 404)] {
            let asked = agent().get(&url).header("Authorization", format!("Bearer {token}"));
            let answer = asked.call().unwrap();
            assert_eq!(answer.status(), status, "{url}");
            if status == 200 {
                assert!(header(&answer, "cache-control").starts_with("private"));
            }
        }
    }
    assert_eq!(run(&writer, &remove).0, 0);
}

#[test]
fn programs_pin_by_the_administrative_api() {
    let world = World::new("api");
    let url = world.larder.url("api/larder/v1/caches/main/pins");
    let ask = |body: &str| {
        let request =
            agent().post(&url).header("Authorization", format!("Bearer {}", world.larder.token));
        let mut answer = request.send(body).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    };
    let path = world.absolute();
    let (status, made) = ask(&format!(
        r#"{{"name":"v1","path":"{path}","artifacts":["bin/tool"],"keep":{{"days":3}}}}"#
    ));
    assert_eq!(status, 201, "{made}");
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    assert_eq!(made["artifacts"][0]["url_path"], "/main/pin/v1/bin/tool");
    for body in [
        r#"{"name":"v1"}"#.to_owned(),
        format!(r#"{{"name":"a/b","path":"{path}"}}"#),
        format!(r#"{{"name":"v1","path":"{path}/bin"}}"#),
        format!(r#"{{"name":"v1","path":"{path}","artifacts":["../x"]}}"#),
        format!(r#"{{"name":"v1","path":"{path}","keep":{{"days":0}}}}"#),
        format!(r#"{{"name":"v1","path":"{path}","keep":{{"days":1,"revisions":1}}}}"#),
        format!(r#"{{"name":"v1","path":"{path}","keep":"never"}}"#),
        format!(r#"{{"name":"v1","path":"{path}","more":1}}"#),
    ] {
        let (status, said) = ask(&body);
        assert_eq!(status, 400, "{body}: {said}");
        assert!(said.contains("\"detail\""), "{said}");
    }
    let many = (0..200).map(|n| format!("\"{n:0300}\"")).collect::<Vec<_>>().join(",");
    let (status, said) = ask(&format!(r#"{{"name":"v1","path":"{path}","artifacts":[{many}]}}"#));
    assert_eq!(status, 400, "{said}");
    assert_eq!(listed(&world.larder), [("v1".to_owned(), 1)]);
    let get = |end: &str| {
        let request = agent().get(format!("{url}{end}"));
        let token = format!("Bearer {}", world.larder.token);
        request.header("Authorization", token).call().unwrap().status().as_u16()
    };
    assert_eq!(get("?after=1@v1&limit=1"), 200);
    assert_eq!(get("?after=x"), 400);
    assert_eq!(get("/v1"), 405);
    assert_eq!(agent().get(&url).call().unwrap().status(), 401);
}
