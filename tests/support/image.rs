//! Reads a Dockerfile and does what it says in roots of Debian, because no container engine runs where the tests do.

use super::debian::{Debian, run};
use std::{collections::BTreeMap, fs, path::Path, process::Command};

/// A stage of a Dockerfile: `FROM base AS name`, and its instructions.
#[derive(Debug)]
pub struct Stage {
    pub base: String,
    pub name: String,
    steps: Vec<(String, String)>,
}

/// What a stage has become: its files, and how it is run.
pub struct Image {
    pub root: Debian,
    pub env: BTreeMap<String, String>,
    pub user: String,
    /// The words of `CMD`, `HEALTHCHECK` and `VOLUME`.
    pub command: Vec<String>,
    pub health_check: Vec<String>,
    pub volume: String,
    folder: String,
}

/// The stages of a Dockerfile, in its order.
pub fn stages(dockerfile: &str) -> Vec<Stage> {
    let lines = dockerfile.lines().filter(|line| !line.trim_start().starts_with('#'));
    let text: String = lines.map(|line| format!("{line}\n")).collect::<String>().replace("\\\n", " ");
    let mut stages: Vec<Stage> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (instruction, rest) = line.split_once(' ').expect("an instruction with words");
        if instruction == "FROM" {
            let (base, name) = rest.split_once(" AS ").unwrap_or((rest, ""));
            stages.push(Stage { base: base.to_owned(), name: name.to_owned(), steps: Vec::new() });
        } else {
            stages.last_mut().expect("FROM comes first").steps.push((instruction.to_owned(), rest.trim().to_owned()));
        }
    }
    stages
}

fn find<'a>(stages: &'a [Stage], name: &str) -> &'a Stage {
    stages.iter().find(|stage| stage.name == name).unwrap_or_else(|| panic!("there is no stage {name}"))
}

/// Builds the stage of this name on a bare Debian. `built` is the program that the stage `build` makes.
pub fn build(stages: &[Stage], name: &str, built: &Path) -> Image {
    let stage = find(stages, name);
    let mut image = if stages.iter().any(|other| other.name == stage.base) {
        build(stages, &stage.base, built)
    } else {
        assert_eq!(stage.base, "debian:bookworm-slim", "the root that the tests have");
        Image::on(Debian::unpack())
    };
    for (instruction, rest) in &stage.steps {
        image.step(instruction, rest, |image, from, sources, to| {
            assert_eq!((from, sources), (Some("build"), &["/src/target/release/hark"][..]), "what 'make build' makes");
            run(Command::new("cp").arg(built).arg(image.root.path(to).join("hark")));
        });
    }
    image
}

/// Builds the stage `build`, which compiles. Rust and Node.js are those of this machine, where the Dockerfile takes other
/// images. `context` is what a builder is sent.
pub fn compile(stages: &[Stage], context: &Path) -> Image {
    let stage = find(stages, "build");
    assert!(stage.base.starts_with("rust:") && stage.base.ends_with("-bookworm"), "{}", stage.base);
    let home = std::env::var("HOME").unwrap();
    let cargo = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
    let rustup = std::env::var("RUSTUP_HOME").unwrap_or_else(|_| format!("{home}/.rustup"));
    let root = Debian::unpack().with_bound(&rustup, "/usr/local/rustup");
    // The tools that scripts/setup has installed here, in `hark`, aren't there: they are made anew.
    let root = ["bin", "registry"]
        .into_iter()
        .fold(root, |root, part| root.with_bound(&format!("{cargo}/{part}"), &format!("/usr/local/cargo/{part}")));
    let mut image = Image::on(root);
    // What that image has besides Rust, and the authorities that this machine trusts.
    image.root.ok("apt-get -qq update && apt-get -qq install -y --no-install-recommends ca-certificates curl git gcc libc6-dev make >/dev/null");
    fs::copy("/etc/ssl/certs/ca-certificates.crt", image.root.path("/etc/ssl/certs/ca-certificates.crt")).unwrap();
    // Node.js has its own list of authorities.
    let authorities = std::env::var("NODE_EXTRA_CA_CERTS").unwrap_or_default();
    let env = [
        ("CARGO_HOME", "/usr/local/cargo"),
        ("RUSTUP_HOME", "/usr/local/rustup"),
        ("PATH", PATH_WITH_CARGO),
        ("NODE_EXTRA_CA_CERTS", &authorities),
    ];
    image.env.extend(env.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let node = Command::new("sh").args(["-c", "readlink -f \"$(command -v node)\" && npm root -g"]).output().unwrap();
    let node = String::from_utf8(node.stdout).unwrap();
    let (node, modules) = node.trim().split_once('\n').expect("node and npm");
    for (instruction, rest) in &stage.steps {
        image.step(instruction, rest, |image, from, sources, to| {
            let to =
                image.root.path(&if to.starts_with('/') { to.to_owned() } else { format!("{}/{to}", image.folder) });
            match (from, sources) {
                (Some("node"), ["/usr/local/bin/node"]) => run(Command::new("cp").arg(node).arg(to)),
                (Some("node"), ["/usr/local/lib/node_modules"]) => {
                    run(Command::new("cp").arg("-r").arg(modules).arg(to))
                }
                (None, sources) => {
                    fs::create_dir_all(&to).unwrap();
                    let sources =
                        sources.iter().map(|source| context.join(source).join(if *source == "." { "." } else { "" }));
                    // The last component of a file's path must not be empty.
                    let sources = sources.map(|path| path.to_str().unwrap().trim_end_matches('/').to_owned());
                    run(Command::new("cp").arg("-a").args(sources).arg(to));
                }
                other => panic!("COPY {other:?}"),
            }
        });
    }
    image
}

const PATH_WITH_CARGO: &str = "/usr/local/cargo/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Copies what `.dockerignore` lets a builder see: all but what it allows is kept from it.
pub fn context(to: &Path) {
    let rules = fs::read_to_string(".dockerignore").unwrap();
    let mut rules = rules.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(rules.next(), Some("*"), "nothing is sent that isn't named");
    for rule in rules {
        let pattern = rule.strip_prefix('!').unwrap_or_else(|| panic!(".dockerignore: {rule}"));
        // The pattern is one for the shell, too.
        run(Command::new("sh").arg("-c").arg(format!("cp -a --parents {pattern} \"$0\"")).arg(to));
    }
}

impl Image {
    fn on(root: Debian) -> Self {
        root.with_network();
        let (command, health_check) = (Vec::new(), Vec::new());
        Self {
            root,
            env: BTreeMap::new(),
            user: "root".to_owned(),
            command,
            health_check,
            volume: String::new(),
            folder: "/".to_owned(),
        }
    }

    /// Does one instruction. `copy` gets the image, the stage to copy from, what to copy and where to.
    fn step(&mut self, instruction: &str, rest: &str, copy: impl FnOnce(&Self, Option<&str>, &[&str], &str)) {
        match instruction {
            "RUN" => {
                let set: String = self.env.iter().map(|(name, value)| format!("export {name}={value}; ")).collect();
                self.root.ok(&format!("{set}cd {} && {rest}", self.folder));
            }
            "COPY" => {
                let words = words(rest);
                let from = words[0].strip_prefix("--from=");
                let (to, sources) = words[usize::from(from.is_some())..].split_last().expect("a place to copy to");
                copy(self, from, sources, to);
            }
            "ENV" => {
                for word in words(rest) {
                    let (name, value) = word.split_once('=').expect("NAME=value");
                    self.env.insert(name.to_owned(), value.to_owned());
                }
            }
            "WORKDIR" => {
                fs::create_dir_all(self.root.path(rest)).unwrap();
                self.folder = rest.to_owned();
            }
            "USER" => self.user = rest.to_owned(),
            "VOLUME" => self.volume = rest.to_owned(),
            "CMD" => self.command = list(rest),
            "HEALTHCHECK" => self.health_check = list(rest.split_once("CMD ").expect("a command").1),
            "EXPOSE" | "STOPSIGNAL" => {}
            other => panic!("the tests don't know {other}"),
        }
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// The words of an instruction in its form as a JSON array, which runs them without a shell.
fn list(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}
