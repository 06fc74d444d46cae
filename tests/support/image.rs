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

/// Builds the stage of this name on a bare Debian. `built` is the program that the stage `build` makes.
pub fn build(stages: &[Stage], name: &str, built: &Path) -> Image {
    let stage = stages.iter().find(|stage| stage.name == name).unwrap_or_else(|| panic!("there is no stage {name}"));
    let mut image = if stages.iter().any(|other| other.name == stage.base) {
        build(stages, &stage.base, built)
    } else {
        assert_eq!(stage.base, "debian:bookworm-slim", "the root that the tests have");
        let root = Debian::unpack();
        root.with_network();
        let (env, user, volume) = (BTreeMap::new(), "root".to_owned(), String::new());
        Image { root, env, user, command: Vec::new(), health_check: Vec::new(), volume }
    };
    for (instruction, rest) in &stage.steps {
        image.step(instruction, rest, built);
    }
    image
}

impl Image {
    fn step(&mut self, instruction: &str, rest: &str, built: &Path) {
        match instruction {
            "RUN" => {
                self.root.ok(rest);
            }
            "COPY" => {
                let [from, source, to] = words(rest)[..] else { panic!("COPY {rest}") };
                assert_eq!((from, source), ("--from=build", "/src/target/release/hark"), "what 'make build' makes");
                run(Command::new("cp").arg(built).arg(self.root.path(to).join("hark")));
            }
            "ENV" => {
                for word in words(rest) {
                    let (name, value) = word.split_once('=').expect("NAME=value");
                    self.env.insert(name.to_owned(), value.to_owned());
                }
            }
            "WORKDIR" => fs::create_dir_all(self.root.path(rest)).unwrap(),
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
