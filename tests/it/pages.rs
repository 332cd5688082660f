//! The commands of README and guides, run as they are written, in order.
//!
//! A block of commands behind `<!-- runs on MACHINE -->` is run by this test in a shell of its own;
//! with `, in the background` behind it, as in a terminal that stays open.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::fixture::namespace::{Host, Network};

/// What starts the program from a checkout, and stands for the built one here.
const FROM_CHECKOUT: &str = "cargo run --release --";

/// A block of commands.
struct Block {
    machine: String,
    in_background: bool,
    script: String,
}

/// The blocks of a page that are to be run.
fn blocks(page: &str) -> Vec<Block> {
    let block = |text: &str| {
        let (mark, rest) = text.split_once(" -->\n").unwrap();
        let (machine, how) = mark.split_once(", ").unwrap_or((mark, ""));
        let script = rest.strip_prefix("```sh\n").expect("a block behind its mark");
        let script = script.split("\n```").next().unwrap().replace(FROM_CHECKOUT, "larder");
        let in_background = how == "in the background";
        assert!(in_background || how.is_empty(), "what is '{how}'?");
        Block { machine: machine.to_owned(), in_background, script }
    };
    page.split("\n<!-- runs on ").skip(1).map(block).collect()
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = self.0.id().to_string();
        let _gone_already = Command::new("kill").arg(pid).status();
        let _waited = self.0.wait();
    }
}

/// A host with a home, the built program on its path, and Nix without sandbox or substituters.
struct Machine {
    host: Host,
    folder: TempDir,
}

impl Machine {
    fn new(host: &Host) -> Self {
        let machine = Self { host: host.clone(), folder: TempDir::new().unwrap() };
        for name in ["bin", "home", "work", "etc"] {
            fs::create_dir(machine.path(name)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_larder"), machine.path("bin/larder")).unwrap();
        let conf = "sandbox = false\nbuild-users-group =\nsubstitute = true\nsubstituters =\n";
        fs::write(machine.path("etc/nix.conf"), conf).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A shell at home on this machine.
    fn shell(&self, variables: &[(String, String)], script: &str) -> Command {
        let mut command = self.host.command("env");
        let ours = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for name in ours {
            let starts = ["LARDER_", "CACHIX_", "NIX_", "XDG_"];
            if starts.iter().any(|start| name.starts_with(start)) {
                command.args(["-u", &name]);
            }
        }
        let path = std::env::var("PATH").unwrap();
        command
            .arg(format!("PATH={}:{path}", self.path("bin").display()))
            .arg(format!("HOME={}", self.path("home").display()))
            .arg(format!("NIX_CONF_DIR={}", self.path("etc").display()))
            .args(variables.iter().map(|(name, value)| format!("{name}={value}")))
            .args(["sh", "-euxc", script])
            .current_dir(self.path("work"));
        command
    }

    /// Starts a box and waits until it listens.
    fn start(&self, script: &str) -> Running {
        let mut serve = self.shell(&[], &format!("exec {script}"));
        let mut serve = serve.stdout(Stdio::piped()).spawn().unwrap();
        let mut printed = BufReader::new(serve.stdout.take().unwrap());
        let running = Running(serve);
        let mut summary = String::new();
        while !summary.contains("Try next") {
            assert!(printed.read_line(&mut summary).unwrap() > 0, "it ended after {summary:?}");
        }
        running
    }

    /// Runs commands that must go well; all that they said.
    fn run(&self, variables: &[(String, String)], script: &str) -> String {
        let output = self.shell(variables, script).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{script}\n\n{told}\n{said}");
        told + &said
    }
}

/// A page's machines: the box is the first.
struct Stage {
    network: Network,
    machines: Vec<(&'static str, Machine)>,
    background: Vec<Running>,
}

impl Stage {
    /// The default port is fixed, so a page needs a network of its own.
    fn or_skip(names: &[&'static str]) -> Option<Self> {
        let network = Network::or_skip(u8::try_from(names.len()).unwrap())?;
        let machine = |(number, name)| (name, Machine::new(network.host(number)));
        let machines = names.iter().copied().enumerate().map(machine).collect();
        Some(Self { network, machines, background: Vec::new() })
    }

    fn machine(&self, name: &str) -> &Machine {
        let found = self.machines.iter().find(|(known, _)| *known == name);
        &found.unwrap_or_else(|| panic!("no machine is {name}")).1
    }

    /// Runs a block. `variables` are what a person would know by then.
    fn run(&mut self, block: &Block, variables: &[(String, String)]) -> String {
        let machine = self.machine(&block.machine);
        if block.in_background {
            let running = machine.start(&block.script);
            self.background.push(running);
            return String::new();
        }
        machine.run(variables, &block.script)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Before the network that they are in.
        self.background.clear();
        let _goes_last = &self.network;
    }
}

fn variable(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.trim().to_owned())
}

/// The word behind `mark` in what was printed.
fn behind<'a>(told: &'a str, mark: &str) -> Option<&'a str> {
    told.split_once(mark)?.1.split_whitespace().next()
}

/// A derivation that needs nothing but a shell, with a name that nobody else uses.
fn default_nix(folder: &TempDir) -> String {
    let name = folder.path().file_name().unwrap().to_string_lossy().replace('.', "");
    format!(
        "derivation {{ name = \"page-{name}\"; system = builtins.currentSystem; \
         builder = \"/bin/sh\"; args = [ \"-c\" \"echo $name > $out\" ]; }}\n"
    )
}

#[test]
fn the_commands_of_the_readme() {
    let readme = include_str!("../../README.md");
    let Some(mut stage) = Stage::or_skip(&["the box"]) else { return };
    let folder = stage.machine("the box").path("work");
    fs::write(folder.join("README.md"), readme).unwrap();
    let blocks = blocks(readme);
    assert!(blocks.len() >= 3, "{} blocks", blocks.len());
    let told: String = blocks.iter().map(|block| stage.run(block, &[])).collect();
    // What the tour added to the machine's store is garbage that the next collection would take.
    let delete = "nix-store --delete \"$(nix-store --add README.md)\" || true";
    stage.machine("the box").run(&[], delete);
    assert!(told.contains("stored 1, known 0, hidden 0"), "{told}");
    assert!(told.contains("nix/store"), "{told}");
}

#[test]
fn the_commands_of_the_office_guide() {
    let Some(mut stage) = Stage::or_skip(&["the box", "a laptop"]) else { return };
    let laptop = stage.machine("a laptop");
    fs::write(laptop.path("work/default.nix"), default_nix(&laptop.folder)).unwrap();
    let before = fs::read(laptop.path("etc/nix.conf")).unwrap();
    let mut variables = Vec::new();
    let mut all = String::new();
    for block in blocks(include_str!("../../docs/office.md")) {
        let told = stage.run(&block, &variables);
        variables.extend(behind(&told, "device ID  ").map(|found| variable("ID", found)));
        if block.script.contains("--pairing-code") {
            variables.push(variable("CODE", told.lines().next().unwrap()));
        }
        let laptop = stage.machine("a laptop");
        let conf = fs::read(laptop.path("etc/nix.conf")).unwrap();
        if block.script.contains("larder remove") {
            assert_eq!(conf, before, "remove leaves nothing");
        } else if block.script.contains("larder use") {
            assert_ne!(conf, before, "use writes");
        }
        let design = stage.machine("the box").path("work/design.token");
        if let Ok(token) = fs::read_to_string(design) {
            variables.push(variable("DESIGN", &token));
        }
        all += &told;
    }
    assert!(all.contains("stored 1, known 0, hidden 0"), "{all}");
    let netrc = fs::read_to_string(stage.machine("a laptop").path("etc/netrc")).unwrap();
    assert!(netrc.contains("login larder password ldr_"));
}

#[test]
fn the_commands_of_the_ci_guide() {
    let Some(mut stage) = Stage::or_skip(&["the box", "a runner"]) else { return };
    let _serve = stage.machine("the box").start("larder serve --name office");
    let runner = stage.machine("a runner");
    fs::write(runner.path("work/default.nix"), default_nix(&runner.folder)).unwrap();
    let [on_box, job] =
        <[Block; 2]>::try_from(blocks(include_str!("../../docs/ci.md"))).ok().unwrap();
    stage.run(&on_box, &[]);
    for (branch, cache) in [("feature", "branches"), ("main", "main")] {
        let token = stage.machine("the box").path(&format!("work/{cache}.token"));
        let token = fs::read_to_string(token).unwrap();
        let variables = [
            variable("BRANCH", branch),
            variable("LARDER_HOST", "office"),
            variable("LARDER_AUTH_TOKEN", &token),
        ];
        let told = stage.run(&job, &variables);
        assert!(told.contains("stored 1, known 0, hidden 0"), "{told}");
        let conf = fs::read_to_string(stage.machine("a runner").path("work/.larder/nix.conf"));
        assert!(conf.unwrap().contains(&format!("/{cache} # larder use {cache}@")));
    }
}

#[test]
fn the_commands_of_the_operations_guide() {
    let Some(mut stage) = Stage::or_skip(&["the box", "the new box"]) else { return };
    let serve = stage.machine("the box").start("larder serve --name office");
    let work = stage.machine("the box").path("work");
    fs::write(work.join("default.nix"), default_nix(&stage.machine("the box").folder)).unwrap();
    stage.machine("the box").run(&[], "nix-build | larder push main");
    let blocks = blocks(include_str!("../../docs/operations.md"));
    let [backup, packs, restore, moved] = <[Block; 4]>::try_from(blocks).ok().unwrap();
    assert!(stage.run(&backup, &[]).contains("wrote office.backup"));
    stage.run(&packs, &[]);
    drop(serve);
    let told = stage.run(&restore, &[]);
    assert!(told.contains("1 path of 1 pack"), "{told}");
    let new = stage.machine("the new box").path("work");
    for name in ["office.backup", "office-packs"] {
        std::os::unix::fs::symlink(work.join(name), new.join(name)).unwrap();
    }
    let told = stage.run(&moved, &[]);
    assert!(told.contains("1 path of 1 pack"), "{told}");
    let _serve = stage.machine("the new box").start("larder serve --name office");
    let told = stage.machine("the new box").run(&[], "larder status");
    assert!(told.contains("main: 1 path\n"), "{told}");
}
