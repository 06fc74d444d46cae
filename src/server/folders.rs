//! Folders and files that no other user of the machine may read, because recordings, texts and keys are private; and what
//! operators are told where one can't be used. Called by `main`, and by everything that creates a folder.

use rustix::{fs::Mode, process::geteuid};
use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// The SQLite database in a data folder.
pub const DATABASE_FILE: &str = "hark.sqlite";
/// What systemd sets for a service.
const IN_SERVICE: &str = "INVOCATION_ID";

/// Sets the umask, so that no other user of the machine can read files that this process and its children create from
/// now on.
pub fn keep_files_private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Whether other users may enter a folder, which may have been made by hand.
#[must_use]
pub fn is_open_to_others(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
}

/// Creates a folder and its missing parents, which no other user of the machine may enter.
///
/// # Errors
/// If it can't be created, or isn't a folder.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a new file that nobody else may read, and syncs it to the disk.
///
/// # Errors
/// If it exists already, or can't be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Refuses to let a command write as root into the data folder of another user, who couldn't read it. `command` is what was
/// called, for example `hark secret rotate`.
///
/// # Errors
/// If that would happen, as a message for the operator.
pub fn check_user(data: &Path, command: &str) -> Result<(), String> {
    match data.metadata() {
        Ok(meta) if geteuid().is_root() && meta.uid() != 0 => Err(foreign(data, command, &user(meta.uid()))),
        _ => Ok(()),
    }
}

fn foreign(data: &Path, command: &str, owner: &str) -> String {
    let shown = data.display();
    // As sudo takes a number.
    let named = if owner.bytes().all(|b| b.is_ascii_digit()) { format!("'#{owner}'") } else { owner.to_owned() };
    format!(
        "the data folder '{shown}' belongs to the user {owner}, who couldn't read what root writes. Run this as that user, with \
         the settings of the service, for example: sudo -u {named} env HARK_DATA_DIR='{shown}' {command}"
    )
}

/// What an operator is told of a file or folder that can't be used: the error, and if its owner or the system's settings are
/// the reason, that.
#[must_use]
pub fn explain(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => match Denied::of(path, geteuid().as_raw()) {
            Some(denied) => format!("{error}: {}", denied.fact()),
            None => error.to_string(),
        },
        io::ErrorKind::ReadOnlyFilesystem if std::env::var_os(IN_SERVICE).is_some() => {
            format!("{error}{}", read_only(path))
        }
        _ => error.to_string(),
    }
}

/// The same of something in a data folder or of the folder itself, with what to do. Another data folder is proposed only where
/// there is nothing of Hark's in this one, because a Hark in another folder is an empty one.
#[must_use]
pub fn unusable(data: &Path, path: &Path, error: &io::Error) -> String {
    let is_empty = match data.join(DATABASE_FILE).try_exists() {
        Ok(is_there) => !is_there,
        Err(error) => error.kind() == io::ErrorKind::NotADirectory,
    };
    let another = if is_empty { Some("choose another data folder with HARK_DATA_DIR".to_owned()) } else { None };
    let denied = (error.kind() == io::ErrorKind::PermissionDenied).then(|| Denied::of(path, geteuid().as_raw()));
    let mut ways: Vec<String> = denied.flatten().map(|denied| denied.ways(data)).unwrap_or_default();
    ways.extend(another);
    let mut ways = ways.join(", or ");
    if let Some(first) = ways.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let text = format!("'{}' can't be used: {}. {ways}", path.display(), explain(path, error));
    text.trim_end_matches([' ', '.']).to_owned()
}

fn read_only(path: &Path) -> String {
    format!(
        ". A service of systemd may write only where its unit says: with 'systemctl edit hark' add ReadWritePaths={} below \
         [Service]",
        path.display()
    )
}

/// A file or folder that this process may not use, or that keeps it from one.
struct Denied<'a> {
    path: &'a Path,
    mode: u32,
    owner: u32,
    /// The user as whom this process runs.
    me: u32,
}

impl<'a> Denied<'a> {
    /// The thing itself, or the nearest of the folders around it that can be seen.
    fn of(path: &'a Path, me: u32) -> Option<Self> {
        let seen = path.ancestors().find_map(|path| Some((path, fs::symlink_metadata(path).ok()?)));
        seen.map(|(path, meta)| Self { path, mode: meta.mode() & 0o7777, owner: meta.uid(), me })
    }

    fn fact(&self) -> String {
        let (owner, me) = (user(self.owner), user(self.me));
        format!("'{}' belongs to {owner} with the rights {:04o}, and this runs as {me}", self.path.display(), self.mode)
    }

    /// What to do about it, each as a part of a sentence.
    fn ways(&self, data: &Path) -> Vec<String> {
        let (owner, me, shown) = (user(self.owner), user(self.me), self.path.display());
        if self.owner == self.me {
            return vec![format!("change the rights: chmod -R u+rwX '{shown}'")];
        }
        if !self.path.starts_with(data) {
            let data = data.display();
            return vec![format!("make the folder for {me}, as root: install -d -m 700 -o {me} '{data}'")];
        }
        let give = |shown| format!("give it to {me}, as root: chown -R {me}: '{shown}'");
        if self.path == data { vec![format!("run this as {owner}"), give(shown)] } else { vec![give(shown)] }
    }
}

/// The name of a user of this machine, or the number if there is no name.
fn user(id: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_in(&users, id).unwrap_or_else(|| id.to_string())
}

fn name_in(users: &str, id: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(id)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_private() {
        let root = tempfile::tempdir().unwrap();
        let [data, models] = ["data", "data/models"].map(|name| root.path().join(name));
        make_folder(&models).unwrap();
        make_folder(&models).unwrap();
        for folder in [&data, &models] {
            assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
        std::fs::write(data.join("file"), "").unwrap();
        assert!(make_folder(&data.join("file")).is_err());
    }

    #[test]
    fn whoever_may_not_use_a_file_is_told_whose_it_is_and_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("data");
        let key = data.join("secret.key");
        make_folder(&data).unwrap();
        write_private(&key, b"key").unwrap();
        let me = geteuid().as_raw();
        let (mine, other) = (user(me), "4294967000");
        let told = |path: &Path, user: u32| {
            let denied = Denied::of(path, user).unwrap();
            (denied.fact(), denied.ways(&data).join(", or "))
        };
        let (fact, ways) = told(&key, 4_294_967_000);
        let shown = key.display();
        assert_eq!(fact, format!("'{shown}' belongs to {mine} with the rights 0600, and this runs as {other}"));
        assert_eq!(ways, format!("give it to {other}, as root: chown -R {other}: '{shown}'"));
        // Something that can't be made because of its folder.
        let (fact, ways) = told(&data.join("models/ggml-base.bin"), 4_294_967_000);
        let shown = data.display();
        assert!(fact.starts_with(&format!("'{shown}' belongs to {mine} with the rights 0700")), "{fact}");
        assert_eq!(ways, format!("run this as {mine}, or give it to {other}, as root: chown -R {other}: '{shown}'"));
        assert_eq!(told(&key, me).1, format!("change the rights: chmod -R u+rwX '{}'", key.display()));
        let elsewhere = Denied::of(root.path(), 4_294_967_000).unwrap().ways(&data);
        assert!(elsewhere[0].starts_with("make the folder for 4294967000, as root: install -d "), "{elsewhere:?}");
    }

    #[test]
    fn another_data_folder_is_proposed_only_where_there_is_no_database() {
        let data = tempfile::tempdir().unwrap();
        let error = io::Error::from(io::ErrorKind::NotADirectory);
        let told = || unusable(data.path(), data.path(), &error);
        let shown = data.path().display();
        assert_eq!(
            told(),
            format!("'{shown}' can't be used: not a directory. Choose another data folder with HARK_DATA_DIR")
        );
        fs::write(data.path().join(DATABASE_FILE), "").unwrap();
        assert_eq!(told(), format!("'{shown}' can't be used: not a directory"));
        let line = read_only(Path::new("/mnt/hark"));
        assert!(line.contains("'systemctl edit hark' add ReadWritePaths=/mnt/hark below [Service]"), "{line}");
    }

    #[test]
    fn commands_name_the_user_that_they_want() {
        let users = "root:x:0:0:root:/root:/bin/sh\nhark:x:998:997::/var/lib/hark:/bin/false\n+::::::\n";
        assert_eq!([998, 0, 42].map(|id| name_in(users, id)), [Some("hark".to_owned()), Some("root".to_owned()), None]);
        let told = |owner| foreign(Path::new("/var/lib/hark"), "hark model get", owner);
        assert!(told("hark").ends_with(": sudo -u hark env HARK_DATA_DIR='/var/lib/hark' hark model get"));
        assert!(told("998").contains(": sudo -u '#998' env "));
    }
}
