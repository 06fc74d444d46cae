//! A real Caddy in front of two nodes, with the settings of `deploy/Caddyfile`, a certificate of its own for localhost, and
//! folders and a port of its own. Ended when dropped.

use super::servers::{Process, free_port};
use std::{
    fs,
    net::TcpStream,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A running Caddy.
pub struct Caddy {
    pub url: String,
    folder: TempDir,
    _process: Process,
}

impl Caddy {
    /// Starts one before two nodes, given as address and port. Fails if it doesn't listen.
    pub fn start(nodes: &[String; 2]) -> Self {
        let (folder, port) = (TempDir::new().unwrap(), free_port());
        let mut settings = include_str!("../../deploy/Caddyfile").to_owned();
        let own = [
            ("web1:3000", nodes[0].clone()),
            ("web2:3000", nodes[1].clone()),
            // An authority of its own in place of one on the internet.
            ("hark.example.org {", format!("https://localhost:{port} {{\n\ttls internal")),
        ];
        for (line, own) in own {
            assert_eq!(settings.matches(line).count(), 1, "the Caddyfile has no '{line}'");
            settings = settings.replace(line, &own);
        }
        let global = format!(
            "{{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n\tstorage file_system {}\n}}\n",
            folder.path().display()
        );
        let file = folder.path().join("Caddyfile");
        fs::write(&file, global + &settings).unwrap();
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file);
        for name in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
            command.env(name, folder.path());
        }
        let mut process = Process::start("caddy", &mut command, folder.path().join("output.log"));
        let authority = authority(&folder);
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() || !authority.exists() {
            process.must_run();
            assert!(Instant::now() < deadline, "caddy doesn't listen: {}", process.tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { url: format!("https://localhost:{port}"), folder, _process: process }
    }

    /// The certificate that vouches for its own.
    pub fn authority(&self) -> PathBuf {
        authority(&self.folder)
    }
}

fn authority(folder: &TempDir) -> PathBuf {
    folder.path().join("pki/authorities/local/root.crt")
}
