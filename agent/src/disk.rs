//! Small files that must be whole or not there: written aside, made durable, put in place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use postern_shared::failpoint;

/// Readable by nobody but the owner.
const MODE: u32 = 0o600;

/// Who may do what with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rights {
    /// Its mode, whatever the umask.
    pub(crate) mode: u32,
    /// Its user, where it is not the writer's.
    pub(crate) user: Option<u32>,
    /// Its group, where it is not the writer's.
    pub(crate) group: Option<u32>,
}

/// Replaces the file at `path` by `content`: after a crash there is the old file or the new one.
/// The file is the owner's alone.
///
/// Blocks on the disk.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_by(path, |file| file.write_all(content))
}

/// The same, for content that is written piece by piece.
pub(crate) fn replace_by(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let give = |file: &File| give_to_owner_of(directory_of(path), file);
    replace_given(path, give, write)
}

/// Replaces the file at `path` by `content`, for whom `rights` say; where they do not, it belongs to
/// whoever has the folder. Blocks on the disk.
pub(crate) fn replace_with(path: &Path, content: &[u8], rights: Rights) -> io::Result<()> {
    let give = |file: &File| {
        give_to_owner_of(directory_of(path), file)?;
        if rights.user.is_some() || rights.group.is_some() {
            std::os::unix::fs::fchown(file, rights.user, rights.group)?;
        }
        file.set_permissions(fs::Permissions::from_mode(rights.mode))
    };
    replace_given(path, give, |file| file.write_all(content))
}

fn replace_given(
    path: &Path,
    give: impl FnOnce(&File) -> io::Result<()>,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let aside = with_suffix(path, ".new");
    let written = write_aside(&aside, give, write)
        .and_then(|()| failpoint::reach("disk::before_rename"))
        .and_then(|()| fs::rename(&aside, path));
    if let Err(error) = written {
        // What is left of it only takes room, and room may be what is missing.
        drop(fs::remove_file(&aside));
        return Err(error);
    }
    failpoint::reach("disk::after_rename")?;
    File::open(directory_of(path))?.sync_all()
}

fn write_aside(
    aside: &Path,
    give: impl FnOnce(&File) -> io::Result<()>,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    match fs::remove_file(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(aside)?;
    give(&file)?;
    let mut buffer = BufWriter::new(file);
    write(&mut buffer)?;
    failpoint::reach("disk::before_sync")?;
    buffer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Finds out whether [`replace`] could write to `path`, without touching the file there.
pub(crate) fn probe(path: &Path) -> io::Result<()> {
    let beside = with_suffix(path, ".probe");
    replace(&beside, b"room for a credential\n")?;
    fs::remove_file(&beside)
}

/// Reads a file of at most `bytes_max` bytes; `None` where there is none. Blocks on the disk.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    read_open(file, bytes_max).map(Some)
}

/// Reads an open file of at most `bytes_max` bytes. Blocks on the disk.
pub(crate) fn read_open(file: File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too large"));
    }
    Ok(content)
}

/// Why a file that others must not read cannot be used.
#[derive(Debug)]
pub(crate) enum SecretError {
    /// It is not there.
    Missing,
    /// Others may read it.
    Exposed {
        /// Its permission bits.
        mode: u32,
    },
    /// It is another user's.
    Foreign {
        /// Its owner.
        owner: u32,
    },
    /// Reading failed.
    Io(io::Error),
}

/// Reads a file of root's or our own that has none of these permission bits. Blocks on the disk.
pub(crate) fn read_secret(
    path: &Path,
    forbidden_mode: u32,
    bytes_max: u64,
) -> Result<Vec<u8>, SecretError> {
    // What is asked about is what is read, whatever takes the file's place meanwhile.
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SecretError::Missing),
        other => other.map_err(SecretError::Io)?,
    };
    let metadata = file.metadata().map_err(SecretError::Io)?;
    let owner = metadata.uid();
    if ![0, own_user()].contains(&owner) {
        return Err(SecretError::Foreign { owner });
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & forbidden_mode != 0 {
        return Err(SecretError::Exposed { mode });
    }
    read_open(file, bytes_max).map_err(SecretError::Io)
}

/// The user that this process may do as, for whoever is to give it something.
pub(crate) fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Makes a directory that is the owner's alone, and those above it, where they are missing.
pub(crate) fn ensure_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    give_to_owner_of(directory_of(path), &File::open(path)?)
}

/// What root makes in the agent's directory is the agent's: it could not read it otherwise.
fn give_to_owner_of(directory: &Path, made: &File) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(directory)?;
    std::os::unix::fs::fchown(made, Some(owner.uid()), Some(owner.gid()))
}

fn directory_of(path: &Path) -> &Path {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    directory.unwrap_or(Path::new("."))
}

/// Moves a file that cannot be read out of the way, for a person to look at; an older one that
/// was moved before gives way.
pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = with_suffix(path, ".unreadable");
    fs::rename(path, &aside)?;
    Ok(aside)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_the_owners_alone_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        fs::write(directory.path().join("state.new"), "left by a crash").unwrap();

        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();

        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_root_makes_belongs_to_the_owner_of_the_directory() {
        const AGENT: u32 = 4_711;
        let directory = tempfile::tempdir().unwrap();
        let me = rustix::process::geteuid();
        // Whoever is not root makes what is their own, and can give nothing away.
        let owner = if me.is_root() { AGENT } else { me.as_raw() };
        std::os::unix::fs::chown(directory.path(), Some(owner), None).unwrap();

        ensure_directory(&directory.path().join("lists")).unwrap();
        replace(&directory.path().join("lists").join("state"), b"one").unwrap();
        let rights = Rights { mode: 0o640, user: None, group: None };
        replace_with(&directory.path().join("lists").join("given"), b"one", rights).unwrap();

        for path in ["lists", "lists/state", "lists/given"] {
            assert_eq!(fs::metadata(directory.path().join(path)).unwrap().uid(), owner, "{path}");
        }
    }

    #[cfg(feature = "failpoints")]
    #[test]
    fn a_replacement_that_breaks_at_any_step_leaves_the_old_file_or_the_new_one() {
        let scenario = fail::FailScenario::setup();
        let steps = [
            ("disk::before_sync", "old"),
            ("disk::before_rename", "old"),
            ("disk::after_rename", "new"),
        ];
        for (step, left) in steps {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("state");
            replace(&path, b"old").unwrap();

            fail::cfg(step, "return").unwrap();
            let broken = replace(&path, b"new").unwrap_err();
            fail::remove(step);

            assert!(broken.to_string().contains(step), "{broken}");
            assert_eq!(fs::read_to_string(&path).unwrap(), left, "{step}");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "{step}");
            replace(&path, b"newer").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "newer", "{step}");
        }
        scenario.teardown();
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        fs::write(&path, [0; 11]).unwrap();

        assert_eq!(read_bounded(&path, 11).unwrap().map(|content| content.len()), Some(11));
        assert_eq!(read_bounded(&path, 10).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(read_bounded(&directory.path().join("none"), 1).unwrap().is_none());
    }
}
