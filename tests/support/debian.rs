//! A Debian of its own in a folder, with nothing of this machine in it, in which a program is installed and run. Needs root, for
//! `chroot`.

use super::{process::Setup, support::tools};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// Of the system alone.
const PATH: &str = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Gives the root a `/proc` that goes with the process, and becomes the program.
const ENTER: &str = r#"mount --rbind /proc "$0/proc" && exec chroot "$@""#;

/// The same with a root that can't be written to, but for one folder.
const ENTER_READ_ONLY: &str = r#"kept="$0$1"; shift
mount --bind "$0" "$0" && mount --rbind /proc "$0/proc" && mount --bind "$kept" "$kept" \
    && mount -o remount,ro,bind "$0" && exec chroot "$@""#;

/// The root of an installed system; removed when dropped.
pub struct Debian {
    folder: TempDir,
    /// Folders of this machine, and where they are seen.
    bound: Vec<(String, String)>,
}

impl Debian {
    /// The smallest Debian 12 with systemd's programs, as `scripts/setup` has made it.
    pub fn unpack() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests run programs in a root of their own: run them as root"
        );
        let base = tools().join("debian-12.tar");
        assert!(base.is_file(), "{} is missing: 'make setup-test' makes it", base.display());
        let folder = TempDir::new().unwrap();
        // Others must be able to enter it.
        run(Command::new("chmod").arg("755").arg(folder.path()));
        run(Command::new("tar").arg("-xf").arg(&base).arg("-C").arg(folder.path()));
        Self { folder, bound: Vec::new() }
    }

    /// A path of the system, as this machine sees it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    /// Lets the system find servers by name, as this machine does.
    pub fn with_network(&self) {
        fs::copy("/etc/resolv.conf", self.path("/etc/resolv.conf")).unwrap();
    }

    /// Shows a folder of this machine in the system.
    pub fn with_bound(mut self, from: &str, to: &str) -> Self {
        fs::create_dir_all(self.path(to)).unwrap();
        self.bound.push((from.to_owned(), to.to_owned()));
        self
    }

    fn root(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// Runs a command line in the system, and returns what it said.
    pub fn sh(&self, line: &str) -> Output {
        let bind = |(from, to): &(String, String)| format!("mount --bind '{from}' \"$0{to}\" && ");
        let enter = self.bound.iter().map(bind).collect::<String>() + ENTER;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &enter, self.root(), self.root(), "/bin/sh", "-c", line]);
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8").output().unwrap()
    }

    /// As [`Debian::sh`], for a command that must succeed; returns its standard output.
    pub fn ok(&self, line: &str) -> String {
        let out = self.sh(line);
        let [said, told] = [&out.stdout, &out.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        assert!(out.status.success(), "{line}: {}\n{said}{told}", out.status);
        said
    }

    /// How to start a Hark that is installed in the system, as one of its users. `data` is a folder there.
    pub fn hark(&self, program: &str, user: &str, data: &str) -> Setup {
        self.setup(&[ENTER, self.root()], program, user, data)
    }

    /// As [`Debian::hark`], where nothing but `data` can be written to.
    pub fn hark_read_only(&self, program: &str, user: &str, data: &str) -> Setup {
        self.setup(&[ENTER_READ_ONLY, self.root(), data], program, user, data)
    }

    fn setup(&self, enter: &[&str], program: &str, user: &str, data: &str) -> Setup {
        let user = format!("--userspec={user}");
        let words = [&["unshare", "--mount", "sh", "-c"], enter, &[&user, self.root()]].concat();
        let path = ("PATH", PATH.to_owned());
        Setup::new(Path::new(data), &[]).by(&words).program(program).env(&[path])
    }
}

/// Runs a command of this machine, which must succeed.
pub fn run(command: &mut Command) {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}
