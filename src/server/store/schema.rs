//! The version of a database's tables compared with the one that this program needs, so that a node says in a sentence
//! what is wrong instead of failing on a column. Used when a database is opened, by `hark migrate` and by `hark doctor`.

use sqlx::migrate::{MigrateError, Migrator};
use std::{io, path::PathBuf};

/// A migration that a database has had, as it is recorded there: its version and its checksum.
pub(super) type Applied = (i64, Vec<u8>);

/// How a database's tables compare with what this program needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schema {
    /// They are as needed, in this version.
    Current(i64),
    /// They are older, or there are none.
    Behind { has: Option<i64>, needs: i64 },
}

/// The version of a database's tables before and after `hark migrate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigrateResult {
    /// None if there were no tables.
    pub before: Option<i64>,
    pub after: i64,
}

/// Why a database can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseOpenError {
    /// With the cause, which names the server.
    #[error("{0}")]
    Away(String),
    #[error(
        "its tables have version {has}, and this program knows versions up to {knows}: they were made by a newer Hark. \
         Run that one, or restore the backup from before the upgrade"
    )]
    Newer { has: i64, knows: i64 },
    #[error(
        "{}, this program needs version {needs}, and the role '{role}' may not change them. Run 'hark migrate' with the \
         DATABASE_URL of a role that may",
        has.map_or_else(|| "it has no tables".to_owned(), |has| format!("its tables have version {has}"))
    )]
    NoRight { has: Option<i64>, needs: i64, role: String },
    #[error(
        "version {0} of its tables isn't the one that this program knows: they were changed by hand or by another build. \
         Run the program that made them"
    )]
    Altered(i64),
    #[error("it has no tables")]
    Empty,
    /// A file or folder of an SQLite database that the system doesn't let this process use. `owner` is whose it is, if that is
    /// known, and `user` who runs this process.
    #[error("'{}' can't be used: {error}{}", path.display(), whose(*owner, *user))]
    Inaccessible { path: PathBuf, error: io::Error, owner: Option<u32>, user: u32 },
    #[error("its tables can't be completed: {0}")]
    Migrate(#[from] MigrateError),
    #[error("{0}")]
    Database(#[from] sqlx::Error),
}

impl DatabaseOpenError {
    pub(super) fn no_right(has: Option<i64>, tables: &Tables<'_>, role: &str) -> Self {
        Self::NoRight { has, needs: tables.version(), role: role.to_owned() }
    }

    /// The code of the database's error that this is; none if it is another.
    pub(super) fn code(&self) -> Option<String> {
        match self {
            Self::Migrate(error) => database_code(error),
            Self::Database(error) => Some(error.as_database_error()?.code()?.into_owned()),
            _ => None,
        }
    }
}

/// Whose a file is, for operators; empty if it belongs to the user of this process.
fn whose(owner: Option<u32>, user: u32) -> String {
    owner.filter(|owner| *owner != user).map_or_else(String::new, |owner| {
        format!(". It belongs to the user with the number {owner}, and this process runs as {user}")
    })
}

/// The code of the database's error that a migration failed with.
pub(super) fn database_code(error: &MigrateError) -> Option<String> {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            Some(error.as_database_error()?.code()?.into_owned())
        }
        _ => None,
    }
}

/// The tables as this program needs them.
pub(super) struct Tables<'a>(&'a Migrator);

impl<'a> Tables<'a> {
    pub(super) fn of(migrator: &'a Migrator) -> Self {
        Self(migrator)
    }

    /// The newest version that this program knows.
    pub(super) fn version(&self) -> i64 {
        self.0.iter().map(|migration| migration.version).max().unwrap_or(0)
    }

    /// Compares with what was applied to a database.
    pub(super) fn compare(&self, applied: &[Applied]) -> Result<Schema, DatabaseOpenError> {
        let known = |version: i64| self.0.iter().find(|migration| migration.version == version);
        if let Some(has) = applied.iter().map(|(version, _)| *version).filter(|v| known(*v).is_none()).max() {
            return Err(DatabaseOpenError::Newer { has, knows: self.version() });
        }
        let altered = |(version, checksum): &&Applied| known(*version).is_some_and(|m| *m.checksum != **checksum);
        if let Some((version, _)) = applied.iter().find(altered) {
            return Err(DatabaseOpenError::Altered(*version));
        }
        let missing = |version: i64| applied.iter().all(|(applied, _)| *applied != version);
        if self.0.iter().any(|migration| missing(migration.version)) {
            let has = applied.iter().map(|(version, _)| *version).max();
            return Ok(Schema::Behind { has, needs: self.version() });
        }
        Ok(Schema::Current(self.version()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_compared_by_their_migrations() {
        let migrator = sqlx::migrate!("src/server/store/migrations/sqlite");
        let tables = Tables::of(&migrator);
        let newest = tables.version();
        let all: Vec<Applied> = migrator.iter().map(|m| (m.version, m.checksum.to_vec())).collect();
        assert_eq!(tables.compare(&[]).unwrap(), Schema::Behind { has: None, needs: newest });
        assert_eq!(tables.compare(&all[..2]).unwrap(), Schema::Behind { has: Some(2), needs: newest });
        assert_eq!(tables.compare(&all).unwrap(), Schema::Current(newest));
        let mut newer = all.clone();
        newer.push((newest + 2, vec![1]));
        let found = tables.compare(&newer).unwrap_err();
        assert!(
            matches!(found, DatabaseOpenError::Newer { has, knows } if (has, knows) == (newest + 2, newest)),
            "{found}"
        );
        let mut altered = all;
        altered[1].1 = vec![1];
        assert!(matches!(tables.compare(&altered).unwrap_err(), DatabaseOpenError::Altered(2)));
    }

    #[test]
    fn a_file_of_another_user_is_named_with_both_users() {
        let of = |owner| DatabaseOpenError::Inaccessible {
            path: PathBuf::from("/data/hark.sqlite"),
            error: io::ErrorKind::PermissionDenied.into(),
            owner,
            user: 1000,
        };
        let said = "'/data/hark.sqlite' can't be used: permission denied";
        assert_eq!(
            of(Some(0)).to_string(),
            format!("{said}. It belongs to the user with the number 0, and this process runs as 1000")
        );
        assert_eq!([of(Some(1000)).to_string(), of(None).to_string()], [said, said]);
    }
}
