//! The command line of the real binary: usage, help, configuration errors, exit codes, the agent's absence.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends where something is not as it should be")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The binary with nothing of this environment that it would listen to.
#[expect(clippy::disallowed_methods, reason = "the test starts the program it tests")]
fn mountwarden(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mountwarden"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MOUNTWARDEN_")) {
        command.env_remove(name);
    }
    command.env_remove("NODE_NAME").args(arguments);
    command
}

/// Exit code, standard output, standard error.
fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn without_a_command_the_help_is_shown_and_the_code_is_usage() {
    let (code, out, err) = run(&mut mountwarden(&[]));
    assert_eq!((code, out.as_str()), (64, ""));
    assert!(err.contains("Usage: mountwarden <COMMAND>"), "{err}");
}

#[test]
fn help_teaches_examples_states_and_exit_codes_within_a_hundred_columns() {
    for arguments in [
        &["--help"][..],
        &["run", "--help"],
        &["coordinate", "--help"],
        &["check", "--help"],
        &["diagnose", "--help"],
        &["status", "--help"],
        &["-h"],
    ] {
        let (code, out, _) = run(&mut mountwarden(arguments));
        assert_eq!(code, 0, "{arguments:?}");
        let wide: Vec<&str> = out.lines().filter(|line| line.len() > 100).collect();
        assert!(wide.is_empty(), "{arguments:?}: {wide:#?}");
    }
    let (_, out, _) = run(&mut mountwarden(&["--help"]));
    for word in ["Examples:", "Exit codes", "mountwarden check"] {
        assert!(out.contains(word), "{word} is missing in {out}");
    }
    for state in mountwarden::verdict::State::ALL {
        assert!(out.contains(&format!("\n  {state:<9}  ")), "{state} is missing in {out}");
    }
    assert!(!run(&mut mountwarden(&["run", "--help"])).1.contains("without-detector"));
}

#[test]
fn version_is_told() {
    assert_eq!(run(&mut mountwarden(&["--version"])).1, format!("mountwarden {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the shell is what the test asks")]
fn a_shell_accepts_its_completions() {
    for (shell, checker) in [("bash", "bash"), ("zsh", "zsh"), ("fish", "fish")] {
        let (code, script, _) = run(&mut mountwarden(&["completions", shell]));
        assert!(code == 0 && script.contains("check-config"), "{shell}");
        let mut checked = std::process::Command::new(checker);
        let Ok(mut child) = checked.arg("-n").stdin(Stdio::piped()).spawn() else {
            assert_ne!(shell, "bash", "every Debian has it");
            continue;
        };
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{shell} -n");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "reads what the program wrote into a scratch directory")]
fn every_listed_command_has_a_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    let (code, ..) = run(&mut mountwarden(&["man-pages", directory.path().to_str().unwrap()]));
    assert_eq!(code, 0);
    let (_, help, _) = run(&mut mountwarden(&["--help"]));
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let mut pages = vec!["mountwarden.1".to_owned()];
    pages.extend(commands.filter_map(|line| Some(format!("mountwarden-{}.1", line.split_whitespace().next()?))));
    assert!(pages.len() > 7, "{pages:?}");
    for page in pages {
        let roff = std::fs::read_to_string(directory.path().join(&page)).unwrap();
        assert!(roff.starts_with(".ie") && roff.contains("\n.SH NAME\n"), "{page}");
    }
    let (code, _, complaint) = run(&mut mountwarden(&["man-pages", "/nonexistent"]));
    assert!(code == 1 && complaint.contains("/nonexistent"), "{complaint}");
}

#[test]
fn a_mistyped_flag_is_answered_with_the_nearest_one() {
    for (command, expected) in [("run", 64), ("check", 3), ("diagnose", 3), ("status", 3)] {
        let (code, _, err) = run(&mut mountwarden(&[command, "--confg", "x"]));
        assert_eq!(code, expected, "{command}");
        assert!(err.contains("'--config'"), "{err}");
    }
    let (code, _, err) = run(&mut mountwarden(&["chek"]));
    assert_eq!(code, 64);
    assert!(err.contains("'check'"), "{err}");
}

#[test]
fn a_bad_duration_is_a_usage_error_and_says_what_would_be_right() {
    for (command, expected) in [("run", 64), ("check", 3)] {
        let (code, _, err) = run(&mut mountwarden(&[command, "--interval", "15"]));
        assert_eq!(code, expected, "{command}");
        assert!(err.contains("did you mean 15s?"), "{err}");
    }
    let (code, _, err) = run(mountwarden(&["run"]).env("MOUNTWARDEN_TIMEOUT", "5 sekonds"));
    assert_eq!(code, 64);
    assert!(err.contains("--timeout") && err.contains("write for example 15s"), "{err}");
}

#[test]
fn a_bad_configuration_ends_with_all_its_errors_at_once() {
    let bad = file("intervall: 15s\nworkers:\n  max: 0\nlisten: nowhere\n");
    let path = bad.path().to_str().unwrap();
    for (command, expected) in [("run", 78), ("check-config", 78), ("check", 3), ("status", 3)] {
        let (code, out, err) = run(&mut mountwarden(&[command, "--config", path]));
        assert_eq!((code, out.as_str()), (expected, ""), "{command}");
        for complaint in [
            format!("{path}:1:1: unknown key \"intervall\", did you mean \"interval\"?"),
            format!("{path}:3:8: workers.max: \"0\" is no whole number from 1 to 4096"),
            format!("{path}:4:9: listen: \"nowhere\" is no address"),
        ] {
            assert!(err.contains(&complaint), "{complaint} is missing in {err}");
        }
    }
    let (code, _, err) = run(&mut mountwarden(&["run", "--config", "/nonexistent.yaml"]));
    assert_eq!(code, 78);
    assert!(err.contains("/nonexistent.yaml: cannot read the configuration file"), "{err}");
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let yaml = file("interval: 20s\ntimeout: 2s\nbackoff_max: 3m\nnode_name: from-file\n");
    let path = yaml.path().to_str().unwrap();
    let (code, out, err) = run(mountwarden(&["check-config", "--interval", "40s", "--exclude-mount", "/a,/{b,c}"])
        .args(["--exclude-mount", "/d"])
        .env("MOUNTWARDEN_CONFIG", path)
        .env("MOUNTWARDEN_INTERVAL", "30s")
        .env("MOUNTWARDEN_TIMEOUT", "3s")
        .env("MOUNTWARDEN_LISTEN", "")
        .env("NODE_NAME", "from-env"));
    assert_eq!(code, 0, "{err}");
    for line in ["interval: 40s", "timeout: 3s", "backoff_max: 3m", "node_name: from-env", "listen: \":12049\""] {
        assert!(out.lines().any(|found| found == line), "{line} is missing in {out}");
    }
    assert!(out.contains("  exclude: [\"/a\", \"/{b,c}\", \"/d\"]\n"), "{out}");
    let (_, out, _) = run(mountwarden(&["check-config"]).env("NODE_NAME", "a").env("MOUNTWARDEN_NODE_NAME", "b"));
    assert!(out.contains("node_name: b\n"), "{out}");
}

#[test]
fn a_closed_output_is_no_panic_and_no_complaint() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = mountwarden(&["check-config"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = mountwarden(&["--help"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn an_agent_that_is_not_there_is_could_not_tell_with_advice() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, out, err) = run(&mut mountwarden(&["status", "--address", &address]));
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(err.contains(&format!("no agent answers at {address}")) && err.contains("mountwarden check"), "{err}");
    let (code, out, _) = run(&mut mountwarden(&["status", "--address", &address, "--nagios"]));
    assert_eq!(code, 3);
    assert!(out.starts_with("MOUNTS UNKNOWN - no agent answers") && out.ends_with('\n'), "{out}");
    let (code, _, err) = run(&mut mountwarden(&["status", "--listen-ui", ""]));
    assert_eq!(code, 3);
    assert!(err.contains("listen_ui is off"), "{err}");
}

#[test]
fn an_address_without_a_port_is_said_to_be_none() {
    let (code, _, err) = run(&mut mountwarden(&["status", "--address", "node1"]));
    assert_eq!(code, 3);
    assert!(err.contains("node1 is no address") && err.contains("127.0.0.1:12050"), "{err}");
}

#[test]
fn a_coordinator_without_a_cluster_says_how_to_name_one() {
    let home = tempfile::tempdir().unwrap();
    let alone = |arguments: &[&str]| {
        let mut command = mountwarden(arguments);
        command.env_remove("KUBERNETES_SERVICE_HOST").env_remove("KUBECONFIG").env("HOME", home.path());
        run(&mut command)
    };
    let (code, _, err) = alone(&["coordinate"]);
    assert_eq!(code, 1);
    assert!(err.contains("this is no pod") && err.contains("--kubeconfig") && !err.contains("infer"), "{err}");
    let (code, _, err) = alone(&["coordinate", "--kubeconfig", "/nowhere/config"]);
    assert_eq!(code, 1);
    assert!(err.contains("cannot use the kubeconfig /nowhere/config: "), "{err}");
}

#[test]
fn a_coordinator_lists_the_settings_that_it_uses_and_takes_the_agents_too() {
    let (_, help, _) = run(&mut mountwarden(&["coordinate", "--help"]));
    let flags: Vec<&str> = help
        .split_whitespace()
        .filter(|word| word.starts_with("--"))
        .filter(|word| help.contains(&format!("  {word} <")))
        .collect();
    let used = ["--config", "--listen", "--listen-ui", "--remedy-mode", "--kubeconfig", "--log-format", "--log-level"];
    assert_eq!(flags, used, "{help}");
    let (code, _, err) = run(&mut mountwarden(&["coordinate", "--intervall", "5s"]));
    assert!(code == 64 && err.contains("'--intervall'"), "{code}: {err}");
    // What is the agents' business may be in the file that both are given, and in the environment.
    let shared = file("interval: 20s\nremedy:\n  mode: dry-run\n");
    let mut command =
        mountwarden(&["coordinate", "--kubeconfig", "/nowhere/config", "--config", shared.path().to_str().unwrap()]);
    command.args(["--node-name", "n0"]);
    let (code, _, err) = run(command.env("MOUNTWARDEN_PROC_ROOT", "/host/proc"));
    assert!(code == 1 && err.contains("/nowhere/config"), "{code}: {err}");
}

/// Answers one request with `answer`; then keeps the connection open until the client ends it.
fn agent(answer: Vec<u8>) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = read_head(&mut stream);
        stream.write_all(&answer).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        request
    };
    (address, std::thread::Builder::new().spawn(serve).unwrap())
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn http(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn document() -> serde_json::Value {
    serde_json::json!({
        "schema": "mountwarden.io/mounts/v1", "version": "0.1.0", "node": "n1", "generated": 1_800_000_000.0, "ready": true,
        "interval_seconds": 15.0, "timeout_seconds": 5.0, "summary": {}, "autofs": [], "agent": {},
        "mounts": [{
            "mountpoint": "/mnt/a", "source": "10.0.0.1:/a", "fstype": "nfs4", "paths": ["/mnt/a"], "path_count": 1,
            "dev": "0:52", "origin": { "label": "10.0.0.1:/a" }, "state": "hung", "cause": "server_refused",
            "since": 1_799_999_940.0, "evidence": "e.", "advice": "a.", "inherited": false, "findings": [],
            "blocked_seconds": 7.0, "last_probe": null, "last_success": null, "steps": [], "probes": {}, "transitions": {},
            "blocked_seconds_total": 0.0, "decision": null,
        }],
    })
}

#[test]
fn status_prints_what_the_agent_says_in_three_forms() {
    let (address, server) = agent(http("200 OK", &document().to_string()));
    let (code, out, err) = run(&mut mountwarden(&["status", "--address", &address]));
    assert_eq!(code, 2, "{err}");
    assert!(out.contains("/mnt/a      hung   server_refused  1m   10.0.0.1:/a\n"), "{out}");
    assert!(out.ends_with("1 mount: 1 hung\n"), "{out}");
    assert!(server.join().unwrap().starts_with("GET /api/v1/mounts HTTP/1.1\r\n"));

    let (address, _server) = agent(http("200 OK", &document().to_string()));
    let (code, out, _) = run(mountwarden(&["status", "--json"]).env("MOUNTWARDEN_ADDRESS", &address));
    assert_eq!(code, 2);
    let printed: mountwarden::snapshot::Snapshot = serde_json::from_str(&out).unwrap();
    assert_eq!(printed, serde_json::from_value(document()).unwrap());

    let (address, _server) = agent(http("200 OK", &document().to_string()));
    let (code, out, _) = run(&mut mountwarden(&["status", "--nagios", "--address", &address]));
    assert_eq!(code, 2);
    assert!(out.starts_with("MOUNTS CRITICAL - 1 hung: /mnt/a (server_refused) | healthy=0 slow=0 hung=1"), "{out}");
}

#[test]
fn an_answer_that_is_no_snapshot_is_could_not_tell() {
    let cases = [
        (http("404 Not Found", ""), "answers 404"),
        (http("200 OK", "{}"), "something else than mountwarden.io/mounts/v1"),
        (http("200 OK", &document().to_string().replace("mounts/v1", "mounts/v2")), "mounts/v2"),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), "broke off the answer"),
    ];
    for (answer, complaint) in cases {
        let (address, _server) = agent(answer);
        let (code, _, err) = run(&mut mountwarden(&["status", "--address", &address]));
        assert_eq!(code, 3, "{err}");
        assert!(err.contains(complaint), "{err}");
    }
}

#[test]
fn an_agent_that_never_answers_costs_three_seconds() {
    let (address, _server) = agent(Vec::new());
    let start = Instant::now();
    let (code, _, err) = run(&mut mountwarden(&["status", "--address", &address]));
    assert_eq!(code, 3);
    assert!(err.contains("did not answer within 3 seconds"), "{err}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

/// A port on the loopback address at which nobody listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn diagnose_says_why_an_export_cannot_be_mounted() {
    let options = format!("port={}", free_port());
    let arguments = ["diagnose", "127.0.0.1:/data", "-o", &options, "--timeout", "2s"];
    let (code, out, err) = run(&mut mountwarden(&arguments));
    assert_eq!((code, err.as_str()), (2, ""), "{out}");
    assert!(
        out.contains("Result: it cannot be mounted, cause: server_refused") && out.contains("What to do:"),
        "{out}"
    );
    assert!(!out.contains('\u{1b}'), "colours are for terminals: {out}");
    let (code, out, _) = run(mountwarden(&arguments).arg("--nagios"));
    assert_eq!((code, out.lines().count()), (2, 1));
    assert!(
        out.starts_with("DIAGNOSIS CRITICAL - 127.0.0.1:/data: server_refused: ") && out.contains(" | seconds="),
        "{out}"
    );
    let (code, out, _) = run(mountwarden(&arguments).arg("--json"));
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &document["cause"], &document["result"]), (2, &"server_refused".into(), &"dead".into()));
    assert_eq!(document["schema"], "mountwarden.io/diagnosis/v1");
}

#[test]
fn flags_of_diagnose_have_twins_in_the_environment() {
    let options = format!("port={}", free_port());
    let (code, out, _) = run(mountwarden(&["diagnose", "127.0.0.1:/data"]).env("MOUNTWARDEN_OPTIONS", options));
    assert!(code == 2 && out.contains("connection refused"), "{out}");
    let mut command = mountwarden(&["diagnose", "fs-0123456789abcdef0", "--timeout", "100ms"]);
    let (code, out, _) = run(command.env("MOUNTWARDEN_REGION", "xx-nowhere-1"));
    assert!(code != 0 && out.contains("fs-0123456789abcdef0.efs.xx-nowhere-1.amazonaws.com"), "{out}");
}

#[test]
fn what_cannot_be_diagnosed_is_could_not_tell() {
    let (code, out, _) = run(&mut mountwarden(&["diagnose", "/proc"]));
    assert_eq!(code, 3);
    assert!(out.contains("no network filesystem that is watched") && out.contains("mountwarden check"), "{out}");
    let (code, out, _) = run(mountwarden(&["diagnose", "fs-0123456789abcdef0"])
        .env_remove("AWS_REGION")
        .env_remove("AWS_DEFAULT_REGION"));
    assert!(code == 3 && out.contains("--region"), "{out}");
    for wrong in [&["diagnose", "srv:data"][..], &["diagnose", "srv:/data", "-o", "vers=9"], &["diagnose"]] {
        assert_eq!(run(&mut mountwarden(wrong)).0, 3, "{wrong:?}");
    }
}
