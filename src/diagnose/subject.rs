//! What a person asked about: a path, an export, an EFS file system. By form alone, nothing is looked up. Pure.

use std::path::PathBuf;

use crate::mounts::source::is_file_system_id;

/// What is diagnosed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A mounted path.
    Path(PathBuf),
    /// An export that is not mounted, or whatever is: only the server is asked.
    Server {
        /// Name or address, without brackets.
        server: String,
        /// Path on the server.
        export: String,
    },
    /// An EFS file system.
    Efs {
        /// `fs-...`.
        file_system: String,
        /// Directory in it; `/` where none was said.
        directory: String,
    },
}

impl Subject {
    /// Reads `PATH`, `SERVER:/EXPORT` (an IPv6 address in brackets or not) and `fs-...[:/DIRECTORY]`.
    ///
    /// A path with `:/` in it begins with `/` or `./`, as in mount(8).
    ///
    /// # Errors
    /// What is no such thing, in words that say what it should look like.
    pub fn parse(text: &str) -> Result<Subject, String> {
        if text.is_empty() {
            return Err("say what to diagnose: a PATH, SERVER:/EXPORT or fs-...".to_owned());
        }
        if text.starts_with(['/', '.']) {
            return Ok(Subject::Path(text.into()));
        }
        let (host, export) = match text.rfind("]:").or_else(|| text.find(":/")) {
            Some(at) => {
                let at = if text.get(at..).is_some_and(|rest| rest.starts_with(']')) { at + 1 } else { at };
                (text.get(..at).unwrap_or_default(), text.get(at + 1..))
            }
            None => (text, None),
        };
        if is_file_system_id(host) {
            return Ok(Subject::Efs {
                file_system: host.to_owned(),
                directory: export.filter(|export| !export.is_empty()).unwrap_or("/").to_owned(),
            });
        }
        let Some(export) = export else {
            return match text.split_once(':') {
                Some((server, export)) => Err(format!(
                    "the export is a path from the server's root: write {server}:/{export}, or ./{text} for a local path"
                )),
                None => Ok(Subject::Path(text.into())),
            };
        };
        let server = host.trim_start_matches('[').trim_end_matches(']');
        if server.is_empty() || !export.starts_with('/') {
            return Err(format!("{text} names no server and export: write SERVER:/EXPORT, as in 10.0.0.5:/srv/data"));
        }
        Ok(Subject::Server { server: server.to_owned(), export: export.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(server: &str, export: &str) -> Result<Subject, String> {
        Ok(Subject::Server { server: server.to_owned(), export: export.to_owned() })
    }

    #[test]
    fn paths_exports_and_file_systems_are_told_apart_by_form() {
        assert_eq!(Subject::parse("srv:/data"), server("srv", "/data"));
        assert_eq!(Subject::parse("10.0.0.1:/"), server("10.0.0.1", "/"));
        assert_eq!(Subject::parse("[fd00::1]:/a:/b"), server("fd00::1", "/a:/b"));
        assert_eq!(Subject::parse("fd00::1:/a"), server("fd00::1", "/a"));
        for path in ["/mnt/a", "./srv:/data", "data", "/a:/b", "."] {
            assert_eq!(Subject::parse(path), Ok(Subject::Path(path.into())), "{path}");
        }
        let efs = |directory: &str| {
            Ok(Subject::Efs { file_system: "fs-0123456789abcdef0".to_owned(), directory: directory.to_owned() })
        };
        assert_eq!(Subject::parse("fs-0123456789abcdef0"), efs("/"));
        assert_eq!(Subject::parse("fs-0123456789abcdef0:"), server_error());
        assert_eq!(Subject::parse("fs-0123456789abcdef0:/a/b"), efs("/a/b"));
        let name = "fs-0123456789abcdef0.efs.eu-west-1.amazonaws.com";
        assert_eq!(Subject::parse(&format!("{name}:/")), server(name, "/"));
    }

    fn server_error() -> Result<Subject, String> {
        Subject::parse("fs-0123456789abcdef0:")
    }

    #[test]
    fn what_is_neither_is_answered_with_its_right_form() {
        let error = Subject::parse("srv:data").unwrap_err();
        assert!(error.contains("srv:/data") && error.contains("./srv:data"), "{error}");
        for text in ["", ":/data", "[]:/x"] {
            assert!(Subject::parse(text).is_err(), "{text}");
        }
        assert!(Subject::parse("[fd00::1]:data").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_something_or_an_error(text: String) {
            let _ = Subject::parse(&text);
        }
    }
}
