//! What is given to others: the program alone, its archive, its Debian package and the image. Each is put into a Debian of its
//! own with nothing of this machine in it, and transcribes there. `scripts/test dist` runs this, because the
//! program must carry its pages; it needs root.

#[path = "support/debian.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod debian;
#[path = "support/image.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod image;
#[path = "support/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod process;
mod support;

use axum::Router;
use debian::{Debian, run};
use process::{Process, Setup};
use reqwest::{StatusCode, header};
use serde_json::Value;
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};
use support::{TIMEOUT, Visitor, tools, word_error_rate};
use tokio::net::TcpListener;

const SPOKEN: &str = include_str!("../public/sample.txt");

/// A server on this machine that has no file.
async fn empty_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new()).await });
    format!("http://{addr}/")
}

/// Whisper with its smallest model, which is put into the system.
fn with_whisper(setup: Setup, debian: &Debian) -> Setup {
    let model = "/opt/ggml-tiny.en.bin";
    fs::copy(tools().join("models/ggml-tiny.en.bin"), debian.path(model)).unwrap();
    debian.ok(&format!("chmod 644 {model}"));
    setup
        .env(&[("HARK_ENGINE", "whisper"), ("HARK_WHISPER_MODEL", model)].map(|(name, value)| (name, value.to_owned())))
}

/// Sends the sample, and reads what was heard.
async fn transcribes_the_sample(hark: &Process) {
    let me = hark.visitor();
    let sample = fs::read("public/sample.mp3").unwrap();
    let session = me.session("sample.mp3", sample, &[]).await;
    me.wait(&session, "completed").await;
    let heard = me.get(&format!("/api/v1/sessions/{session}/transcript.txt")).await.text().await.unwrap();
    assert!(word_error_rate(SPOKEN, &heard) < 0.2, "{heard}");
}

/// The files that the page names are there, with their hash in the name, compressed, and to be kept for good.
async fn serves_its_pages(me: &Visitor) {
    let page = me.get("/").await.text().await.unwrap();
    for ending in [".css", ".js", ".wasm"] {
        let path = page.split('"').find(|text| text.starts_with("/pkg/hark.") && text.ends_with(ending));
        let path = path.unwrap_or_else(|| panic!("the page names no {ending}: {page}"));
        for (accepted, sent) in [("br", Some("br")), ("gzip", Some("gzip")), ("identity", None)] {
            let answer = me.send(me.request("GET", path).header(header::ACCEPT_ENCODING, accepted)).await;
            assert_eq!(answer.status(), StatusCode::OK, "{path}");
            let has = |name| answer.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!(has(header::CONTENT_ENCODING), sent, "{path}");
            assert_eq!(has(header::CACHE_CONTROL), Some("public, max-age=31536000, immutable"), "{path}");
            assert!(has(header::LAST_MODIFIED).is_some(), "{path}");
        }
    }
    for path in ["/favicon.svg", "/manifest.webmanifest", "/service-worker.js", "/offline.html", "/sample.mp3"] {
        assert_eq!(me.get(path).await.status(), StatusCode::OK, "{path}");
    }
    for path in ["/pkg", "/pkg/", "/pkg/none.js", "/hash.txt", "/..%2fCargo.toml"] {
        assert_eq!(me.get(path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_alone_is_the_whole_app() {
    let debian = Debian::unpack();
    fs::create_dir(debian.path("/srv/empty")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_hark"), debian.path("/srv/empty/hark")).unwrap();
    debian.ok("chown nobody:nogroup /srv/empty");
    let libraries = debian.ok("ldd /srv/empty/hark");
    assert!(!["not found", "libstdc++", "libgomp"].iter().any(|word| libraries.contains(word)), "{libraries}");

    let log = debian.path("/tmp/log");
    let setup = with_whisper(debian.hark("/srv/empty/hark", "nobody:nogroup", "/srv/empty/data"), &debian);
    let mut hark = setup.log_to(&log).start();
    serves_its_pages(&hark.visitor()).await;
    transcribes_the_sample(&hark).await;
    // It can ask servers for models, though this system has no list of authorities for certificates.
    let get = format!("HARK_MODEL_SOURCES=mirror HARK_MODEL_URL={} /srv/empty/hark model get", empty_server().await);
    let asked = debian.sh(&get);
    let said = String::from_utf8_lossy(&asked.stderr);
    assert!(!debian.path("/etc/ssl/certs").exists() && said.contains("404"), "{said}");
    // As a health check of a container or service asks.
    let ready = format!("LEPTOS_SITE_ADDR={} /srv/empty/hark ready", hark.url.trim_start_matches("http://"));
    assert!(debian.ok(&ready).contains("is ready"));
    hark.terminate();
    assert!(debian.sh(&ready).stderr.starts_with(b"hark: http://127.0.0.1:"), "it has stopped");
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("data=/srv/empty/data"), "it says where its data are: {said}");
    assert!(!said.contains("ERROR") && !said.contains("Pages will have"), "{said}");
    let mut left: Vec<_> = fs::read_dir(debian.path("/srv/empty")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["data", "hark"]);
}

#[test]
fn a_folder_that_is_named_goes_before_what_the_program_carries() {
    let folder = tempfile::tempdir().unwrap();
    let hark = folder.path().join("hark");
    fs::copy(env!("CARGO_BIN_EXE_hark"), &hark).unwrap();
    fs::write(folder.path().join("hash.txt"), "js: aB1\nwasm: aB1\ncss: aB1\n").unwrap();
    fs::create_dir_all(folder.path().join("site/pkg")).unwrap();
    fs::write(folder.path().join("site/pkg/hark.aB1.css"), "p { color: red }").unwrap();
    let site = ("LEPTOS_SITE_ROOT", folder.path().join("site").display().to_string());
    let hark = Setup::new(&folder.path().join("data"), &[]).program(hark.to_str().unwrap()).env(&[site]).start();
    let me = hark.visitor();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let page = me.get("/").await.text().await.unwrap();
        assert!(page.contains("/pkg/hark.aB1.css"), "{page}");
        assert_eq!(me.get("/pkg/hark.aB1.css").await.text().await.unwrap(), "p { color: red }");
    });
}

/// What `scripts/dist` makes of this program. One for all tests of this file, which may run at once.
fn packages() -> &'static Path {
    static MADE: std::sync::LazyLock<PathBuf> = std::sync::LazyLock::new(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dist");
        run(Command::new("scripts/dist").arg(env!("CARGO_BIN_EXE_hark")).arg(&folder));
        folder
    });
    &MADE
}

/// The only file there with this ending.
fn package(ending: &str) -> PathBuf {
    let files = fs::read_dir(packages()).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> = files.filter(|path| path.to_str().unwrap().ends_with(ending)).collect();
    assert_eq!(files.len(), 1, "{ending}: {files:?}");
    files.into_iter().next().unwrap()
}

#[test]
fn checksums_and_components_go_with_the_packages() {
    run(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(packages()));
    let sums = fs::read_to_string(packages().join("SHA256SUMS")).unwrap();
    let components: Value = serde_json::from_slice(&fs::read(package(".cdx.json")).unwrap()).unwrap();
    assert_eq!(components["bomFormat"], "CycloneDX");
    let names: Vec<&str> =
        components["components"].as_array().unwrap().iter().map(|part| part["name"].as_str().unwrap()).collect();
    for name in ["axum", "leptos", "rust-embed", "sqlx", "whisper-rs-sys"] {
        assert!(names.contains(&name), "no {name} among {} components", names.len());
    }
    assert_eq!(sums.lines().count(), 3, "{sums}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archive_has_all_that_one_file_needs() {
    let debian = Debian::unpack();
    run(Command::new("tar").arg("-xzf").arg(package(".tar.gz")).arg("-C").arg(debian.path("/opt")));
    let version = concat!("hark ", env!("CARGO_PKG_VERSION"));
    assert_eq!(debian.ok("/opt/hark-*/hark --version").trim(), version);
    for file in ["README.md", "LICENSE-MIT", "LICENSE-APACHE", "hark.service", "hark.env", "man/hark-serve.1"] {
        debian.ok(&format!("test -s /opt/hark-*/{file}"));
    }
    let completed = debian.ok("bash -c '. /opt/hark-*/completions/hark.bash; complete -p hark'");
    assert!(completed.contains("_hark"), "{completed}");
    let program = debian.ok("echo /opt/hark-*/hark");
    let setup = debian.hark(program.trim(), "root:root", "/opt/data");
    transcribes_the_sample(&with_whisper(setup, &debian).start()).await;
}

/// The settings in a unit of systemd: `Environment=`.
fn environment(unit: &str) -> Vec<(&'static str, String)> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix("Environment="));
    lines
        .map(|line| line.split_once('=').unwrap())
        .map(|(name, value)| (&*name.to_owned().leak(), value.to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_package_installs_a_service() {
    let debian = Debian::unpack();
    fs::copy(package(".deb"), debian.path("/hark.deb")).unwrap();
    debian.ok("dpkg --install /hark.deb");
    let unit = "/lib/systemd/system/hark.service";
    debian.ok(&format!("systemd-analyze verify --man=no {unit}"));
    // Of 100, where 0 is a service that may do nothing; one without any limit has 96.
    debian.ok(&format!("systemd-analyze security --offline=true --threshold=30 {unit}"));
    assert_eq!(debian.ok("stat -c '%U:%G %a' /var/lib/hark").trim(), "hark:hark 700");
    assert_eq!(debian.ok("stat -c '%U:%G %a' /etc/hark/hark.env").trim(), "root:root 600");
    assert!(debian.path("/etc/systemd/system/multi-user.target.wants/hark.service").is_symlink(), "it starts at boot");
    debian.ok("test -s /usr/share/man/man1/hark.1.gz && test -s /usr/share/bash-completion/completions/hark");

    let settings = environment(&fs::read_to_string(debian.path(unit)).unwrap());
    assert_eq!(settings, [("HARK_DATA_DIR", "/var/lib/hark".to_owned())]);
    let setup = debian.hark("/usr/bin/hark", "hark:hark", "/var/lib/hark");
    let mut hark = with_whisper(setup, &debian).start();
    serves_its_pages(&hark.visitor()).await;
    transcribes_the_sample(&hark).await;
    hark.terminate();

    // What an operator has set stays when the package is installed anew, and data stay when it is removed.
    debian.ok("echo HARK_WORKERS=2 >> /etc/hark/hark.env && dpkg --install /hark.deb && grep -q HARK_WORKERS=2 /etc/hark/hark.env");
    debian.ok("dpkg --remove hark && test -s /var/lib/hark/hark.sqlite && test -s /etc/hark/hark.env && ! test -e /usr/bin/hark");
    debian.ok("dpkg --purge hark && test -s /var/lib/hark/hark.sqlite && ! test -e /etc/hark/hark.env");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_runs_as_its_file_says() {
    let stages = image::stages(include_str!("../deploy/Dockerfile"));
    assert_eq!(stages.last().unwrap().base, "small", "what is built without a target");
    for name in ["small", "full"] {
        let image = image::build(&stages, name, Path::new(env!("CARGO_BIN_EXE_hark")));
        assert_ne!(image.user, "root");
        assert_eq!(image.command, ["hark", "serve"]);
        // The program is on PATH, as an image's command finds it.
        assert_eq!(image.root.ok("command -v hark").trim(), "/usr/local/bin/hark");
        // Nothing is written but in its volume: the rest of the root can be read-only.
        let env = image.env.iter().filter(|(name, _)| *name != "HARK_DATA_DIR");
        let env: Vec<(&'static str, String)> =
            env.map(|(name, value)| (&*name.clone().leak(), value.replace("3000", "0"))).collect();
        let user = format!("{0}:{0}", image.user);
        let setup = image.root.hark_read_only("/usr/local/bin/hark", &user, &image.volume).env(&env);
        let mut hark = with_whisper(setup, &image.root).start();
        transcribes_the_sample(&hark).await;
        if name == "full" {
            let me = hark.visitor();
            let engines = me.json("/api/v1/engines").await;
            let pocketsphinx =
                engines.as_array().unwrap().iter().find(|engine| engine["id"] == "pocketsphinx").unwrap();
            assert_eq!(pocketsphinx["available"], true, "{engines}");
            fs::copy("public/sample.mp3", image.root.path("/tmp/sample.mp3")).unwrap();
            image.root.ok("ffmpeg -loglevel error -i /tmp/sample.mp3 /tmp/sample.wma");
            let session = me.session("sample.wma", fs::read(image.root.path("/tmp/sample.wma")).unwrap(), &[]).await;
            me.wait(&session, "completed").await;
        }
        let port = hark.url.rsplit(':').next().unwrap();
        let check = format!("LEPTOS_SITE_ADDR=0.0.0.0:{port} {}", image.health_check.join(" "));
        assert!(image.root.ok(&check).contains("is ready"), "{check}");
        hark.terminate();
        assert!(!image.root.sh(&check).status.success(), "it has stopped");
    }
}
