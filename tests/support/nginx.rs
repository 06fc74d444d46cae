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
    process: Process,
}

impl Nginx {
    /// Starts one that spreads requests over two nodes, given as address and port, with the settings of `deploy/nginx.conf`.
    /// Fails if it doesn't listen.
    pub fn start(nodes: &[String; 2]) -> Self {
        Self::with(nodes, include_str!("../../deploy/nginx.conf"), &|port| {
            [("listen 80 ".to_owned(), format!("listen 127.0.0.1:{port} "))].into()
        })
    }

    /// The same with the settings of `deploy/nginx-tls.conf` and a certificate for localhost. Also returns the port where
    /// it takes requests without TLS.
    pub fn start_tls(nodes: &[String; 2]) -> (Self, u16) {
        let folder = TempDir::new().unwrap();
        let [certificate, key] = ["hark.crt", "hark.key"].map(|name| folder.path().join(name).display().to_string());
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .args(["-keyout", &key, "-out", &certificate])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let plain = free_port();
        let mut nginx = Self::with(nodes, include_str!("../../deploy/nginx-tls.conf"), &|port| {
            [
                ("listen 443 ".to_owned(), format!("listen 127.0.0.1:{port} ")),
                ("listen 80;".to_owned(), format!("listen 127.0.0.1:{plain};")),
                ("/etc/nginx/hark.crt".to_owned(), certificate.clone()),
                ("/etc/nginx/hark.key".to_owned(), key.clone()),
            ]
            .into()
        });
        nginx.url = nginx.url.replacen("http:", "https:", 1);
        (nginx, plain)
    }

    /// Starts one with these settings, of which only the places of files, the nodes and what `own` returns for the port
    /// are replaced.
    fn with(nodes: &[String; 2], settings: &str, own: &dyn Fn(u16) -> Vec<(String, String)>) -> Self {
        let folder = TempDir::new().unwrap();
        let port = free_port();
        let path = folder.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|name| format!("{name}_temp_path {path}/{name}; "))
            .collect();
        let mut config = settings.to_owned();
        let common = [
            ("http {", format!("http {{ access_log off; {temporary}")),
            ("web1:3000", nodes[0].clone()),
            ("web2:3000", nodes[1].clone()),
        ];
        let common = common.into_iter().map(|(line, own)| (line.to_owned(), own));
        for (line, own) in common.chain(own(port)) {
            assert_eq!(config.matches(&line).count(), 1, "the settings of nginx have no '{line}'");
            config = config.replace(&line, &own);
        }
        let file = folder.path().join("nginx.conf");
        fs::write(&file, config).unwrap();
        // The user of its own that nginx may have can't enter the folder.
        let user = if rustix::process::geteuid().is_root() { "user root; " } else { "" };
        let own = format!("{user}daemon off; pid {path}/pid; error_log {path}/error.log;");
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
        Self { url: format!("http://127.0.0.1:{port}"), folder, process }
    }

    /// What it complained of.
    pub fn errors(&self) -> String {
        fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Killed, it would leave its own processes behind.
        self.process.end(Duration::from_secs(10));
    }
}
