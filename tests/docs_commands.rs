//! Every command in the documentation is one that exists: the real binary parses the flags, make has the target, the manifests have the
//! object. What a page tells people to type is typed here, as far as it goes without a cluster.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod common {
    #![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::disallowed_methods, reason = "shared by tests")]
    pub mod pages;
}

use std::collections::BTreeSet;
use std::process::Command;

use common::pages::root;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Commands of a page: lines of fenced `sh` blocks, and `code` that begins with a program of ours.
fn commands(text: &str) -> Vec<String> {
    let (mut found, mut fence) = (Vec::new(), None);
    for line in text.lines() {
        let line = line.trim();
        match (line.strip_prefix("```"), fence) {
            (Some(language), None) => fence = Some(language == "sh"),
            (Some(_), Some(_)) => fence = None,
            (None, Some(true)) => found.push(line.to_owned()),
            (None, Some(false)) => {}
            (None, None) => {
                let spans = line.split('`').skip(1).step_by(2);
                let ours = |span: &&str| {
                    ["mountwarden ", "make ", "kubectl ", "promtool "].iter().any(|p| span.starts_with(p))
                };
                found.extend(spans.filter(ours).map(str::to_owned));
            }
        }
    }
    let joined = found.join("\n").replace("\\\n", " ");
    let split = joined.lines().flat_map(|line| line.split(" | ").flat_map(|part| part.split(" && ")));
    split.map(|command| words_of(command).join("\u{1f}")).filter(|command| !command.is_empty()).collect()
}

/// Words of a simple command, with quotes taken off; a comment ends it.
fn words_of(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut any) = (Vec::new(), String::new(), None, false);
    for c in command.chars() {
        match (c, quote) {
            ('\'' | '"', None) => (quote, any) = (Some(c), true),
            (c, Some(q)) if c == q => quote = None,
            ('#', None) if word.is_empty() => break,
            (c, None) if c.is_whitespace() => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                    any = false;
                }
            }
            (c, _) => word.push(c),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

/// All commands of all pages, each with its page, without assignments and `sudo` in front.
fn all() -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for page in common::pages::all() {
        let name = page.strip_prefix(root()).unwrap().display().to_string();
        for command in commands(&std::fs::read_to_string(&page).unwrap()) {
            let words = command.split('\u{1f}').map(str::to_owned);
            let is_prefix =
                |word: &String| word == "sudo" || word == "$" || (word.contains('=') && !word.starts_with('-'));
            let words: Vec<String> = words.skip_while(is_prefix).collect();
            found.push((name.clone(), words));
        }
    }
    found
}

/// A line with `mountwarden` as its program, also behind `kubectl exec ... --` and with a path in front.
fn invocation(words: &[String]) -> Option<&[String]> {
    let ours = |word: &String| word == "mountwarden" || word.ends_with("release/mountwarden");
    let program = words.first()?;
    if ours(program) {
        return words.get(1..);
    }
    let behind = words.iter().position(|word| word == "--")? + 1;
    (program == "kubectl" && words.get(behind).is_some_and(ours)).then(|| words.get(behind + 1..).unwrap_or_default())
}

/// Words that a page leaves to its reader, as something that can be parsed.
fn filled_in(word: &str) -> String {
    match word {
        "PATH" => "/mnt/data".to_owned(),
        "SERVER:/EXPORT" => "srv:/data".to_owned(),
        "SHELL" => "bash".to_owned(),
        other => other.trim_end_matches("...").to_owned(),
    }
}

#[test]
fn every_invocation_of_mountwarden_is_understood() {
    let mut checked = 0;
    for (page, words) in all() {
        let Some(arguments) = invocation(&words) else { continue };
        let redirected = |word: &String| {
            word.starts_with('>') || word.starts_with("2>") || word == ";" || word == "||" || word == "&"
        };
        let mut arguments: Vec<String> =
            arguments.iter().take_while(|word| !redirected(word)).map(|w| filled_in(w)).collect();
        // clap says what it does not understand before it shows the help, and does nothing else.
        let asks_for_help = arguments.iter().any(|word| word == "--help" || word == "--version");
        if !asks_for_help {
            arguments.push("--help".to_owned());
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_mountwarden"));
        let output = command.args(&arguments).env_remove("NODE_NAME").output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{page}: mountwarden {}: {complaint}", arguments.join(" "));
        checked += 1;
    }
    assert!(checked > 40, "only {checked} invocations were found");
}

/// `--help` ends clap's reading, so that what follows it would not be checked: flags are compared one by one as well.
#[test]
fn every_flag_of_mountwarden_exists() {
    for (page, words) in all() {
        let Some(arguments) = invocation(&words) else { continue };
        let Some(subcommand) = arguments.first().filter(|word| !word.starts_with('-')) else { continue };
        let output = Command::new(env!("CARGO_BIN_EXE_mountwarden")).args([subcommand, "--help"]).output().unwrap();
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        let known: BTreeSet<&str> = help
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
            .filter(|word| word.starts_with('-'))
            .collect();
        for flag in arguments.iter().filter(|word| word.starts_with('-')) {
            let flag = flag.split('=').next().unwrap();
            assert!(known.contains(flag), "{page}: mountwarden {subcommand} has no {flag}");
        }
    }
}

#[test]
fn every_make_target_exists() {
    let rules = read("Makefile") + &read("tests/lab/lab.mk");
    let targets: BTreeSet<&str> = rules.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    let mut checked = BTreeSet::new();
    for (page, words) in all() {
        if words.first().is_none_or(|word| word != "make") {
            continue;
        }
        for word in words.iter().skip(1).take_while(|word| *word != ">") {
            if word.contains('=') || word.starts_with('-') {
                continue;
            }
            assert!(targets.contains(word.as_str()), "{page}: make has no target {word}");
            checked.insert(word.clone());
        }
    }
    assert!(checked.len() > 8, "only {checked:?} were found");
}

/// Kinds that kubectl is asked about, by the names that pages use.
const KINDS: [&str; 20] = [
    "ds",
    "deploy",
    "deployments",
    "pod",
    "pods",
    "pv",
    "pvc",
    "node",
    "nodes",
    "nm",
    "nodemounts",
    "namespace",
    "namespaces",
    "configmap",
    "configmaps",
    "events",
    "daemonset",
    "deployment",
    "lease",
    "leases",
];

#[test]
fn kubectl_is_asked_for_objects_that_exist_and_promtool_for_files() {
    let manifests = read("k8s/install-remedy-enforce.yaml");
    let (mut objects, mut files) = (0, 0);
    for (page, words) in all() {
        let program = words.first().map(String::as_str);
        if program == Some("kubectl") {
            for (flag, value) in words.iter().zip(words.iter().skip(1)) {
                if flag == "-f" && !["-", "FILE"].contains(&value.as_str()) {
                    assert!(root().join(value).exists(), "{page}: kubectl -f {value}");
                    files += 1;
                }
            }
            for word in words.iter().take_while(|word| *word != "--") {
                let Some((kind, name)) = word
                    .split_once('/')
                    .filter(|_| !word.contains("k8s/") && !word.contains('.') && !word.contains('='))
                else {
                    continue;
                };
                if !KINDS.contains(&kind) {
                    continue;
                }
                if name.chars().any(|c| c.is_ascii_lowercase()) {
                    assert!(manifests.contains(&format!("name: {name}\n")), "{page}: there is no {word} in k8s/");
                    objects += 1;
                }
            }
            let verb = words.iter().position(|word| word == "get" || word == "describe");
            if let Some(kind) = verb.and_then(|at| words[at + 1..].iter().find(|word| !word.starts_with('-'))) {
                let kinds = kind.split('/').next().unwrap().split(',');
                kinds.for_each(|kind| {
                    assert!(KINDS.contains(&kind), "{page}: kubectl get {kind}: known to nobody here")
                });
            }
        }
        if matches!(program, Some("promtool" | "amtool" | "install" | "packaging/try-image.sh")) {
            for word in
                words.iter().filter(|word| ["alerts/", "packaging/", "dashboards/"].iter().any(|f| word.starts_with(f)))
            {
                assert!(root().join(word).exists(), "{page}: {word} is not there");
                files += 1;
            }
        }
    }
    assert!(objects >= 4 && files >= 5, "only {objects} objects and {files} files were found");
}

/// `docker build` sees what `.dockerignore` lets through; what is missing there is missed only at a newcomer's.
#[test]
fn docker_build_is_given_all_that_the_build_reads() {
    let list = read(".dockerignore");
    let given: Vec<&str> = list.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let inside = |path: &str| given.iter().any(|one| path == *one || path.starts_with(&format!("{one}/")));
    // Read by cargo, by rustup, by the templates' macro and by the Dockerfile.
    for needed in ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "askama.toml", "packaging/static.sh"] {
        assert!(root().join(needed).exists() && inside(needed), "{needed}");
    }
    // Cargo wants the sources of every target that has a path of its own.
    let manifest = read("Cargo.toml");
    let targets = manifest.lines().filter_map(|line| line.strip_prefix("path = \"")?.strip_suffix('"'));
    let missing: Vec<_> = targets.filter(|path| !inside(path)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(inside("src/main.rs") && !inside("docs/release.md") && !inside("target/debug/mountwarden"));
}

#[test]
fn words_are_read_as_a_shell_reads_them() {
    assert_eq!(words_of("a 'b c' \"d\"e # f"), ["a", "b c", "de"]);
    let page =
        "`make x`\n```sh\nmountwarden check | head -1\n```\n```yaml\nmake: y\n```\nsee `kubectl get nm` and `code`";
    let found: Vec<_> = commands(page).iter().map(|command| command.replace('\u{1f}', " ")).collect();
    assert_eq!(found, ["make x", "mountwarden check", "head -1", "kubectl get nm"]);
}
