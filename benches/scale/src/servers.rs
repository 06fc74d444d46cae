//! Starts a PostgreSQL, a Redis and nodes of Hark, all on one processor and on free ports, and stops them when dropped.

use crate::Args;
use load::TOKEN;
use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The timeout for a server to answer.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// All servers of a measurement.
pub struct Servers {
    /// The node that receives reports: a node without streams, or the only node.
    pub reports: SocketAddr,
    /// The nodes that hold streams.
    pub streams: Vec<SocketAddr>,
    /// The Redis that receives messages.
    pub redis: Option<SocketAddr>,
    children: Vec<Child>,
    folder: TempDir,
}

impl Servers {
    /// With `nodes`: this many nodes for streams, one for reports, and Redis between them. Without: one node.
    pub async fn start(args: &Args, nodes: Option<usize>) -> Result<Self, String> {
        let folder = TempDir::new().map_err(|e| e.to_string())?;
        let none = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut servers = Self { reports: none, streams: Vec::new(), redis: None, children: Vec::new(), folder };
        let database = servers.postgres(args)?;
        if nodes.is_some() {
            servers.redis = Some(servers.start_redis(args)?);
        }
        for n in 0..nodes.map_or(1, |n| n + 1) {
            let addr = servers.node(args, n, &database)?;
            if n == 0 {
                servers.reports = addr;
            }
            if n > 0 || nodes.is_none() {
                servers.streams.push(addr);
            }
        }
        // Time for the nodes to subscribe.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(servers)
    }

    fn postgres(&mut self, args: &Args) -> Result<String, String> {
        let data = self.folder.path().join("postgres");
        std::fs::create_dir(&data).map_err(|e| e.to_string())?;
        let root = user("-u", None)? == 0;
        if root {
            // The server refuses to run as root.
            let (user, group) = (user("-u", Some("postgres"))?, user("-g", Some("postgres"))?);
            let open = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(self.folder.path(), open).map_err(|e| e.to_string())?;
            chown(&data, Some(user), Some(group)).map_err(|e| e.to_string())?;
        }
        let program = |name: &str| {
            let mut command = Command::new("taskset");
            command.args(["-c", &args.cpu.to_string()]);
            if root {
                command.args(["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]);
            }
            command.arg(newest_postgres().join(name));
            command
        };
        let mut initdb = program("initdb");
        initdb.args(["--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "-D"]);
        let made = initdb.arg(&data).output().map_err(|e| e.to_string())?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let addr = free_addr()?;
        let mut command = program("postgres");
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-p"]);
        command.arg(addr.port().to_string()).arg("-D").arg(&data);
        self.spawn(command, addr)?;
        let url = format!("postgres://postgres@{addr}/postgres");
        let start = Instant::now();
        while !Command::new("psql").args([&url, "-qc", "SELECT 1"]).output().is_ok_and(|done| done.status.success()) {
            if start.elapsed() > START_TIMEOUT {
                return Err("PostgreSQL doesn't answer".to_owned());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(url)
    }

    fn start_redis(&mut self, args: &Args) -> Result<SocketAddr, String> {
        let addr = free_addr()?;
        let mut command = Command::new("taskset");
        command.args(["-c", &args.cpu.to_string(), "redis-server", "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "no", "--port", &addr.port().to_string(), "--dir"]).arg(self.folder.path());
        self.spawn(command, addr)?;
        Ok(addr)
    }

    fn node(&mut self, args: &Args, n: usize, database: &str) -> Result<SocketAddr, String> {
        let addr = free_addr()?;
        let mut command = Command::new("taskset");
        command.args(["-c", &args.cpu.to_string()]).arg(&args.hark).args(["serve", "--workers", "0"]);
        command
            .env("LEPTOS_SITE_ADDR", addr.to_string())
            .env("DATABASE_URL", database)
            .env("HARK_DATA_DIR", self.folder.path().join(format!("node{n}")))
            .env("HARK_RECORDINGS_URL", format!("file://{}", self.folder.path().join("recordings").display()))
            .env("HARK_MODEL_FETCH", "false")
            .env("HARK_SECRET", "a5".repeat(64))
            .env("HARK_WORKER_TOKEN", TOKEN)
            .env("HARK_MAX_QUEUE", "100000")
            .env("HARK_MAX_CONNECTIONS_PER_ADDRESS", "50000")
            .env("HARK_MAX_QUEUE_PER_OWNER", "100000")
            .env("HARK_MAX_QUEUE_PER_ADDRESS", "100000")
            .env("HARK_MAX_STREAMS_PER_ADDRESS", "50000")
            .env("HARK_NEWCOMER_PERCENT", "100")
            .env("HARK_MAX_STREAMS", "50000")
            .env("HARK_MAX_STREAMS_PER_OWNER", "50000")
            .env("HARK_STREAM_LIFETIME_SECS", "86400");
        match self.redis {
            Some(redis) => command.env("REDIS_URL", format!("redis://{redis}/")),
            None => command.env_remove("REDIS_URL"),
        };
        std::fs::create_dir_all(self.folder.path().join("recordings")).map_err(|e| e.to_string())?;
        self.spawn(command, addr)?;
        Ok(addr)
    }

    /// Starts a server and waits until it listens.
    fn spawn(&mut self, mut command: Command, addr: SocketAddr) -> Result<(), String> {
        let name = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|e| format!("{name}: {e}"))?;
        self.children.push(child);
        let start = Instant::now();
        while TcpStream::connect(addr).is_err() {
            if start.elapsed() > START_TIMEOUT {
                return Err(format!("the server doesn't listen: {name}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The processor time that all servers have used so far, in seconds, without PostgreSQL's ended children.
    pub fn cpu_seconds(&self) -> f64 {
        let hertz = rustix::param::clock_ticks_per_second() as f64;
        let of = |child: &Child| -> Option<f64> {
            let text = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
            // The fields from the state on; proc(5) counts it as the third.
            let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
            Some((fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?) / hertz)
        };
        self.children.iter().filter_map(of).sum()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // In reverse order: nodes stop before the servers that they need.
        for child in self.children.iter_mut().rev() {
            if let Some(pid) = rustix::process::Pid::from_raw(child.id() as i32) {
                // For PostgreSQL this signal is a fast shutdown; the others stop too.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
            }
            let start = Instant::now();
            while matches!(child.try_wait(), Ok(None)) {
                if start.elapsed() > Duration::from_secs(15) {
                    let _ = child.kill();
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn free_addr() -> Result<SocketAddr, String> {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string())
}

fn user(flag: &str, name: Option<&str>) -> Result<u32, String> {
    let done = Command::new("id").arg(flag).args(name).output().map_err(|e| e.to_string())?;
    String::from_utf8_lossy(&done.stdout).trim().parse().map_err(|_| format!("id {flag} {name:?} gave no number"))
}

/// The newest PostgreSQL that Debian has installed.
fn newest_postgres() -> PathBuf {
    let mut versions: Vec<PathBuf> =
        std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path()).collect();
    versions.sort();
    versions.pop().unwrap_or_else(|| Path::new("/usr").to_owned()).join("bin")
}
