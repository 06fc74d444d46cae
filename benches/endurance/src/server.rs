//! The server that is measured: how it is started and stopped, and what the kernel says of its process.

use load::TOKEN;
use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The timeout for the server to answer after its start, and to end when it is asked to.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A running `hark serve` with an SQLite database in a folder of its own. Stopped and removed when dropped.
pub struct Server {
    pub addr: SocketAddr,
    child: Child,
    folder: PathBuf,
}

/// What the process uses.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Resident memory that the program has allocated, in bytes.
    pub memory: u64,
    /// Resident pages of files, in bytes: the program itself and its libraries. The kernel drops those that aren't used
    /// and reads them again.
    pub files: u64,
    /// Open descriptors, and those of them that are sockets.
    pub descriptors: usize,
    pub sockets: usize,
    pub threads: usize,
    /// Processor time so far, in seconds.
    pub cpu: f64,
}

impl Server {
    /// Starts it on a free port and waits until it answers. `flags` are added to `hark serve`. It writes its log to the
    /// file `log`.
    pub async fn start(hark: &Path, flags: &[String], log: &Path) -> Result<Self, String> {
        let addr = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string())?;
        let folder = std::env::temp_dir().join(format!("endurance-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let log = File::create(log).map_err(|e| format!("{}: {e}", log.display()))?;
        // In a process group of its own: Ctrl+C stops the bench, which stops the server once it has measured the end.
        let child = Command::new(hark)
            .process_group(0)
            .args(["serve", "--workers", "0"])
            .args(flags)
            .env_remove("DATABASE_URL")
            .env_remove("REDIS_URL")
            .env("LEPTOS_SITE_ADDR", addr.to_string())
            .env("HARK_DATA_DIR", &folder)
            .env("HARK_MODEL_FETCH", "false")
            .env("HARK_WORKER_TOKEN", TOKEN)
            // All clients have one address here.
            .env("HARK_MAX_CONNECTIONS_PER_ADDRESS", "50000")
            .env("HARK_MAX_QUEUE", "100000")
            .env("HARK_MAX_QUEUE_PER_ADDRESS", "100000")
            .env("HARK_MAX_QUEUE_PER_OWNER", "100000")
            .env("HARK_MAX_STREAMS_PER_ADDRESS", "50000")
            .env("HARK_MAX_STREAMS_PER_OWNER", "50000")
            .env("HARK_NEWCOMER_PERCENT", "100")
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|e| e.to_string())?)
            .stderr(log)
            .spawn()
            .map_err(|e| format!("{} could not be started: {e}", hark.display()))?;
        let server = Self { addr, child, folder };
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(addr).await.is_err() {
            if begun.elapsed() > TIMEOUT {
                return Err("the server doesn't answer".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(server)
    }

    /// What the process uses now.
    pub fn usage(&self) -> Result<Usage, String> {
        usage(self.child.id()).map_err(|e| format!("the server has ended: {e}"))
    }

    /// Asks the server to end, and waits for it. Returns whether it ended without an error.
    pub fn stop(&mut self) -> bool {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            // Fails only if it has ended already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let begun = Instant::now();
        while begun.elapsed() < TIMEOUT {
            match self.child.try_wait() {
                Ok(Some(status)) => return status.success(),
                Ok(None) => std::thread::sleep(Duration::from_millis(50)),
                Err(_) => break,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.stop();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What a process uses, by proc(5).
pub fn usage(pid: u32) -> std::io::Result<Usage> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let status = fs::read_to_string(process.join("status"))?;
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    let stat = fs::read_to_string(process.join("stat"))?;
    // The name before it may contain spaces. proc(5) counts the state, which follows, as the third field.
    let times = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(2));
    let ticks: f64 = times.into_iter().flatten().filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    // One that is closed while they are listed isn't one of them.
    let descriptors: Vec<PathBuf> =
        fs::read_dir(process.join("fd"))?.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect();
    let is_socket = |to: &&PathBuf| to.to_string_lossy().starts_with("socket:");
    Ok(Usage {
        memory: field("RssAnon:") * 1024,
        files: field("RssFile:") * 1024,
        descriptors: descriptors.len(),
        sockets: descriptors.iter().filter(is_socket).count(),
        threads: field("Threads:") as usize,
        cpu: ticks / rustix::param::clock_ticks_per_second() as f64,
    })
}
