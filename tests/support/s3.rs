//! An S3-compatible server of the tests' own: the crate s3s-fs, which scripts/setup installs. It has a data folder,
//! a free port and one bucket, and can be killed and started again on what it holds.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

pub const BUCKET: &str = "recordings";
const KEY: &str = "AKHARKTESTS";
const SECRET: &str = "no-secret-at-all";

/// A running server; killed when dropped.
pub struct S3 {
    port: u16,
    folder: TempDir,
    child: Option<Child>,
}

impl S3 {
    /// Starts one. Fails if it doesn't answer.
    pub fn start() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { port, folder, child: None };
        server.again();
        server
    }

    /// Starts a killed one on the same port, with what it held.
    pub fn again(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let root = self.folder.path();
        let child = Command::new("s3s-fs")
            .args(["--host", "127.0.0.1", "--access-key", KEY, "--secret-key", SECRET, "--port"])
            .arg(self.port.to_string())
            .arg(root)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn();
        self.child = Some(child.expect("s3s-fs is on PATH: scripts/setup test installs it, scripts/env finds it"));
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "s3s-fs doesn't answer: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The variables by which Hark finds it.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
            ("AWS_REGION", "eu-north-1".to_owned()),
        ]
    }

    /// The recordings under a prefix of the bucket, with their sizes; without the marker that says whose they are.
    pub fn objects(&self, prefix: &str) -> Vec<(String, u64)> {
        let Ok(entries) = fs::read_dir(self.folder.path().join(BUCKET).join(prefix)) else { return Vec::new() };
        let sized = |e: fs::DirEntry| (e.file_name().into_string().unwrap(), e.metadata().unwrap().len());
        entries.map(|e| sized(e.unwrap())).filter(|(name, _)| name != hark::server::media::MARKER).collect()
    }

    /// What it holds: a folder for each bucket.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Puts an object there, past Hark.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.folder.path().join(BUCKET).join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Parts of multipart uploads that were neither completed nor aborted.
    pub fn parts(&self) -> usize {
        let names = fs::read_dir(self.folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".upload_id")).count()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.kill();
    }
}
