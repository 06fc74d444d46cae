//! A real nginx in front of two nodes, with the settings that Hark recommends, and a folder and a port of its own. Ended
//! when dropped.

use super::servers::{Process, free_port};
use std::{
    fs,
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A running nginx.
pub struct Nginx {
    pub url: String,
    folder: TempDir,
    _process: Process,
}

impl Nginx {
    /// Starts one that spreads requests over two nodes, given as address and port, with the settings of `deploy/nginx.conf`.
    /// Fails if it doesn't listen.
    pub fn start(nodes: &[String; 2]) -> Self {
        let folder = TempDir::new().unwrap();
        let port = free_port();
        let path = folder.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|name| format!("{name}_temp_path {path}/{name}; "))
            .collect();
        let listen = format!("listen 127.0.0.1:{port};");
        let mut config = include_str!("../../deploy/nginx.conf").to_owned();
        for (line, own) in [
            ("http {", format!("http {{ access_log off; {temporary}").as_str()),
            ("listen 80;", &listen),
            ("web1:3000", &nodes[0]),
            ("web2:3000", &nodes[1]),
        ] {
            assert_eq!(config.matches(line).count(), 1, "deploy/nginx.conf has no '{line}'");
            config = config.replace(line, own);
        }
        let file = folder.path().join("nginx.conf");
        fs::write(&file, config).unwrap();
        let own = format!("daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder.path()).arg("-c").arg(&file).args(["-g", &own]);
        let log = folder.path().join("output.log");
        let mut process = Process::start("nginx", &mut command, log);
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            process.must_run();
            assert!(Instant::now() < deadline, "nginx doesn't listen: {}", process.tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { url: format!("http://127.0.0.1:{port}"), folder, _process: process }
    }

    /// What it complained of.
    pub fn errors(&self) -> String {
        fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }
}
