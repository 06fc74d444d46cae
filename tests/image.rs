//! The image from its beginning: every `RUN` of deploy/Dockerfile, in Debians of their own, with only what `.dockerignore` lets a
//! builder see. It installs the tools and compiles everything, which takes half an hour, so `scripts/test image` runs it and not
//! `make test`; there, tests/dist.rs does all stages after the compilation. Needs root.

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

use process::Process;
use reqwest::StatusCode;
use support::{TIMEOUT, Visitor};
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread")]
async fn the_image_is_built_from_the_repository() {
    let context = TempDir::new().unwrap();
    image::context(context.path());
    for kept in ["target", "data", ".git", "end2end"] {
        assert!(!context.path().join(kept).exists(), "{kept} is sent to whoever builds");
    }
    let stages = image::stages(include_str!("../deploy/Dockerfile"));
    let compiled = image::compile(&stages, context.path());
    let image = image::build(&stages, "small", &compiled.root.path("/src/target/release/hark"));
    // What a container of it has to bring along, without a model.
    println!("the program has {} MB", image.root.path("/usr/local/bin/hark").metadata().unwrap().len() / 1_000_000);
    let user = format!("{0}:{0}", image.user);
    let hark: Process = image.root.hark_read_only("/usr/local/bin/hark", &user, &image.volume).start();
    let answer = hark.visitor().get("/").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.text().await.unwrap().contains("/pkg/hark."), "it carries its pages");
}
