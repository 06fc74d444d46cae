//! The servers: how to start each one, what requests it takes, and how to read its memory and processor time.

use crate::Args;
use load::TOKEN;
use std::{
    net::{SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    Hark,
    /// Hark, to which each connection reports ten changes in one request.
    HarkBatch,
    Nchan,
    Axum,
}

impl Kind {
    pub fn is_hark(self) -> bool {
        matches!(self, Self::Hark | Self::HarkBatch)
    }

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hark => "hark",
            Self::HarkBatch => "hark, ten a request",
            Self::Nchan => "nchan",
            Self::Axum => "axum",
        }
    }
}

/// A running server, stopped when dropped.
pub struct Server {
    pub kind: Kind,
    pub addr: SocketAddr,
    child: Child,
    folder: PathBuf,
}

impl Server {
    /// Starts a server on a free port, bound to its processors, and waits until it answers. `flags` are added to `hark serve`.
    pub async fn start(kind: Kind, args: &Args, flags: &[&str]) -> Result<Self, String> {
        let addr = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string())?;
        let folder = std::env::temp_dir().join(format!("stream-bench-{}-{}", std::process::id(), addr.port()));
        std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
        let mut command = Command::new("taskset");
        command.args(["-c", &args.cpu]);
        match kind {
            Kind::Hark | Kind::HarkBatch => {
                command.arg(&args.hark).arg("serve").args(&args.hark_arg).args(flags).env("HARK_MODEL_FETCH", "false");
                command
                    .env("LEPTOS_SITE_ADDR", addr.to_string())
                    .env("HARK_DATA_DIR", &folder)
                    .env("HARK_WORKER_TOKEN", TOKEN)
                    .env("HARK_WORKERS", "0")
                    .env("HARK_MAX_STREAMS", "50000")
                    .env("HARK_MAX_STREAMS_PER_OWNER", "50000")
                    .env("HARK_MAX_CONNECTIONS_PER_ADDRESS", "50000")
                    .env("HARK_MAX_STREAMS_PER_ADDRESS", "50000")
                    .env("HARK_NEWCOMER_PERCENT", "100");
            }
            Kind::Nchan => {
                let file = folder.join("nginx.conf");
                std::fs::write(&file, nchan(addr, &folder)).map_err(|e| e.to_string())?;
                command.args(["nginx", "-p"]).arg(&folder).arg("-c").arg(&file);
            }
            Kind::Axum => drop(command.arg(&args.axum).arg(addr.to_string())),
        }
        // In its own process group, so that nginx's worker process is measured and stopped too.
        command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|e| format!("{kind:?} could not be started: {e}"))?;
        let server = Self { kind, addr, child, folder };
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(addr).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(500)).await;
                return Ok(server);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("{kind:?} does not answer"))
    }

    /// The server's processes.
    fn pids(&self) -> Vec<String> {
        let group = self.child.id().to_string();
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = all.filter_map(|entry| entry.file_name().into_string().ok());
        pids.filter(|pid| stat(pid).is_some_and(|fields| fields.get(2) == Some(&group))).collect()
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> f64 {
        let of = |pid: &String| -> Option<f64> {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
            line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| kib * 1024.0)
        };
        self.pids().iter().filter_map(of).sum()
    }

    /// Processor time used so far by the threads that run, in seconds: exact to the nanosecond, but without threads that ended.
    pub fn exact_cpu_seconds(&self) -> f64 {
        let of = |pid: &String| -> Vec<f64> {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let spent = |task: std::fs::DirEntry| -> Option<f64> {
                let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
                text.split_whitespace().next()?.parse::<f64>().ok()
            };
            tasks.filter_map(spent).collect()
        };
        self.pids().iter().flat_map(of).sum::<f64>() / 1e9
    }

    /// Processor time used so far, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let hertz = rustix::param::clock_ticks_per_second() as f64;
        let of = |pid: &String| -> Option<f64> {
            let fields = stat(pid)?;
            let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
            Some(ticks / hertz)
        };
        self.pids().iter().filter_map(of).sum()
    }
}

/// The fields of `/proc/<pid>/stat` from the state on (proc(5) counts it as the third).
fn stat(pid: &str) -> Option<Vec<String>> {
    pid.parse::<u32>().ok()?;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
            for _ in 0..100 {
                if matches!(self.child.try_wait(), Ok(Some(_))) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn nchan(addr: SocketAddr, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 60000; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000000;
    keepalive_timeout 1h;
    tcp_nodelay on;
    nchan_shared_memory_size 512M;
    server {{
        listen {addr} backlog=32768;
        location ~ ^/pub/(.+)$ {{
            nchan_publisher;
            nchan_channel_id $1;
            nchan_message_buffer_length 2;
            nchan_message_timeout 5m;
        }}
        location ~ ^/sub/(.+)$ {{
            nchan_subscriber eventsource;
            nchan_channel_id $1;
            nchan_subscriber_first_message -1;
            nchan_eventsource_ping_interval 15;
        }}
    }}
}}
"
    )
}
