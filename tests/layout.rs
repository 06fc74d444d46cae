//! The invariants of the code map, as far as text can tell, and files held against each other: the two of settings, and what
//! documents tell operators to type against the service.

#[path = "support/imports.rs"]
mod imports;

use imports::{Imports, Module, circles};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// Files under `src` outside `allowed` with a line of code that holds one of `words`.
fn outside(allowed: &[&str], words: &[&str]) -> Vec<String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for file in sources(&src) {
        let name = file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        if allowed.iter().any(|a| name.starts_with(a)) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        if let Some(line) = code.into_iter().find(|line| words.iter().any(|w| line.contains(w))) {
            found.push(format!("{name}: {}", line.trim()));
        }
    }
    found
}

fn nothing() -> Vec<String> {
    Vec::new()
}

#[test]
fn sql_only_under_store() {
    assert_eq!(outside(&["server/store"], &["sqlx::query", "SELECT ", "UPDATE ", "INSERT INTO"]), nothing());
}

#[test]
fn web_sys_only_under_feed_browser() {
    assert_eq!(outside(&["feed/browser"], &["web_sys::", "gloo_", "js_sys::"]), nothing());
}

/// `println!` and its kind panic where the reader has gone.
#[test]
fn commands_print_only_by_print() {
    assert_eq!(outside(&["server/print.rs"], &["print!(", "println!(", "dbg!("]), nothing());
}

#[test]
fn features_are_asked_for_in_few_places() {
    let allowed = ["lib.rs", "feed.rs", "model/", "server/page_files.rs"];
    assert_eq!(outside(&allowed, &["cfg(feature", "cfg_attr(feature", "cfg!(feature"]), nothing());
}

fn edges() -> Vec<(Module, Module)> {
    let all = Imports::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).edges();
    assert!(all.len() > 500, "only {} imports were found", all.len());
    all.into_iter().collect()
}

/// The reader of imports finds what it should: also through paths, macros and what another module hands on, but not in
/// tests.
#[test]
fn circles_are_found() {
    let circles_of = |a: &str, b: &str| {
        let files = [("lib.rs", ""), ("a.rs", a), ("b.rs", b), ("b/c.rs", "pub struct C;")];
        let edges = Imports::of(files.iter().map(|(file, code)| (Path::new(file), *code))).edges();
        circles(&edges).contains_key(&Vec::new())
    };
    let b = "mod c; pub use c::C; use super::a::A;";
    for a in [
        "use crate::b::C;",
        "use super::b;",
        "fn f() { super::b::f() }",
        "fn f(_: crate::b::C) {}",
        "fn f() { assert!(super::b::f() == 1) }",
        "mod inner { use crate::b::c::C; }",
    ] {
        assert!(circles_of(a, b), "{a}");
    }
    for a in ["#[cfg(test)] mod tests { use crate::b::C; }", "use b::C;", "fn f() { assert!(true, \"super::b::f\") }"] {
        assert!(!circles_of(a, b), "{a}");
    }
}

/// Modules that stand beside each other never use each other in a circle, at whatever depth. The router alone may use the
/// pages that it serves: it counts as a module of its own.
#[test]
fn no_modules_use_each_other_in_a_circle() {
    let router = |module: &Module| module.starts_with(&["server".to_owned(), "router".to_owned()]);
    let all = edges().into_iter().filter(|(from, _)| !router(from)).collect();
    assert_eq!(circles(&all), BTreeMap::new());
}

/// `model ← event ← store ← bus ← stream ← sessions ← http | pages | jobs`. Pages share the cookies of `http`.
#[test]
fn the_server_has_one_direction() {
    const LAYERS: [&[&str]; 7] =
        [&["event"], &["store"], &["bus"], &["stream"], &["sessions"], &["http", "jobs"], &["pages"]];
    let layer = |module: &Module| {
        let part = module.get(1).filter(|_| module[0] == "server")?;
        LAYERS.iter().position(|names| names.contains(&part.as_str()))
    };
    // `lib` itself names them all.
    for (from, to) in edges().into_iter().filter(|(from, to)| !from.is_empty() && !to.is_empty()) {
        let (a, b) = (from.join("::"), to.join("::"));
        if let (Some(above), Some(below)) = (layer(&from), layer(&to)) {
            assert!(above > below || from[1] == to[1], "{a} uses {b}");
            assert!(!(from[1] == "pages" && to[1] == "jobs"), "{a} uses {b}");
        }
        if from[0] == "dashboard" {
            assert!(["dashboard", "model"].contains(&to[0].as_str()), "{a} uses {b}");
        }
        if from[0] == "model" {
            assert_eq!(to[0], "model", "{a} uses {b}");
        }
        if from.starts_with(&["server".to_owned()]) && ["api", "app", "feed"].contains(&to[0].as_str()) {
            assert_eq!(from, ["server", "router"], "{a} uses {b}");
        }
        if from[0] == "api" && to[0] == "server" {
            assert!(["pages", "error"].contains(&to[1].as_str()), "{a} uses {b}");
        }
    }
}

/// What strangers send is parsed in processes of its own: the server's side of decoders knows no decoder.
#[test]
fn no_media_is_parsed_inside_the_server() {
    let decoders = ["decode", "declared", "sniff", "parts", "mp4", "matroska", "resample", "child"]
        .map(|name| format!("server/audio/{name}.rs"));
    let allowed: Vec<&str> = decoders.iter().map(String::as_str).chain(["server/audio/decode/"]).collect();
    let words = [
        "symphonia",
        "rubato::",
        "sniff::",
        "parts::",
        "mp4::",
        "matroska::",
        "decode::",
        "declared::",
        "resample::",
        "Recording::recognise",
    ];
    let found = outside(&allowed, &words);
    // They are handed on for the fuzz targets.
    let found: Vec<_> = found.into_iter().filter(|line| !line.starts_with("server/audio.rs: pub use ")).collect();
    assert_eq!(found, nothing());
    // The only way to a decoder is its own subcommand.
    let started = outside(&["server/audio"], &["audio::run_child"]);
    assert!(started.iter().all(|line| line.starts_with("main.rs: ")), "{started:?}");
}

#[test]
fn the_model_does_no_io() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model");
    for file in sources(&src) {
        let text = fs::read_to_string(&file).unwrap();
        for word in ["std::fs", "std::net", "tokio", "std::time::Instant", "SystemTime"] {
            assert!(!text.contains(word), "{} uses {word}", file.display());
        }
    }
}

#[test]
fn leptos_toml_says_what_cargo_toml_says() {
    let read = |name: &str| -> toml::Table {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap().parse().unwrap()
    };
    let of = |table: toml::Table| table["package"]["metadata"]["leptos"].as_table().unwrap().clone();
    let (build, run) = (of(read("Cargo.toml")), of(read("Leptos.toml")));
    for (key, value) in &run {
        // A build is for development unless asked otherwise; what runs without cargo-leptos is a release.
        if key != "env" {
            assert_eq!(build.get(key), Some(value), "{key}");
        }
    }
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Leptos.toml")).unwrap();
    let last = text.lines().rfind(|line| line.starts_with('[')).unwrap();
    assert_eq!(last, "[package.metadata.leptos]", "the parser takes everything after this heading");
}

#[test]
fn one_version_of_rust_is_asked_for() {
    let read = |name: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let toolchain: toml::Table = read("rust-toolchain.toml").parse().unwrap();
    let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
    // scripts/setup reads it by this line.
    assert!(read("rust-toolchain.toml").lines().any(|line| line == format!("channel = \"{channel}\"")));
    let package: toml::Table = read("Cargo.toml").parse().unwrap();
    let oldest = package["package"]["rust-version"].as_str().unwrap();
    assert!(channel.starts_with(&format!("{oldest}.")), "Cargo.toml asks for {oldest}");
    let image = format!("FROM rust:{oldest}-");
    assert!(read("deploy/Dockerfile").contains(&image), "deploy/Dockerfile builds with another image than {image}");
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// A backup that a shell or another program writes has the rights that the umask leaves, and everything that is secret.
#[test]
fn documented_backups_are_for_their_user_only() {
    let mut seen = 0;
    for name in ["README.md", "docs/deploy.md", "docs/operations.md"] {
        let text = read(name);
        for block in text.split("\n```").skip(1).step_by(2) {
            let lines: Vec<&str> = block.lines().collect();
            for (at, line) in lines.iter().enumerate() {
                let by_shell = line.contains("hark backup - >");
                if by_shell || line.contains("pg_dump --format=custom --file") {
                    let before =
                        lines[..at].contains(&"umask 077") || lines[..at].iter().any(|l| l.starts_with("umask 077 "));
                    assert!(before || line.starts_with("(umask 077; "), "{name}: {line}");
                    seen += 1;
                }
            }
        }
    }
    assert_eq!(seen, 3);
}

/// Otherwise `hark doctor`, run by it, finds that folders can be written which the service can't.
#[test]
fn commands_beside_the_service_run_as_it_does() {
    let unit = read("deploy/hark.service");
    let document = read("docs/deploy.md");
    let (_, function) = document.split_once("as_hark() {").unwrap();
    let (function, _) = function.split_once('}').unwrap();
    let given: Vec<&str> = function.split_whitespace().filter(|word| word.contains('=')).collect();
    for setting in &given {
        assert!(unit.lines().any(|line| line == *setting), "the unit doesn't have {setting}");
    }
    // Whatever decides as whom it runs, with which settings, and what it may write.
    for name in [
        "User",
        "StateDirectory",
        "StateDirectoryMode",
        "ProtectSystem",
        "PrivateTmp",
        "Environment",
        "EnvironmentFile",
    ] {
        assert!(given.iter().any(|setting| setting.split('=').next() == Some(name)), "as_hark lacks {name}=");
    }
}
