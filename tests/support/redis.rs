//! A Redis of the tests' own: a free port, nothing kept on disk, ended when dropped.

use super::servers::{Process, free_port};
use rustix::process::Signal;
use std::{
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A server, running or stopped.
pub struct Redis {
    pub port: u16,
    folder: TempDir,
    process: Option<Process>,
}

impl Redis {
    /// Starts one. Fails if it doesn't answer.
    pub fn start() -> Self {
        let mut server = Self { port: free_port(), folder: TempDir::new().unwrap(), process: None };
        server.resume();
        server
    }

    /// Starts it again where it was. What it held is gone, as after any restart of a Redis without a disk.
    pub fn resume(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no", "--port"]);
        command.arg(self.port.to_string()).arg("--dir").arg(self.folder.path());
        self.process = Some(Process::start("redis-server", &mut command, self.folder.path().join("log")));
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.cli(&["ping"]).stdout != b"PONG\n" {
            assert!(Instant::now() < deadline, "Redis doesn't answer: {}", self.process.as_ref().unwrap().tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it; its connections break.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Has it hang: connections stay open and nothing answers.
    pub fn freeze(&self) {
        self.process.as_ref().unwrap().signal(Signal::STOP);
    }

    /// Ends [`Redis::freeze`].
    pub fn thaw(&self) {
        self.process.as_ref().unwrap().signal(Signal::CONT);
    }

    /// Runs `redis-cli` on it.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]).args(arguments);
        command.stdin(Stdio::null()).output().expect("redis-cli is installed by scripts/setup test")
    }

    /// Publishes with `redis-cli`, the message on its standard input, where it may be of any length. Returns how many
    /// were subscribed.
    pub fn publish(&self, channel: &str, message: &str) -> u32 {
        let file = self.folder.path().join("message");
        std::fs::write(&file, message).unwrap();
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-x", "PUBLISH", channel]);
        let done = command.stdin(std::fs::File::open(&file).unwrap()).output().unwrap();
        String::from_utf8(done.stdout).unwrap().trim().parse().expect("the number of subscribers")
    }
}
