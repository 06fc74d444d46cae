//! The real `hark serve` as a process of its own, with an environment of its own, on a free port.

use super::{TIMEOUT, Visitor};
use std::{
    ffi::OsString,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// A running one; killed when dropped.
pub struct Process {
    pub url: String,
    pub data: PathBuf,
    child: Child,
}

/// How to start one.
pub struct Setup {
    data: PathBuf,
    before: Vec<OsString>,
    program: OsString,
    env: Vec<(&'static str, String)>,
    flags: Vec<String>,
    log: Option<PathBuf>,
}

impl Setup {
    /// A node with this data folder and these flags of `hark serve`.
    pub fn new(data: &Path, flags: &[&str]) -> Self {
        let flags = flags.iter().map(|f| (*f).to_owned()).collect();
        let program = env!("CARGO_BIN_EXE_hark").into();
        Self { data: data.to_owned(), before: Vec::new(), program, env: Vec::new(), flags, log: None }
    }

    pub fn env(mut self, variables: &[(&'static str, String)]) -> Self {
        self.env.extend_from_slice(variables);
        self
    }

    /// Writes its log to the end of a file.
    pub fn log_to(mut self, file: &Path) -> Self {
        self.log = Some(file.to_owned());
        self
    }

    /// Runs it by another program, which becomes it in the end.
    pub fn by(mut self, program: &[&str]) -> Self {
        self.before = program.iter().map(Into::into).collect();
        self
    }

    /// Runs another copy of the program.
    pub fn program(mut self, path: &str) -> Self {
        self.program = path.into();
        self
    }

    fn command(&self) -> Command {
        let mut words = self.before.iter().chain([&self.program]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .arg("serve")
            .args(&self.flags)
            .env("HARK_DATA_DIR", &self.data)
            .env("LEPTOS_SITE_ADDR", "127.0.0.1:0")
            .env("HARK_ENGINE", "pocketsphinx")
            .env("HARK_MODEL_FETCH", "false")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs one that doesn't start; returns what it said and how it ended.
    pub fn refused(&self) -> Output {
        let child = self.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let id = child.id();
        let (told, telling) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(child.wait_with_output()));
        let Ok(output) = telling.recv_timeout(TIMEOUT) else {
            let _ = Command::new("kill").args(["-KILL", &id.to_string()]).status();
            panic!("it runs");
        };
        let output = output.unwrap();
        assert!(!output.status.success(), "it ran");
        output
    }

    /// Starts it, and waits until it serves.
    pub fn start(&self) -> Process {
        let open = |file| File::options().create(true).append(true).open(file).unwrap();
        let log = self.log.as_ref().map(open).map_or_else(Stdio::inherit, Stdio::from);
        let mut child = self.command().stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let (told, telling) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            while let Some(Ok(line)) = said.next() {
                if let Some(url) = line.strip_prefix("Hark is ready at ") {
                    let _ = told.send(url.to_owned());
                }
            }
        });
        match telling.recv_timeout(TIMEOUT) {
            Ok(url) => Process { url, data: self.data.clone(), child },
            Err(error) => {
                let _ = child.kill();
                let log = self.log.as_ref().map(|file| std::fs::read_to_string(file).unwrap());
                panic!("hark serve doesn't start ({error}): {}", log.unwrap_or("its log stands above".to_owned()));
            }
        }
    }
}

impl Process {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A browser that comes for the first time.
    pub fn visitor(&self) -> Visitor {
        Visitor::new(&self.url)
    }

    /// Ends it as an operator would, and waits until it has stopped.
    pub fn terminate(&mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let until = Instant::now() + TIMEOUT;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "it doesn't stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
