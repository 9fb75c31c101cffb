//! The manifests: rendered as committed, known to the API's types to the last field, and granting what was decided.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test reads and writes the manifests of its own repository")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use mountwarden::cluster::node_mounts::NodeMounts;
use serde_json::Value;

/// The committed rendering, and what it is rendered from.
const RENDERED: [(&str, &str); 7] = [
    ("install.yaml", "base"),
    ("install-canary.yaml", "variants/canary"),
    ("install-podmonitor.yaml", "variants/podmonitor"),
    ("install-rbac-proxy.yaml", "variants/rbac-proxy"),
    ("install-openshift.yaml", "variants/openshift"),
    ("install-remedy-dry-run.yaml", "variants/remedy-dry-run"),
    ("install-remedy-enforce.yaml", "variants/remedy-enforce"),
];

#[path = "manifests/rbac_proxy.rs"]
mod rbac_proxy;

fn k8s() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("k8s")
}

fn blessing() -> bool {
    std::env::var_os("MOUNTWARDEN_BLESS").is_some()
}

fn objects(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(k8s().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    parts(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn parts(text: &str) -> Result<Vec<Value>, serde_saphyr::Error> {
    text.split("\n---\n").map(serde_saphyr::from_str).collect()
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().expect("kind")
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("metadata.name")
}

fn find(file: &str, wanted: &str, named: &str) -> Value {
    let found = objects(file).into_iter().find(|object| kind(object) == wanted && name(object) == named);
    found.unwrap_or_else(|| panic!("{file} has no {wanted} {named}"))
}

/// `kubectl` with kustomize 5 or newer; Debian's own kubectl (1.20) knows no components.
fn renderer() -> Result<(), String> {
    let output = Command::new("kubectl").args(["version", "--client"]).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().find_map(|line| line.strip_prefix("Kustomize Version: v"));
    let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    if major.is_some_and(|major| major >= 5) { Ok(()) } else { Err(format!("its kustomize is too old: {text}")) }
}

fn render(directory: &Path) -> String {
    let output = Command::new("kubectl").arg("kustomize").arg(directory).output().unwrap();
    assert!(output.status.success(), "{}: {}", directory.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn skipped(words: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {words}");
}

#[test]
fn the_crd_is_that_of_the_type() {
    let made = serde_json::to_value(NodeMounts::crd()).unwrap();
    let head = "# Made from the type in src/cluster/node_mounts.rs: MOUNTWARDEN_BLESS=1 cargo test --test manifests\n";
    if blessing() {
        std::fs::write(k8s().join("base/crd.yaml"), head.to_owned() + &serde_saphyr::to_string(&made).unwrap())
            .unwrap();
    }
    assert!(
        objects("base/crd.yaml") == [made],
        "MOUNTWARDEN_BLESS=1 cargo test --test manifests, twice: the renderings contain it"
    );
}

#[test]
fn the_single_files_are_what_kustomize_renders() {
    if let Err(reason) = renderer() {
        skipped(&format!("kubectl renders nothing here ({reason}); the committed files are checked as they are"));
        return;
    }
    for (file, from) in RENDERED {
        let made = format!("# kubectl kustomize k8s/{from} > k8s/{file}\n{}", render(&k8s().join(from)));
        if blessing() {
            std::fs::write(k8s().join(file), &made).unwrap();
        }
        let committed = std::fs::read_to_string(k8s().join(file)).unwrap_or_default();
        assert!(committed == made, "k8s/{file} is out of date: MOUNTWARDEN_BLESS=1 cargo test --test manifests");
    }
}

/// Decodes into the API's type and back: a field that the type does not know is lost on the way.
fn round_trip<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Value {
    let typed: T = serde_json::from_value(object.clone())
        .unwrap_or_else(|error| panic!("{} {}: {error}", kind(object), name(object)));
    serde_json::to_value(typed).unwrap()
}

fn through_the_api_types(object: &Value) -> Option<Value> {
    Some(match kind(object) {
        "ClusterRole" => round_trip::<ClusterRole>(object),
        "ClusterRoleBinding" => round_trip::<ClusterRoleBinding>(object),
        "ConfigMap" => round_trip::<ConfigMap>(object),
        "CustomResourceDefinition" => round_trip::<CustomResourceDefinition>(object),
        "DaemonSet" => round_trip::<DaemonSet>(object),
        "Deployment" => round_trip::<Deployment>(object),
        "Namespace" => round_trip::<Namespace>(object),
        "PodDisruptionBudget" => round_trip::<PodDisruptionBudget>(object),
        "PriorityClass" => round_trip::<PriorityClass>(object),
        "Role" => round_trip::<Role>(object),
        "RoleBinding" => round_trip::<RoleBinding>(object),
        "Secret" => round_trip::<Secret>(object),
        "Service" => round_trip::<Service>(object),
        "ServiceAccount" => round_trip::<ServiceAccount>(object),
        "ValidatingAdmissionPolicy" => round_trip::<ValidatingAdmissionPolicy>(object),
        "ValidatingAdmissionPolicyBinding" => round_trip::<ValidatingAdmissionPolicyBinding>(object),
        // Of the Prometheus operator; no type of it is here.
        "PodMonitor" => return None,
        other => panic!("no type for {other}: add it"),
    })
}

/// Paths of what `original` has and `after` has not, or has otherwise.
fn lost(original: &Value, after: &Value, at: &str, out: &mut Vec<String>) {
    match (original, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                match after.get(key) {
                    Some(same) => lost(value, same, &format!("{at}.{key}"), out),
                    None => out.push(format!("{at}.{key}")),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (index, (value, same)) in before.iter().zip(after).enumerate() {
                lost(value, same, &format!("{at}[{index}]"), out);
            }
        }
        // A number with and without a fraction is the same number.
        _ if original == after || (original.is_number() && original.as_f64() == after.as_f64()) => {}
        _ => out.push(at.to_owned()),
    }
}

#[test]
fn the_api_types_know_every_field() {
    for (file, _) in RENDERED {
        let objects = objects(file);
        assert!(objects.len() >= 10, "{file} has only {}", objects.len());
        all_are_known(file, &objects);
    }
}

fn all_are_known(whose: &str, objects: &[Value]) {
    for object in objects {
        let Some(after) = through_the_api_types(object) else { continue };
        let mut fields = Vec::new();
        lost(object, &after, "", &mut fields);
        assert!(fields.is_empty(), "{whose}: {} {}: unknown or wrong: {fields:?}", kind(object), name(object));
    }
}

#[test]
fn an_unknown_field_is_noticed() {
    let mut object = find("install.yaml", "DaemonSet", "mountwarden");
    object["spec"]["template"]["spec"]["hostPid"] = true.into();
    let mut fields = Vec::new();
    lost(&object, &through_the_api_types(&object).unwrap(), "", &mut fields);
    assert_eq!(fields, [".spec.template.spec.hostPid"]);
}

/// PyPI's `kubernetes-validate`, strictly, for the oldest and the newest Kubernetes that it and we know.
fn schema_check(file: &Path, version: &str) -> Option<(bool, String)> {
    let mut command = Command::new("kubernetes-validate");
    command.args(["--strict", "--kubernetes-version", version]).arg(file);
    match command.output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            Some((output.status.success(), text))
        }
        Err(error) => {
            let words = "no schema check (pip install kubernetes-validate); the API's types were asked all the same";
            skipped(&format!("{words}: {error}"));
            None
        }
    }
}

#[test]
fn the_schemas_of_old_and_new_kubernetes_accept_them() {
    for version in ["1.30", "1.37"] {
        for (file, _) in RENDERED {
            let Some((accepted, words)) = schema_check(&k8s().join(file), version) else { return };
            // Only of what is none of Kubernetes' own kinds it knows nothing.
            let unknown: Vec<_> = words.lines().filter(|line| line.contains("WARN")).collect();
            assert!(unknown.iter().all(|line| line.contains("PodMonitor")), "{file} {version}: {unknown:?}");
            assert!(accepted, "{file}, Kubernetes {version}: {words}");
        }
    }
    let scratch = tempfile::tempdir().unwrap();
    let wrong = scratch.path().join("wrong.yaml");
    let text = std::fs::read_to_string(k8s().join("install.yaml")).unwrap();
    std::fs::write(&wrong, text.replace("hostPID:", "hostPid:")).unwrap();
    let Some((accepted, _)) = schema_check(&wrong, "1.37") else { return };
    assert!(!accepted, "the check accepts anything");
}

/// `group/resource verb` of all rules, and `path PATH verb` of those about what is no resource.
fn rights(role: &Value) -> BTreeSet<String> {
    let list = |rule: &Value, key: &str| -> Vec<String> {
        let words = rule.get(key).and_then(Value::as_array).into_iter().flatten();
        words.map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let mut out = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for path in list(rule, "nonResourceURLs") {
            out.extend(list(rule, "verbs").into_iter().map(|verb| format!("path {path} {verb}")));
        }
        for group in list(rule, "apiGroups") {
            for resource in list(rule, "resources") {
                out.extend(list(rule, "verbs").into_iter().map(|verb| format!("{group}/{resource} {verb}")));
            }
        }
    }
    out
}

#[test]
fn no_agent_may_evict_delete_or_read_secrets() {
    for (file, _) in RENDERED {
        let rights = rights(&find(file, "ClusterRole", "mountwarden-agent"));
        let harmless = ["list", "watch", "get", "patch", "create", "update"];
        for right in &rights {
            assert!(
                !right.contains("eviction") && !right.contains("secrets") && !right.contains('*'),
                "{file}: {right}"
            );
            assert!(harmless.contains(&right.split(' ').next_back().unwrap()), "{file}: {right}");
            assert!(
                !right.starts_with("/pods ") || right.ends_with("list") || right.ends_with("watch"),
                "{file}: {right}"
            );
        }
        let bound: Vec<_> = objects(file)
            .into_iter()
            .filter(|object| {
                kind(object).ends_with("RoleBinding") && object["subjects"][0]["name"] == "mountwarden-agent"
            })
            .map(|object| object["roleRef"]["name"].as_str().unwrap().to_owned())
            .collect();
        let expected: &[&str] = match file {
            "install-openshift.yaml" => &["system:openshift:scc:privileged", "mountwarden-agent"],
            "install-rbac-proxy.yaml" => &["mountwarden-agent", "mountwarden-rbac-proxy"],
            _ if file.contains("remedy") => &["mountwarden-agent", "mountwarden-agent-remedy"],
            _ => &["mountwarden-agent"],
        };
        assert_eq!(
            bound.iter().collect::<BTreeSet<_>>(),
            expected.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>().iter().collect()
        );
    }
}

#[test]
fn with_remedies_an_agent_may_read_one_pod_and_the_switch_and_nothing_more() {
    for (file, _) in RENDERED.iter().filter(|(file, _)| file.contains("remedy")) {
        let of = |wanted| rights(&find(file, wanted, "mountwarden-agent-remedy"));
        assert_eq!(of("ClusterRole"), BTreeSet::from(["/pods get".to_owned()]), "{file}");
        let role = find(file, "Role", "mountwarden-agent-remedy");
        assert_eq!(rights(&role), BTreeSet::from(["/configmaps get".to_owned()]), "{file}");
        assert_eq!(role["rules"][0]["resourceNames"], serde_json::json!(["mountwarden-remedy"]), "{file}");
    }
}

#[test]
fn only_the_remedy_variants_grant_eviction_and_only_to_the_coordinator() {
    for (file, _) in RENDERED {
        let roles = objects(file).into_iter().filter(|object| kind(object).ends_with("Role"));
        let evicting: Vec<_> = roles
            .filter(|role| rights(role).contains("/pods/eviction create"))
            .map(|role| name(&role).to_owned())
            .collect();
        let expected: &[&str] = if file.contains("remedy") { &["mountwarden-coordinator"] } else { &[] };
        assert_eq!(evicting, expected, "{file}");
    }
}

#[test]
fn the_agents_pod_keeps_to_the_design() {
    for (file, _) in RENDERED {
        let set = find(file, "DaemonSet", "mountwarden");
        let pod = &set["spec"]["template"]["spec"];
        assert_eq!(
            (&pod["hostPID"], &pod["hostNetwork"], &pod["dnsPolicy"]),
            (&true.into(), &true.into(), &"Default".into())
        );
        assert_eq!(pod["tolerations"], serde_json::json!([{"operator": "Exists"}]), "every node");
        let volumes = pod["volumes"].as_array().unwrap();
        let of_the_node: Vec<&Value> = volumes.iter().filter_map(|volume| volume.get("hostPath")).collect();
        // A hostPath of the kubelet's directory, or of one above it, would pin every mount there.
        let state = serde_json::json!({"path": "/run/mountwarden", "type": "DirectoryOrCreate"});
        let expected: &[&Value] = if file.contains("remedy") { &[&state] } else { &[] };
        assert_eq!(of_the_node, expected, "{file}");
        let mounts = &pod["containers"][0]["volumeMounts"];
        assert_eq!(mounts[1], serde_json::json!({"name": "state", "mountPath": "/run/mountwarden"}), "{file}");
        let agent = &pod["containers"][0];
        let security = &agent["securityContext"];
        assert_eq!((&security["privileged"], &security["readOnlyRootFilesystem"]), (&false.into(), &true.into()));
        assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
        assert!(agent["resources"]["limits"].get("cpu").is_none(), "a throttled agent judges nothing");
        let readme = std::fs::read_to_string(k8s().join("README.md")).unwrap();
        for capability in security["capabilities"]["add"].as_array().unwrap() {
            let row = format!("| `{}` |", capability.as_str().unwrap());
            assert!(readme.contains(&row), "{file}: k8s/README.md gives no reason for {capability}");
        }
    }
}

#[test]
fn the_configurations_are_valid() {
    for (file, _) in RENDERED {
        let maps = objects(file)
            .into_iter()
            .filter(|object| kind(object) == "ConfigMap" && name(object).starts_with("mountwarden-config-"));
        for map in maps {
            let scratch = tempfile::tempdir().unwrap();
            let path = scratch.path().join("config.yaml");
            std::fs::write(&path, map["data"]["config.yaml"].as_str().unwrap()).unwrap();
            let output = Command::new(env!("CARGO_BIN_EXE_mountwarden"))
                .arg("check-config")
                .arg("--config")
                .arg(&path)
                .output()
                .unwrap();
            assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn the_unit_keeps_the_directory_of_the_state_file() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    let config: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(packaging.join("config.yaml")).unwrap()).unwrap();
    let unit = std::fs::read_to_string(packaging.join("mountwarden.service")).unwrap();
    let set = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default();
    assert_eq!(config["state"]["file"], format!("/run/{}/state", set("RuntimeDirectory")));
    assert_eq!(set("RuntimeDirectoryPreserve"), "yes", "or a restart would empty it");
    // Directories of units that make a mount namespace are mounts: a copy of the host's would be pinned.
    assert_eq!(set("DynamicUser"), "");
}

#[test]
fn the_remedy_variants_put_agents_and_coordinator_into_one_mode() {
    for (file, mode) in [("install-remedy-dry-run.yaml", "dry-run"), ("install-remedy-enforce.yaml", "enforce")] {
        for (kind, name) in [("DaemonSet", "mountwarden"), ("Deployment", "mountwarden-coordinator")] {
            let object = find(file, kind, name);
            let env = object["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap().clone();
            let set: Vec<_> =
                env.iter().filter(|one| one["name"] == "MOUNTWARDEN_REMEDY_MODE").map(|one| &one["value"]).collect();
            assert_eq!(set, [mode], "{file}: {kind}");
        }
    }
}
