use super::*;

const FSTYPES: [&str; 9] = ["nfs", "nfs4", "cifs", "smb3", "ceph", "fuse.sshfs", "lustre", "9p", "beegfs"];

fn facts(fstype: &'static str) -> AdviceFacts<'static> {
    AdviceFacts { mountpoint: "/mnt/data", server: Some("10.0.0.1"), export: Some("/data"), port: None, fstype }
}

/// Every (state, cause) of every type, with and without a server.
fn all() -> impl Iterator<Item = (State, Cause, String)> {
    let bare = |fstype| AdviceFacts { server: None, export: None, ..facts(fstype) };
    FSTYPES.into_iter().flat_map(move |fstype| [facts(fstype), bare(fstype)]).flat_map(|facts| {
        State::ALL
            .into_iter()
            .flat_map(move |state| Cause::ALL.iter().map(move |cause| (state, *cause, advice(state, *cause, &facts))))
    })
}

/// What stands in backticks.
fn commands(advice: &str) -> Vec<&str> {
    advice.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_state_and_cause_has_a_sentence_with_a_command_and_only_healthy_has_none() {
    for (state, cause, words) in all() {
        if state == State::Healthy {
            assert_eq!(words, "", "{cause}");
            continue;
        }
        assert!(!commands(&words).is_empty(), "{state}/{cause} has no command: {words}");
        assert!(
            words.ends_with('.') && words.chars().next().is_some_and(char::is_uppercase),
            "{state}/{cause}: {words}"
        );
        assert!(words.matches('`').count() % 2 == 0, "{state}/{cause}: {words}");
        assert!(words.chars().count() <= 300, "{state}/{cause} has {} characters: {words}", words.chars().count());
    }
}

#[test]
fn no_command_waits_for_a_dead_mount() {
    for (state, cause, words) in all() {
        for command in commands(&words) {
            let program = command.split(' ').next().expect("a word");
            assert!(
                !["ls", "df", "cd", "findmnt", "mountpoint", "lsof", "fuser"].contains(&program),
                "{state}/{cause}: {command}"
            );
            let forced = command.starts_with("umount -l ");
            assert!(program != "umount" || forced, "{state}/{cause} unmounts without -l: {command}");
            if forced {
                assert!(words.contains("data is lost"), "{state}/{cause} does not name the price: {words}");
            }
            // On the mount itself only what cannot wait for it.
            let safe = ["mountwarden", "umount", "fusermount3", "grep", "mount"];
            assert!(!command.contains("/mnt/data") || safe.contains(&program), "{state}/{cause}: {command}");
        }
    }
}

#[test]
fn the_commands_name_the_server_and_its_port() {
    let words = advice(State::Hung, Cause::ServerUnreachable, &facts("nfs4"));
    assert_eq!(commands(&words), ["nc -vz -w 3 10.0.0.1 2049"]);
    let words = advice(State::Hung, Cause::ServerRefused, &facts("cifs"));
    assert_eq!(commands(&words), ["nc -vz -w 3 10.0.0.1 445"]);
    let words = advice(State::Hung, Cause::ServerUnresponsive, &AdviceFacts { port: Some(20049), ..facts("nfs") });
    assert_eq!(commands(&words), ["rpcinfo -n 20049 -t 10.0.0.1 nfs 3"]);
}

#[test]
fn what_a_tenant_wrote_into_the_mount_table_runs_nothing() {
    let hostile = AdviceFacts {
        mountpoint: "/mnt/$(reboot); `id` 'x",
        server: Some("a;reboot"),
        export: Some("/e && reboot"),
        port: None,
        fstype: "nfs4",
    };
    let words = advice(State::Lost, Cause::DaemonDead, &hostile);
    assert!(words.contains(r"fusermount3 -u -z $'/mnt/$(reboot); \140id\140 \047x'"), "{words}");
    assert!(advice(State::Hung, Cause::ServerRefused, &hostile).contains("'a;reboot'"));
    assert!(advice(State::Full, Cause::OutOfSpace, &hostile).contains("'/e && reboot'"));
}

#[test]
fn a_server_that_looks_like_an_option_is_not_given_to_a_command() {
    let sly = AdviceFacts { server: Some("-e/bin/sh"), export: Some("-x"), ..facts("nfs4") };
    for cause in Cause::ALL {
        let words = advice(State::Hung, *cause, &sly);
        assert!(!words.contains("-e/bin/sh") && !words.contains(" -x`"), "{cause}: {words}");
    }
}

#[test]
fn an_unprobed_fuse_mount_is_no_alarm_about_its_server() {
    let words = advice(State::Unknown, Cause::Permission, &facts("fuse.sshfs"));
    assert!(words.contains("allow_other"), "{words}");
}

#[test]
fn who_has_the_mount_in_a_namespace_of_his_own_is_restarted_and_nothing_is_unmounted_there() {
    let in_container = AdviceFacts { mountpoint: "/proc/267/root/mnt/data", ..facts("nfs4") };
    let words = advice(State::Stale, Cause::HandleInvalid, &in_container);
    assert!(!words.contains("umount") && words.contains("kubectl delete pod"), "{words}");
    assert!(advice(State::Stale, Cause::HandleInvalid, &facts("nfs4")).contains("umount -l /mnt/data"));
}
