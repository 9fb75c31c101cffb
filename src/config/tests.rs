use super::*;
use std::io::Write as _;

fn load(yaml: &str) -> Result<Config, ConfigErrors> {
    load_with(yaml, &Overrides::default())
}

fn load_with(yaml: &str, overrides: &Overrides) -> Result<Config, ConfigErrors> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(yaml.as_bytes()).unwrap();
    Config::load(Some(file.path()), overrides)
}

/// The complaints as `line:column: text`.
fn complaints(yaml: &str) -> Vec<String> {
    let errors = load(yaml).expect_err("the file is wrong");
    errors
        .all()
        .iter()
        .map(|error| match &error.origin {
            Origin::Place { line, column, .. } => format!("{line}:{column}: {}", error.problem),
            other => format!("{}: {}", if matches!(other, Origin::File(_)) { "file" } else { "?" }, error.problem),
        })
        .collect()
}

fn key(name: &str) -> &'static schema::Key {
    schema::KEYS.iter().find(|key| key.name == name).unwrap()
}

#[test]
fn no_file_an_empty_one_and_one_of_comments_are_the_defaults() {
    assert_eq!(Config::load(None, &Overrides::default()).unwrap(), Config::default());
    for yaml in ["", "\n", "# only\n# comments\n", "---\n", "workers:\nlog:\n", "interval:\n"] {
        assert_eq!(load(yaml).unwrap(), Config::default(), "{yaml:?}");
    }
}

#[test]
fn every_setting_of_a_file_arrives() {
    let config = load(
        "interval: 30s\ntimeout: 500ms\nslow: 200ms\nbackoff_max: 5m\nsentinels: 0\n\
         workers: {warm: 2, max: 20, per_owner: 10}\nprobes_per_server: 3\nlisten: \"192.0.2.1:80\"\nlisten_ui: \"\"\n\
         node_name: n1\nproc_root: /host/proc\n\
         mounts:\n  include_fstype: [fuse.s3fs]\n  exclude_fstype: [\"9p\"]\n  include: /mnt/{a,b}\n  exclude: [/mnt/x*]\n  local: [/srv/disk]\n  containers: off\n\
         findings: {silence: [soft_writable, hidden]}\n\
         remedy: {mode: dry-run, require_opt_in: false, evict_on_replaced: never, in_flight: 9, cool_down: 1h, grace: 1m}\n\
         unstick: {hung: true, hung_after: 20m, orphans: true}\n\
         canary: {mounts: [/mnt/*], interval: 2m, allow_empty_root: true, identity: \"uid=7 gid=8 groups=9+10 umask=027\", reader: uid=11}\n\
         kubernetes: {enabled: on, kubeconfig: /etc/k, events: off, condition: off}\n\
         state: {file: /run/mountwarden/state}\n\
         log: {format: json, level: \"info,mountwarden=debug\"}\n",
    )
    .unwrap();
    let expected = Config {
        interval: Duration::from_secs(30),
        timeout: Duration::from_millis(500),
        slow: Duration::from_millis(200),
        backoff_max: Duration::from_secs(300),
        sentinels: 0,
        workers_warm: 2,
        workers_max: 20,
        workers_per_owner: 10,
        probes_per_server: 3,
        listen: "192.0.2.1:80".to_owned(),
        listen_ui: String::new(),
        proc_root: PathBuf::from("/host/proc"),
        node_name: "n1".to_owned(),
        include_fstype: vec!["fuse.s3fs".to_owned()],
        exclude_fstype: vec!["9p".to_owned()],
        include_mount: vec!["/mnt/{a,b}".to_owned()],
        exclude_mount: vec!["/mnt/x*".to_owned()],
        local_mounts: vec!["/srv/disk".to_owned()],
        containers: OnOff::Off,
        canary_mounts: vec!["/mnt/*".to_owned()],
        canary_interval: Duration::from_secs(120),
        canary_empty_root: true,
        canary_identity: Some(crate::canary::Ids { uid: 7, gid: 8, groups: vec![9, 10], umask: 0o027 }),
        canary_reader: Some(crate::canary::Ids { uid: 11, gid: 11, groups: Vec::new(), umask: 0o022 }),
        silence_findings: vec![Finding::SoftWritable, Finding::Hidden],
        remedy: Remedy {
            mode: RemedyMode::DryRun,
            require_opt_in: false,
            evict_on_replaced: OnReplaced::Never,
            in_flight: 9,
            cool_down: Duration::from_secs(3600),
            grace: Duration::from_secs(60),
        },
        unstick: Unstick { hung: true, hung_after: Duration::from_secs(1200), orphans: true },
        state_file: "/run/mountwarden/state".to_owned(),
        log_format: LogFormat::Json,
        log_level: "info,mountwarden=debug".to_owned(),
        kubernetes: OnOff::On,
        kubeconfig: "/etc/k".to_owned(),
        kubernetes_events: OnOff::Off,
        kubernetes_condition: OnOff::Off,
        without: Vec::new(),
    };
    assert_eq!(config, expected);
}

#[test]
fn what_is_in_force_reads_back_as_itself() {
    let config =
        load("node_name: \"off\"\nlisten_ui: \"off\"\nmounts: {exclude: [\"a\\\"b\", \"*\"]}\ncanary: {reader: uid=3, allow_empty_root: true}\ntimeout: 1500ms\n")
            .unwrap();
    assert_eq!(config.listen_ui, "");
    assert_eq!(load(&docs::effective(&config)).unwrap(), config);
}

#[test]
fn all_mistakes_are_told_at_once_each_with_its_place_and_the_nearest_key() {
    let told = complaints(
        "intervall: 15s\ntimeout: 5\nworkers:\n  maxx: 3\n  warm: [1]\n  per_owner: 0\nlisten: 99999\nlog:\n  level: infoo\n  format: xml\n\
         mounts:\n  exclude: [\"/mnt/[\"]\n  include: [1]\nfrobnicate: yes\n",
    );
    let expected = [
        "1:1: unknown key \"intervall\", did you mean \"interval\"?",
        "2:10: timeout: \"5\" has no unit, did you mean 5s?",
        "4:3: unknown key \"workers.maxx\", did you mean \"workers.max\"?",
        "5:9: workers.warm must be a whole number, not a list",
        "6:14: workers.per_owner: \"0\" is no whole number from 1 to 4096",
        "7:9: listen must be an address such as \":12049\" (in quotes), not a number",
        "9:10: log.level: \"infoo\" is no log level; write error, warn, info, debug, trace or off (did you mean info?)",
        "10:11: log.format: \"xml\" is no log format; write text or json",
        "12:12: mounts.exclude: \"/mnt/[\" is no glob pattern: unclosed character class; missing ']'",
        "13:12: mounts.include must be a list of patterns such as [\"nfs*\"], not a number",
        "14:1: unknown key \"frobnicate\"",
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_key_in_the_wrong_section_is_found_again() {
    assert_eq!(complaints("level: info\n"), ["1:1: unknown key \"level\", did you mean \"log.level\"?"]);
    assert_eq!(
        complaints("workers.max: 3\n"),
        ["1:1: unknown key \"workers.max\", did you mean \"workers: {max: ...}\"?"]
    );
}

#[test]
fn syntax_errors_and_doubled_keys_are_told_with_their_place() {
    let told = complaints("interval: 15s\ntimeout: [1\nslow: 1s\n");
    assert!(told[0].contains("not valid YAML"), "{told:?}");
    let told = complaints("interval: 15s\ninterval: 16s\n");
    assert!(told[0].starts_with("2:1: not valid YAML: duplicate"), "{told:?}");
    for yaml in ["- a\n- b\n", "just text\n"] {
        let told = complaints(yaml);
        assert!(told[0].starts_with("1:1: the file must be"), "{told:?}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_told_where_they_were_said() {
    assert_eq!(complaints("timeout: 500ms\nslow: 1s\n"), ["2:7: slow (1s) must be shorter than timeout (500ms)"]);
    assert_eq!(complaints("interval: 5m\n"), ["1:11: backoff_max (2m, the default) must be at least interval (5m)"]);
    let told = complaints("workers:\n  warm: 9\n  max: 8\n");
    assert_eq!(
        told,
        [
            "2:9: workers.warm (9) must be at most workers.max (8)",
            "3:8: workers.per_owner (32, the default) must be at most workers.max (8)"
        ]
    );
    assert!(complaints("listen: \":80\"\nlisten_ui: \":80\"\n")[0].contains("listen and listen_ui are both"));
    load("interval: 1s\ntimeout: 5s\n").expect("a timeout longer than the interval is allowed");
}

#[test]
fn a_value_that_cannot_be_used_raises_no_second_complaint_about_its_rule() {
    assert_eq!(complaints("interval: soon\nbackoff_max: 10s\n").len(), 1);
}

#[test]
fn flags_override_the_file_and_name_themselves_in_complaints() {
    let mut overrides = Overrides::default();
    overrides.set(key("interval"), Origin::Flag("interval"), vec!["20s".to_owned()]);
    overrides.set(
        key("mounts.exclude"),
        Origin::Env("MOUNTWARDEN_EXCLUDE_MOUNT"),
        vec!["/a,/{b,c}".to_owned(), "/d".to_owned()],
    );
    let config = load_with("interval: 30s\nmounts: {exclude: [/z]}\n", &overrides).unwrap();
    assert_eq!(config.interval, Duration::from_secs(20));
    assert_eq!(config.exclude_mount, ["/a", "/{b,c}", "/d"]);

    overrides.set(key("interval"), Origin::Flag("interval"), vec!["10m".to_owned()]);
    let errors = load_with("", &overrides).unwrap_err().to_string();
    assert_eq!(errors, "--interval: backoff_max (2m, the default) must be at least interval (10m)");
}

#[test]
fn a_file_that_cannot_be_read_is_told_with_its_name() {
    let errors = Config::load(Some(Path::new("/nonexistent/config.yaml")), &Overrides::default()).unwrap_err();
    let text = errors.to_string();
    assert!(text.starts_with("/nonexistent/config.yaml: cannot read the configuration file: No such file"), "{text}");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"interval: 15s\n\xff").unwrap();
    let text = Config::load(Some(file.path()), &Overrides::default()).unwrap_err().to_string();
    assert!(text.ends_with("not UTF-8 text from byte 14 on"), "{text}");
    let text = Config::load(Some(Path::new("/dev/zero")), &Overrides::default()).unwrap_err().to_string();
    assert!(text.contains("larger than"), "{text}");
}

#[test]
fn addresses_to_listen_on_are_checked() {
    for good in [":12049", "1.2.3.4:80", "[::]:80", "[2001:db8::1]:12049"] {
        assert_eq!(load(&format!("listen: \"{good}\"\n")).unwrap().listen, good);
    }
    for bad in ["", "12049", "host:80", ":123456", "1.2.3.4", "::1:80:"] {
        assert!(load(&format!("listen: \"{bad}\"\n")).is_err(), "{bad}");
    }
}

#[test]
fn durations_are_read_as_people_write_them() {
    for (text, seconds) in [("15s", 15), ("2m", 120), ("1m 30s", 90), ("1m30s", 90)] {
        let config = load(&format!("interval: 1s\nbackoff_max: {text}\n")).unwrap();
        assert_eq!(config.backoff_max, Duration::from_secs(seconds), "{text}");
    }
    for text in ["-1s", "15 sekonds", "abc", "1.5x", "\"\"", "999999999999999999999s"] {
        assert_eq!(complaints(&format!("interval: {text}\n")).len(), 1, "{text}");
    }
}

#[test]
fn keys_have_unique_names_flags_and_variables() {
    let names: BTreeSet<_> = schema::KEYS.iter().map(|key| key.name).collect();
    assert_eq!(names.len(), schema::KEYS.len());
    for flag in schema::KEYS.iter().filter_map(|key| key.flag) {
        assert_eq!(flag.env, format!("MOUNTWARDEN_{}", flag.name.replace('-', "_").to_uppercase()));
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_text_never_panics(yaml in "\\PC{0,200}") {
        let _ = load(&yaml);
    }

    #[test]
    fn arbitrary_values_never_panic(value in "[^\\n]{0,40}", index in 0..19_usize) {
        let mut overrides = Overrides::default();
        overrides.set(&schema::KEYS[index], Origin::Flag("x"), vec![value]);
        let _ = Config::load(None, &overrides);
    }
}

#[test]
fn a_finding_that_does_not_exist_is_named_with_the_nearest() {
    assert_eq!(
        complaints("findings: {silence: [soft_writeable]}\n"),
        [r#"1:21: findings.silence: there is no finding "soft_writeable", did you mean "soft_writable"?"#]
    );
    let far = complaints("findings:\n  silence: xyz\n").remove(0);
    assert!(
        far.starts_with("2:12: findings.silence: there is no finding \"xyz\"; there are maybe_replaced, hidden, "),
        "{far}"
    );
    assert_eq!(
        complaints("findings: {silence: 3}\n"),
        ["1:21: findings.silence must be a list of findings such as [soft_writable], not a number"]
    );
}

#[test]
fn a_switch_and_a_mode_that_are_none_are_refused_with_the_words_that_there_are() {
    let said = complaints("remedy: {require_opt_in: maybe, mode: loud, evict_on_replaced: true}\n");
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].contains("\"maybe\" is neither true nor false"), "{said:?}");
    assert!(said[1].contains("observe, dry-run, enforce"), "{said:?}");
    assert!(said[2].contains("same_names, always or never"), "{said:?}");
}
