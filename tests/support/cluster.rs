//! Two web nodes and two workers as real processes, with a PostgreSQL, a Redis and an nginx of their own, and an engine
//! whose words depend on nothing but the recording. Made for tests that break some of it.

use super::{
    nginx::Nginx,
    postgres::Postgres,
    proxy::LossyProxy,
    redis::Redis,
    servers::{Process, free_port},
    support::TIMEOUT,
};
use rustix::process::Signal;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;
use tokio::time;

/// What outside workers must send.
pub const TOKEN: &str = "token-of-the-tests";
/// Seconds after which a silent worker has lost its sessions.
pub const LEASE_SECS: u32 = 6;
/// Sessions that each worker works on at once.
const CONCURRENCY: u32 = 4;
/// Samples in a piece of a recording: half a second, for which the engine says one segment.
const PIECE: usize = 8_000;

/// How a cluster differs from the usual one.
#[derive(Clone, Copy)]
pub struct Layout {
    /// Share of the messages from Redis that get lost.
    pub loss: f64,
    /// Seconds the engine takes for each piece.
    pub pace: f64,
    /// Bytes of the small disk that the first worker and the first web node have, if they have one.
    pub disk: Option<u64>,
    /// Nodes whose clocks are wrong, with by how much: `("web0", "+40s")`.
    pub clocks: &'static [(&'static str, &'static str)],
    /// Nodes that have no engine.
    pub without_engine: &'static [&'static str],
}

impl Default for Layout {
    fn default() -> Self {
        Self { loss: 0.0, pace: 0.35, disk: None, clocks: &[], without_engine: &[] }
    }
}

/// The whole of it. Ends with everything it started when dropped.
pub struct Cluster {
    pub webs: [Node; 2],
    pub workers: [Node; 2],
    pub nginx: Nginx,
    pub proxy: Option<LossyProxy>,
    pub redis: Redis,
    pub postgres: Postgres,
    folder: TempDir,
}

impl Cluster {
    /// Starts it, and waits until all nodes are ready.
    pub async fn start(layout: Layout) -> Self {
        let folder = TempDir::new().unwrap();
        let servers = tokio::task::spawn_blocking(|| (Postgres::start_on(free_port()), Redis::start()));
        let (postgres, redis) = servers.await.unwrap();
        let proxy = match layout.loss {
            0.0 => None,
            loss => Some(LossyProxy::start(redis.port, loss, 7).await),
        };
        let redis_port = proxy.as_ref().map_or(redis.port, |proxy| proxy.port);
        let shared = folder.path().join("recordings");
        let pids = folder.path().join("engines");
        fs::create_dir(&shared).unwrap();
        fs::create_dir(&pids).unwrap();
        let env = [
            ("DATABASE_URL", postgres.database("hark")),
            ("REDIS_URL", format!("redis://127.0.0.1:{redis_port}/")),
            ("HARK_WORKER_TOKEN", TOKEN.to_owned()),
            ("HARK_LEASE_SECS", LEASE_SECS.to_string()),
            ("HARK_STALL_SECS", "60".to_owned()),
            // So many that none of the tests can use them up by itself; a session that fails is a mistake.
            ("HARK_MAX_ATTEMPTS", "10".to_owned()),
            ("HARK_WORKERS", CONCURRENCY.to_string()),
            ("HARK_MIN_FREE_BYTES", "1".to_owned()),
            ("HARK_MAX_STREAMS_PER_OWNER", "1000".to_owned()),
            ("HARK_MAX_UPLOADS_PER_OWNER", "1000".to_owned()),
            ("HARK_MAX_UPLOADS_PER_ADDRESS", "1000".to_owned()),
            // All come from one address, and none has been here before.
            ("HARK_MAX_STREAMS_PER_ADDRESS", "1000".to_owned()),
            ("HARK_MAX_QUEUE_PER_ADDRESS", "1000".to_owned()),
            ("HARK_ENGINE", "command".to_owned()),
            ("HARK_ENGINE_COMMAND", engine(folder.path(), &pids, layout.pace)),
            ("HARK_LOG", "info,hark=debug".to_owned()),
        ];
        let env: Vec<(String, String)> = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let node = |name: &str, role, disk| Node::new(name, role, folder.path(), env.clone(), disk);
        let mut webs = [node("web0", Role::Web, layout.disk), node("web1", Role::Web, None)];
        let mut workers = [node("worker0", Role::Worker, layout.disk), node("worker1", Role::Worker, None)];
        for node in webs.iter_mut().chain(&mut workers) {
            node.clock = layout.clocks.iter().find(|(name, _)| node.name == *name).map(|(_, offset)| *offset);
            if layout.without_engine.contains(&&*node.name) {
                node.unset("HARK_ENGINE_COMMAND");
            }
            // By a name of its own, so that a test can take away what stands behind it.
            let place = folder.path().join(format!("recordings-of-{}", node.name));
            std::os::unix::fs::symlink(&shared, &place).unwrap();
            node.set("HARK_RECORDINGS_URL", &format!("file://{}", place.display()));
            node.start();
        }
        let nginx = Nginx::start(&webs.each_ref().map(|web| web.addr.clone()));
        let mut cluster = Self { webs, workers, nginx, proxy, redis, postgres, folder };
        for node in cluster.webs.iter_mut().chain(&mut cluster.workers) {
            node.ready().await;
        }
        for web in &cluster.webs {
            web.knows_a_worker().await;
        }
        cluster
    }

    /// Where watchers may come in: each web node, and nginx before both.
    pub fn doors(&self) -> [(&'static str, String); 3] {
        [("web0", self.webs[0].url()), ("web1", self.webs[1].url()), ("nginx", self.nginx.url.clone())]
    }

    /// A folder for all that the nodes have.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What a query answers in the nodes' database.
    pub fn query(&self, text: &str) -> Vec<String> {
        self.postgres.query("hark", text)
    }

    /// Waits until a query has an answer, and gives that.
    pub async fn until(&self, what: &str, query: &str) -> Vec<String> {
        let waiting = async {
            loop {
                let rows = self.query(query);
                if !rows.is_empty() {
                    return rows;
                }
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        time::timeout(TIMEOUT, waiting).await.unwrap_or_else(|_| panic!("never came true: {what}"))
    }

    /// The processes of engines that hear this recording, dead or alive.
    pub fn engines(&self, recording: usize) -> Vec<u32> {
        let files = fs::read_dir(self.folder.path().join("engines")).unwrap().flatten();
        let of_it = files.filter(|f| fs::read_to_string(f.path()).is_ok_and(|text| text == recording.to_string()));
        of_it.filter_map(|f| f.file_name().to_str()?.parse().ok()).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in self.webs.iter().chain(&self.workers) {
                if let Some(process) = &node.process {
                    eprintln!("== the last words of {} ==\n{}", node.name, process.tail());
                }
            }
            eprintln!("== the errors of nginx ==\n{}", self.nginx.errors());
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Web,
    Worker,
}

/// A node: its place on disk and its settings stay, its process comes and goes.
pub struct Node {
    pub name: String,
    /// Address and port; only web nodes listen there.
    pub addr: String,
    pub process: Option<Process>,
    role: Role,
    data: PathBuf,
    log: PathBuf,
    env: Vec<(String, String)>,
    disk: Option<u64>,
    /// By how much its clock is wrong, if it is.
    clock: Option<&'static str>,
}

impl Node {
    fn new(name: &str, role: Role, folder: &Path, mut env: Vec<(String, String)>, disk: Option<u64>) -> Self {
        let own = ["HARK_DATA_DIR", "LEPTOS_SITE_ADDR", "HARK_NODE_NAME", "HARK_MONITOR_ADDR"];
        env.retain(|(name, _)| !own.contains(&&**name));
        let data = folder.join(name);
        fs::create_dir(&data).unwrap();
        let addr = format!("127.0.0.1:{}", free_port());
        env.push(("HARK_DATA_DIR".to_owned(), data.display().to_string()));
        env.push(("LEPTOS_SITE_ADDR".to_owned(), addr.clone()));
        env.push(("HARK_NODE_NAME".to_owned(), name.to_owned()));
        env.push(("HARK_MONITOR_ADDR".to_owned(), format!("127.0.0.1:{}", free_port())));
        let log = folder.join(format!("{name}.log"));
        Self { clock: None, name: name.to_owned(), addr, process: None, role, data, log, env, disk }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Where it answers operators.
    pub fn monitor(&self) -> String {
        let addr = self.env.iter().find(|(name, _)| name == "HARK_MONITOR_ADDR").unwrap();
        format!("http://{}", addr.1)
    }

    /// Changes a setting, from its next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.unset(name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Takes a setting away, from its next start on.
    pub fn unset(&mut self, name: &str) {
        self.env.retain(|(known, _)| known != name);
    }

    /// The same settings for a node beside it, with another name, data folder and addresses.
    pub fn another(&self, name: &str) -> Self {
        let folder = self.log.parent().unwrap();
        let _ = fs::remove_dir_all(folder.join(name));
        Self::new(name, self.role, folder, self.env.clone(), None)
    }

    /// The subcommand that it runs.
    pub fn command(&self) -> &'static str {
        match self.role {
            Role::Web => "serve",
            Role::Worker => "worker",
        }
    }

    /// Runs `hark` with its settings until it ends; what it says, and whether it ended well.
    pub fn run(&self, arguments: &[&str]) -> (String, bool) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hark"));
        self.set_clock(&mut command);
        let output = command.args(arguments).envs(self.env.iter().map(|(n, v)| (n, v))).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (String::from_utf8_lossy(&text).into_owned(), output.status.success())
    }

    fn set_clock(&self, command: &mut Command) {
        if let Some(offset) = self.clock {
            command
                .env("LD_PRELOAD", "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
                .env("FAKETIME", offset)
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
    }

    /// What its readiness says, and whether it is ready.
    pub async fn readiness(&self) -> (String, bool) {
        let answer = reqwest::get(format!("{}/readyz", self.monitor())).await.unwrap();
        let ready = answer.status().is_success();
        (answer.text().await.unwrap(), ready)
    }

    pub fn start(&mut self) {
        let hark = env!("CARGO_BIN_EXE_hark");
        let mut command = match self.disk {
            None => Command::new(hark),
            Some(bytes) => {
                // A disk that only this node sees, and that goes with it. Ordinary users may make one too.
                let mut command = Command::new("unshare");
                let mount = format!("mount -t tmpfs -o size={bytes} tmpfs \"$0\" && exec \"$@\"");
                command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount]).arg(&self.data).arg(hark);
                command
            }
        };
        match self.role {
            Role::Web => command.args(["serve", "--workers", "0"]),
            Role::Worker => command.arg("worker"),
        };
        self.set_clock(&mut command);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::start(&self.name, &mut command, self.log.clone()));
    }

    /// Waits until a web node serves, or a worker looks into the queue for the first time.
    pub async fn ready(&mut self) {
        // A node with a wrong clock isn't ready, but serves.
        let path = if self.clock.is_some() { "healthz" } else { "readyz" };
        let url = format!("{}/{path}", self.url());
        let waiting = async {
            loop {
                let ready = match self.role {
                    Role::Web => reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()),
                    Role::Worker => self.log().contains("ready to work"),
                };
                if ready {
                    return;
                }
                self.running().must_run();
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        let ready = time::timeout(TIMEOUT, waiting).await;
        ready.unwrap_or_else(|_| panic!("{} isn't ready", self.name));
    }

    /// Waits until a web node offers the engine of the workers.
    async fn knows_a_worker(&self) {
        let url = format!("{}/api/v1/engines", self.url());
        let waiting = async {
            loop {
                let engines: serde_json::Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
                let is_there = |engine: &serde_json::Value| engine["id"] == "command" && engine["available"] == true;
                if engines.as_array().unwrap().iter().any(is_there) {
                    return;
                }
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        time::timeout(TIMEOUT, waiting).await.unwrap_or_else(|_| panic!("{} knows no worker", self.name));
    }

    pub fn running(&mut self) -> &mut Process {
        self.process.as_mut().expect("it has been started")
    }

    /// As a crash or a power cut.
    pub fn kill(&mut self) {
        self.running().kill();
    }

    /// As a machine that hangs, or whose network does.
    pub fn freeze(&mut self) {
        self.running().signal(Signal::STOP);
    }

    /// Ends [`Node::freeze`].
    pub fn thaw(&mut self) {
        self.running().signal(Signal::CONT);
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// How the sessions that it works on name their worker ends in this.
    pub fn worker_suffix(&mut self) -> String {
        format!("-{}", self.running().pid())
    }

    /// Its data folder as it sees it itself.
    pub fn data(&mut self) -> PathBuf {
        match self.disk {
            None => self.data.clone(),
            Some(_) => {
                let root = PathBuf::from(format!("/proc/{}/root", self.running().pid()));
                root.join(self.data.strip_prefix("/").unwrap())
            }
        }
    }
}

/// A recording that tells an engine where it is: the first half of each piece holds the recording's number, the second
/// half that of the piece.
pub fn recording(number: usize) -> Vec<u8> {
    let pieces = pieces(number);
    let samples = (0..pieces * PIECE).map(|i| {
        let what = if i % PIECE < PIECE / 2 { number } else { i / PIECE };
        64 * (what as i16 + 1)
    });
    super::support::wav_of(samples)
}

/// How long the recordings are, in pieces: not all alike.
fn pieces(number: usize) -> usize {
    6 + number % 5
}

/// What the engine hears in a recording: start, end and text of each segment.
pub fn transcript(number: usize) -> Vec<(f64, f64, String)> {
    let seconds = |piece: usize| (piece * PIECE) as f64 / 16_000.0;
    (0..pieces(number))
        .map(|piece| (seconds(piece), seconds(piece + 1), format!("recording {number} piece {piece}")))
        .collect()
}

/// The command of an engine that reads [`recording`]s, as slowly as told, and notes its process with the recording it
/// hears in the folder `pids`.
fn engine(folder: &Path, pids: &Path, pace: f64) -> String {
    const SCRIPT: &str = r#"import json, os, struct, sys, time
pids, pace = sys.argv[1], float(sys.argv[2])
def say(**line): print(json.dumps(line), flush=True)
def number(data, at): return round(struct.unpack_from("<h", data, at)[0] / 64) - 1
say(type="ready", protocol=1, model="reader")
heard = 0
while data := sys.stdin.buffer.read(16000):
    recording, piece = number(data, 2000), number(data, 10000)
    if not heard:
        with open(f"{pids}/{os.getpid()}.new", "w") as file: file.write(str(recording))
        os.rename(file.name, f"{pids}/{os.getpid()}")
    time.sleep(pace)
    start, heard = heard, heard + len(data) / 32000
    say(type="segment", start=start, end=heard, text=f"recording {recording} piece {piece}")
say(type="done")
"#;
    let file = folder.join("engine.py");
    fs::write(&file, SCRIPT).unwrap();
    // The program itself, because what stands on PATH may be a slow script that looks for it.
    let found = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    let python = String::from_utf8(found.stdout).unwrap();
    format!("{} -I -S {} {} {pace}", python.trim(), file.display(), pids.display())
}
