//! `docs/findings.md`, made from the findings and their words.

use std::fmt::Write as _;

use super::{Finding, words};

const HEAD: &str = "# Findings

This page is generated; a test compares it with the program. A finding is worth knowing and is no state: it stands beside
the verdict (`findings` in the JSON, `mountwarden_mount_finding`, a line in the tables, one log line when it appears), it
changes neither `mount_up` nor an exit code, and no remedy acts on it. A client with the defaults of its distribution has
none. What is meant as it is can be silenced by name:

```yaml
findings:
  silence: [soft_writable]
```

NFS alone is looked at, as options of other filesystems say other things; `not_shared` is about pods and has two cases: of a pod that
does not start it stands with the pod ([kubernetes.md](kubernetes.md#pods-that-do-not-start)), of containers that do not have what others have of one volume
with the mount ([kubernetes.md](kubernetes.md#what-containers-are-meant-to-share)). `address_drift` needs the server's name resolved
anew and is reported only where the agent does that.

| finding | is the case | comes of it | what to do | says who |
|---|---|---|---|---|
";

/// The page.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    for finding in Finding::ALL {
        for words in words::cases(*finding) {
            let sources: Vec<String> = words.sources.iter().map(link).collect();
            // Writing to a String cannot fail.
            let _ = writeln!(
                page,
                "| `{finding}` | {} | {} | {} | {} |",
                words.means,
                words.consequence,
                words.advice,
                sources.join(", ")
            );
        }
    }
    page
}

fn link((title, address): &words::Source) -> String {
    if address.is_empty() { (*title).to_owned() } else { format!("[{title}]({address})") }
}
