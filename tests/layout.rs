//! The invariants of the code map, as far as text can tell, and the two files of settings held against each other.

use std::{
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

#[test]
fn features_are_asked_for_in_few_places() {
    let allowed = ["lib.rs", "feed.rs", "model/", "server/speech/whisper.rs"];
    assert_eq!(outside(&allowed, &["cfg(feature", "cfg_attr(feature", "cfg!(feature"]), nothing());
}

#[test]
fn http_and_jobs_do_not_know_each_other() {
    let of = |part: &str, word: &str| {
        let found = outside(&["app", "api", "feed", "model", "lib.rs", "main.rs"], &[word]);
        found.into_iter().filter(|line| line.starts_with(&format!("server/{part}"))).collect::<Vec<_>>()
    };
    assert_eq!(of("http", "jobs::"), nothing());
    assert_eq!(of("jobs", "http::"), nothing());
}

/// What strangers send is parsed in processes of its own: the server's side of decoders knows no decoder.
#[test]
fn no_media_is_parsed_inside_the_server() {
    let decoders = ["decode", "sniff", "resample", "child"].map(|name| format!("server/audio/{name}.rs"));
    let allowed: Vec<&str> = decoders.iter().map(String::as_str).collect();
    let words = ["symphonia", "rubato::", "sniff::", "decode::", "resample::", "Recording::recognise"];
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
