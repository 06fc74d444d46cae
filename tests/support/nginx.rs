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
    /// Where its certificates are: `ca.crt` vouches for its own.
    pub folder: TempDir,
    process: Process,
}

impl Nginx {
    /// Starts one that spreads requests over two nodes, given as address and port, with the settings of `deploy/nginx.conf`.
    /// Fails if it doesn't listen.
    pub fn start(nodes: &[String; 2]) -> Self {
        Self::start_changed(nodes, &[])
    }

    /// The same with other text in place of parts of these settings.
    pub fn start_changed(nodes: &[String; 2], changes: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let settings = changed(include_str!("../../deploy/nginx.conf"), changes);
        Self::with(folder, nodes, settings, &|port| {
            [("listen 80 ".to_owned(), format!("listen 127.0.0.1:{port} "))].into()
        })
    }

    /// The same with the settings of `deploy/nginx-tls.conf` and a certificate for localhost. Also returns the port where
    /// it takes requests without TLS.
    pub fn start_tls(nodes: &[String; 2]) -> (Self, u16) {
        Self::start_tls_changed(nodes, &[])
    }

    /// The same with other text in place of parts of these settings.
    pub fn start_tls_changed(nodes: &[String; 2], changes: &[(&str, &str)]) -> (Self, u16) {
        let folder = TempDir::new().unwrap();
        make_certificates(&folder);
        let [certificate, key] = ["hark.crt", "hark.key"].map(|name| folder.path().join(name).display().to_string());
        let plain = free_port();
        let settings = changed(include_str!("../../deploy/nginx-tls.conf"), changes);
        let mut nginx = Self::with(folder, nodes, settings, &|port| {
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
    fn with(
        folder: TempDir,
        nodes: &[String; 2],
        mut config: String,
        own: &dyn Fn(u16) -> Vec<(String, String)>,
    ) -> Self {
        let port = free_port();
        let path = folder.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|name| format!("{name}_temp_path {path}/{name}; "))
            .collect();
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

/// Settings with other text in place of parts of them.
fn changed(settings: &str, changes: &[(&str, &str)]) -> String {
    let mut settings = settings.to_owned();
    for (line, other) in changes {
        assert_eq!(settings.matches(line).count(), 1, "the settings of nginx have no '{line}'");
        settings = settings.replace(line, other);
    }
    settings
}

/// Makes `hark.crt` and `hark.key` for localhost, and `ca.crt`, which vouches for it.
fn make_certificates(folder: &TempDir) {
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (authority, authority_key) = (path("ca.crt"), path("ca.key"));
    let (certificate, key) = (path("hark.crt"), path("hark.key"));
    let made = |own: &[&str]| {
        let common =
            ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "90"];
        let made = Command::new("openssl").args(common).args(own).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    made(&["-subj", "/CN=tests", "-keyout", &authority_key, "-out", &authority]);
    made(&[
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-CA",
        &authority,
        "-CAkey",
        &authority_key,
        "-keyout",
        &key,
        "-out",
        &certificate,
    ]);
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Killed, it would leave its own processes behind.
        self.process.end(Duration::from_secs(10));
    }
}
