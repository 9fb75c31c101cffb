//! Paths that a person names, made absolute without a look at the filesystem.

use std::io;
use std::path::{Component, Path, PathBuf};

/// Makes `path` absolute against the name of the working directory.
///
/// Lexical only: `..` takes away the last name, symbolic links are not followed, because both would touch the very mount
/// that may be dead.
///
/// # Errors
/// A relative path when the working directory has no name (deleted, or outside of the root).
pub(super) fn absolute(path: &Path) -> io::Result<PathBuf> {
    if path.is_absolute() { Ok(tidy(path)) } else { Ok(tidy(&working_directory()?.join(path))) }
}

#[expect(clippy::disallowed_methods, reason = "getcwd(2) reads a name from memory, it does no I/O on a mount")]
fn working_directory() -> io::Result<PathBuf> {
    let name = std::env::current_dir()?;
    // Linux answers "(unreachable)/..." for a directory outside of the process's root: getcwd(2).
    if name.is_absolute() { Ok(name) } else { Err(io::Error::from(io::ErrorKind::NotFound)) }
}

fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => tidy.push(name),
            Component::ParentDir => {
                tidy.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    tidy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_are_tidied_by_name_only() {
        for (given, expected) in
            [("/mnt/a", "/mnt/a"), ("/mnt//a/./b/", "/mnt/a/b"), ("/mnt/a/../b", "/mnt/b"), ("/../..", "/"), ("/", "/")]
        {
            assert_eq!(absolute(Path::new(given)).unwrap(), Path::new(expected), "{given}");
        }
    }

    #[test]
    fn relative_paths_start_at_the_working_directory() {
        let here = working_directory().unwrap();
        assert_eq!(absolute(Path::new("data")).unwrap(), here.join("data"));
        assert_eq!(absolute(Path::new(".")).unwrap(), here);
    }
}
