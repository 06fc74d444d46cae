//! A PostgreSQL of the tests' own: its own data folder, a free port, ended when dropped.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A server, with an empty database `postgres` that anybody on this machine may use. Running or stopped.
pub struct Postgres {
    pub port: u16,
    folder: TempDir,
    child: Option<Child>,
}

impl Postgres {
    /// Starts one. Fails if it doesn't answer.
    pub fn start() -> Self {
        let mut server = Self::prepare();
        // Whoever else looks for a free port at this moment may be faster.
        for _ in 0..10 {
            server.port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if server.try_resume() {
                return server;
            }
        }
        panic!("PostgreSQL doesn't start: {}", server.log());
    }

    /// Starts one on this port.
    pub fn start_on(port: u16) -> Self {
        let mut server = Self::prepare();
        server.port = port;
        server.resume();
        server
    }

    fn prepare() -> Self {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        if is_root() {
            // The server refuses to run as root.
            let id = |flag| {
                let out = Command::new("id").args([flag, "postgres"]).output().unwrap();
                String::from_utf8(out.stdout).unwrap().trim().parse::<u32>().expect("the user postgres exists")
            };
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
            chown(&data, Some(id("-u")), Some(id("-g"))).unwrap();
        }
        let made = as_postgres(&programs().join("initdb"))
            .args(["--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        Self { port: 0, folder, child: None }
    }

    /// Starts it again after [`Postgres::stop`], on the same port and data. Fails if it doesn't answer.
    pub fn resume(&mut self) {
        assert!(self.try_resume(), "PostgreSQL doesn't start: {}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// False if it ends at once, as it does where somebody else listens.
    fn try_resume(&mut self) -> bool {
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let child = as_postgres(&programs().join("postgres"))
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off", "-p"])
            .arg(self.port.to_string())
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some()) {
                self.child = None;
                return false;
            }
            if psql(self.port, "postgres", "SELECT 1").status.success() {
                return true;
            }
            assert!(Instant::now() < deadline, "PostgreSQL doesn't answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it; its connections break.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // SIGINT is the fast way down.
        let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        let deadline = Instant::now() + Duration::from_secs(10);
        while child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if Instant::now() > deadline {
                let _ = child.kill();
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The address of a new, empty database.
    pub fn database(&self, name: &str) -> String {
        let made = self.sql(&format!("CREATE DATABASE {name}"));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        format!("postgres://postgres@127.0.0.1:{}/{name}", self.port)
    }

    /// What a query in a database answers: a line for each row, its columns parted by `|`.
    pub fn query(&self, name: &str, text: &str) -> Vec<String> {
        let done = self.psql(name, text);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    fn sql(&self, text: &str) -> std::process::Output {
        self.psql("postgres", text)
    }

    fn psql(&self, name: &str, text: &str) -> std::process::Output {
        psql(self.port, name, text)
    }
}

fn psql(port: u16, name: &str, text: &str) -> std::process::Output {
    let url = format!("postgres://postgres@127.0.0.1:{port}/{name}");
    // Whoever else listens there may never answer.
    Command::new(programs().join("psql")).env("PGCONNECT_TIMEOUT", "5").args([&url, "-qAtc", text]).output().unwrap()
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The newest server that Debian has installed.
fn programs() -> PathBuf {
    let mut versions: Vec<_> =
        fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed").flatten().map(|e| e.path()).collect();
    versions.sort();
    versions.pop().expect("a version of PostgreSQL").join("bin")
}

fn is_root() -> bool {
    String::from_utf8(Command::new("id").arg("-u").output().unwrap().stdout).unwrap().trim() == "0"
}

fn as_postgres(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    // It becomes the program, so its process is the server.
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}
