//! A small disk for tests: a tmpfs in a mount namespace of its own, which a child holds. It goes with that child, however
//! the test ends, and can be made by ordinary users as well as by root.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};
use tempfile::TempDir;

/// One disk; gone when dropped.
pub struct Disk {
    holder: Child,
    folder: TempDir,
}

impl Disk {
    /// One of `bytes`.
    pub fn new(bytes: u64) -> Self {
        let folder = TempDir::new().unwrap();
        let mount = format!("mount -t tmpfs -o size={bytes} tmpfs \"$0\" && echo mounted && exec cat");
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount])
            .arg(folder.path())
            // The holder ends when its input does, so not even a killed test leaves it behind.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is there");
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "mounted\n", "a disk could not be mounted: this needs user namespaces");
        Self { holder, folder }
    }

    /// Where a program that [`Disk::enter`] runs sees it.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where everybody else sees it.
    pub fn seen_from_outside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.path().strip_prefix("/").unwrap())
    }

    /// What to put before a command so that it sees the disk.
    pub fn enter(&self) -> Vec<String> {
        let holder = self.holder.id().to_string();
        ["nsenter", "--user", "--mount", "--preserve-credentials", "--target", &holder].map(str::to_owned).to_vec()
    }

    /// Bytes that can still be written.
    pub fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.seen_from_outside()).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Takes all the room there is, also what others give back, until the filler is dropped.
    pub fn fill(&self) -> Filler {
        Filler::start(&self.seen_from_outside())
    }

    /// Takes all the room but so many bytes, and gives the file that does so.
    pub fn leave(&self, bytes: u64) -> PathBuf {
        let path = self.seen_from_outside().join("filler");
        let mut file = File::create(&path).unwrap();
        while self.free() > bytes {
            file.write_all(&vec![0; (self.free() - bytes) as usize]).unwrap();
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// How often a [`Filler`] looks. Not all the time: between two system calls of the node, which hands its ballast over to
/// the database, nothing can keep others out.
const FILLER_INTERVAL: Duration = Duration::from_millis(200);

/// Takes all the room there is on a disk, also what others give back, until dropped.
pub struct Filler {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Filler {
    pub fn start(folder: &Path) -> Self {
        let (path, stop) = (folder.join("filler"), Arc::new(AtomicBool::new(false)));
        let mut file = File::create(&path).unwrap();
        let mut fill = move || while file.write_all(&[0; 4096]).is_ok() {};
        fill();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Relaxed) {
                std::thread::sleep(FILLER_INTERVAL);
                fill();
            }
        });
        Self { path, stop, thread: Some(thread) }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
        let _ = fs::remove_file(&self.path);
    }
}
