//! Behind kube-rbac-proxy: nobody reads `/metrics` past it, everybody else finds what they found before.
//!
//! No proxy runs here: its flags were read in its source.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use serde_json::{Value, json};

use super::{all_are_known, find, k8s, kind, name, objects, parts, render, renderer, rights, skipped};

const FILE: &str = "install-rbac-proxy.yaml";

/// All that a proxy asks the API server.
const QUESTIONS: [&str; 2] =
    ["authentication.k8s.io/tokenreviews create", "authorization.k8s.io/subjectaccessreviews create"];

/// Of which account a binding's role is.
fn bound(objects: &[Value], role: &str) -> Vec<Value> {
    let bindings = objects.iter().filter(|object| kind(object).ends_with("RoleBinding"));
    bindings
        .filter(|binding| binding["roleRef"]["name"] == role)
        .flat_map(|binding| binding["subjects"].as_array().unwrap().clone())
        .map(|subject| subject["name"].clone())
        .collect()
}

fn env<'a>(container: &'a Value, name: &str) -> &'a str {
    let all = container["env"].as_array().unwrap();
    let set: Vec<_> = all.iter().filter(|one| one["name"] == name).collect();
    assert_eq!(set.len(), 1, "{name}: {all:?}");
    set[0]["value"].as_str().unwrap()
}

/// The value of a flag of the proxy.
fn flag<'a>(proxy: &'a Value, name: &str) -> Option<&'a str> {
    let args = proxy["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
    args.filter_map(|arg| arg.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('=')).next()
}

/// The two containers of a pod: what is read stands first, where the patches of other variants look for it.
fn behind_a_proxy(pod: &Value) -> (&Value, &Value) {
    let [inner, proxy] = pod["containers"].as_array().unwrap().as_slice() else { panic!("{pod}") };
    assert_eq!(proxy["name"], "kube-rbac-proxy");
    // The inner one: on the loopback only, its port is told to nobody.
    let listen = env(inner, "MOUNTWARDEN_LISTEN");
    assert_eq!(listen, "127.0.0.1:12051");
    assert!(inner.get("ports").is_none(), "{inner}");
    // The proxy: where everybody looked before.
    assert_eq!(flag(proxy, "upstream"), Some(format!("http://{listen}/").as_str()));
    assert!(flag(proxy, "secure-listen-address").unwrap().ends_with(":12049"));
    assert!(flag(proxy, "insecure-listen-address").is_none());
    assert_eq!(proxy["ports"], json!([{"name": "metrics", "containerPort": 12049}]));
    assert!(proxy.get("volumeMounts").is_none(), "{proxy}");
    assert!(proxy["resources"]["requests"].is_object() && proxy["resources"]["limits"]["memory"].is_string());
    let of_pod_or_own = |key: &str| proxy["securityContext"].get(key).or_else(|| pod["securityContext"].get(key));
    assert_eq!(of_pod_or_own("runAsNonRoot"), Some(&true.into()));
    assert_eq!(of_pod_or_own("runAsUser"), Some(&65532.into()));
    assert_eq!(of_pod_or_own("seccompProfile"), Some(&json!({"type": "RuntimeDefault"})));
    assert_eq!(of_pod_or_own("readOnlyRootFilesystem"), Some(&true.into()));
    assert_eq!(of_pod_or_own("allowPrivilegeEscalation"), Some(&false.into()));
    assert_eq!(of_pod_or_own("capabilities"), Some(&json!({"drop": ["ALL"]})));
    (inner, proxy)
}

#[test]
fn the_agent_listens_on_the_loopback_alone_and_the_proxy_where_it_did() {
    let set = find(FILE, "DaemonSet", "mountwarden");
    let (agent, proxy) = behind_a_proxy(&set["spec"]["template"]["spec"]);
    assert!(env(agent, "MOUNTWARDEN_LISTEN_UI").starts_with("127.0.0.1:"));
    // Nothing without a token, and with one nothing but this.
    assert!(flag(proxy, "ignore-paths").is_none());
    assert_eq!(flag(proxy, "allow-paths"), Some("/metrics"));
    // The node's address, as the agent did; the name is one of the proxy's own.
    assert_eq!(flag(proxy, "secure-listen-address"), Some("[$(HOST_IP)]:12049"));
    assert_eq!(proxy["env"][0]["valueFrom"]["fieldRef"]["fieldPath"], "status.hostIP");
    let before = find("install.yaml", "DaemonSet", "mountwarden");
    let before = &before["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(before["ports"], proxy["ports"]);
    assert_eq!(env(before, "MOUNTWARDEN_LISTEN"), "$(HOST_IP):12049");
}

#[test]
fn the_kubelet_asks_the_agent_itself() {
    let set = find(FILE, "DaemonSet", "mountwarden");
    let pod = &set["spec"]["template"]["spec"];
    // Only in the node's network is the kubelet's loopback the agent's.
    assert_eq!(pod["hostNetwork"], true);
    for (probe, path) in [("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")] {
        let wanted = json!({"host": "127.0.0.1", "path": path, "port": 12051});
        assert_eq!(pod["containers"][0][probe]["httpGet"], wanted);
        assert!(pod["containers"][1].get(probe).is_none(), "a probe of the proxy would need a token");
    }
}

#[test]
fn prometheus_speaks_tls_and_shows_a_token_that_reads_metrics_only() {
    let endpoint = find(FILE, "PodMonitor", "mountwarden")["spec"]["podMetricsEndpoints"][0].clone();
    assert_eq!((&endpoint["port"], &endpoint["scheme"]), (&"metrics".into(), &"https".into()));
    assert_eq!(endpoint["tlsConfig"], json!({"insecureSkipVerify": true}));
    let secret = find(FILE, "Secret", endpoint["authorization"]["credentials"]["name"].as_str().unwrap());
    assert_eq!(secret["type"], "kubernetes.io/service-account-token");
    let account = secret["metadata"]["annotations"]["kubernetes.io/service-account.name"].as_str().unwrap();
    assert_eq!(find(FILE, "ServiceAccount", account)["automountServiceAccountToken"], false);
    let objects = objects(FILE);
    assert_eq!(bound(&objects, "mountwarden-metrics-reader"), [account]);
    let reader = rights(&find(FILE, "ClusterRole", "mountwarden-metrics-reader"));
    assert_eq!(reader, BTreeSet::from(["path /metrics get".to_owned()]));
    let bindings = objects.iter().filter(|object| kind(object).ends_with("RoleBinding"));
    let of_the_reader = bindings.filter(|binding| binding["subjects"].to_string().contains(account));
    assert_eq!(of_the_reader.count(), 1, "the token is shown to whoever answers at the node's address");
}

#[test]
fn the_proxy_asks_two_questions_and_nothing_else_is_granted() {
    let objects = objects(FILE);
    assert_eq!(rights(&find(FILE, "ClusterRole", "mountwarden-rbac-proxy")), QUESTIONS.map(str::to_owned).into());
    assert_eq!(bound(&objects, "mountwarden-rbac-proxy"), ["mountwarden-agent"]);
    let pod = &find(FILE, "DaemonSet", "mountwarden")["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], "mountwarden-agent");
    let (before, after) = (named("install-podmonitor.yaml"), named(FILE));
    assert!(before.is_subset(&after));
    let more: Vec<_> = after.difference(&before).map(String::as_str).collect();
    let expected = [
        "ClusterRole mountwarden-metrics-reader",
        "ClusterRole mountwarden-rbac-proxy",
        "ClusterRoleBinding mountwarden-metrics-reader",
        "ClusterRoleBinding mountwarden-rbac-proxy",
        "Secret mountwarden-metrics-reader",
        "ServiceAccount mountwarden-metrics-reader",
    ];
    assert_eq!(more, expected);
    let agent = |file| find(file, "ClusterRole", "mountwarden-agent");
    assert_eq!(agent(FILE), agent("install-podmonitor.yaml"));
}

fn named(file: &str) -> BTreeSet<String> {
    objects(file).iter().map(|object| format!("{} {}", kind(object), name(object))).collect()
}

fn one(objects: &[Value], wanted: &str, named: &str) -> Value {
    objects.iter().find(|object| kind(object) == wanted && name(object) == named).unwrap().clone()
}

/// A kustomization may name directories outside its own only relative to it.
fn from_to(from: &Path, to: &Path) -> String {
    let up = from.components().filter(|part| matches!(part, Component::Normal(_))).count();
    "../".repeat(up) + to.strip_prefix("/").unwrap().to_str().unwrap()
}

/// Somebody's own kustomization, which names directories of ours from the root of the repository.
fn rendered_elsewhere(mut own: Value) -> Vec<Value> {
    let scratch = tempfile::tempdir().unwrap();
    let here = scratch.path().canonicalize().unwrap();
    let root = k8s().parent().unwrap().canonicalize().unwrap();
    for list in ["resources", "components"] {
        for directory in own[list].as_array_mut().unwrap() {
            *directory = from_to(&here, &root.join(directory.as_str().unwrap())).into();
        }
    }
    std::fs::write(here.join("kustomization.yaml"), own.to_string()).unwrap();
    let objects = parts(&render(&here)).unwrap();
    all_are_known("somebody's own", &objects);
    objects
}

/// What no committed file has: somebody's own kustomization, with rescues.
#[test]
fn with_remedies_the_coordinator_is_behind_a_proxy_too() {
    if let Err(reason) = renderer() {
        return skipped(&format!("kubectl renders nothing here ({reason}): not tried together with remedies"));
    }
    let own = json!({
        "resources": ["k8s/variants/remedy-enforce"],
        "components": ["k8s/components/podmonitor", "k8s/components/rbac-proxy"],
    });
    let objects = rendered_elsewhere(own);
    let object = |wanted: &str, named: &str| one(&objects, wanted, named);
    let (set, deployment) = (object("DaemonSet", "mountwarden"), object("Deployment", "mountwarden-coordinator"));
    let (agent, _) = behind_a_proxy(&set["spec"]["template"]["spec"]);
    assert_eq!(env(agent, "MOUNTWARDEN_REMEDY_MODE"), "enforce");
    let (coordinator, proxy) = behind_a_proxy(&deployment["spec"]["template"]["spec"]);
    assert_eq!(env(coordinator, "MOUNTWARDEN_REMEDY_MODE"), "enforce");
    // The kubelet is outside of its network.
    assert_eq!(flag(proxy, "ignore-paths"), Some("/healthz,/readyz"));
    for (probe, path) in [("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")] {
        assert_eq!(coordinator[probe]["httpGet"], json!({"path": path, "port": 12049, "scheme": "HTTPS"}));
    }
    let before = rights(&find("install-remedy-enforce.yaml", "ClusterRole", "mountwarden-coordinator"));
    let after = rights(&object("ClusterRole", "mountwarden-coordinator"));
    assert!(before.is_subset(&after));
    assert_eq!(after.difference(&before).map(String::as_str).collect::<Vec<_>>(), QUESTIONS);
    assert_eq!(bound(&objects, "mountwarden-rbac-proxy"), ["mountwarden-agent"]);
    assert_eq!(object("Service", "mountwarden-coordinator")["spec"]["ports"][0]["targetPort"], "metrics");
    assert_eq!(object("PodMonitor", "mountwarden")["spec"]["podMetricsEndpoints"][0]["scheme"], "https");
}

#[test]
fn what_the_readme_shows_of_certificates_and_images_renders() {
    let page = std::fs::read_to_string(k8s().join("README.md")).unwrap();
    let shown = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    if let Err(reason) = renderer() {
        return skipped(&format!(
            "kubectl renders nothing here ({reason}): the example of k8s/README.md was not tried"
        ));
    }
    let objects = rendered_elsewhere(serde_saphyr::from_str(shown).unwrap());
    let pod = one(&objects, "DaemonSet", "mountwarden")["spec"]["template"]["spec"].clone();
    let images: Vec<_> = [0, 1].map(|at| pod["containers"][at]["image"].as_str().unwrap()).into();
    // The example's version is the one that is in the manifests.
    let proxy = find(FILE, "DaemonSet", "mountwarden")["spec"]["template"]["spec"]["containers"][1].clone();
    let wanted = ["mountwarden:0.1.0", proxy["image"].as_str().unwrap()];
    assert_eq!(images, wanted.map(|image| format!("registry.example.com/{image}")));
    let proxy = &pod["containers"][1];
    let mount = proxy["volumeMounts"][0]["mountPath"].as_str().unwrap();
    for (name, file) in [("tls-cert-file", "tls.crt"), ("tls-private-key-file", "tls.key")] {
        assert_eq!(flag(proxy, name), Some(format!("{mount}/{file}").as_str()));
    }
    let volumes = pod["volumes"].as_array().unwrap();
    let secret = volumes.iter().find(|volume| volume["name"] == proxy["volumeMounts"][0]["name"]).unwrap();
    let tls = &one(&objects, "PodMonitor", "mountwarden")["spec"]["podMetricsEndpoints"][0]["tlsConfig"];
    assert_eq!(tls["ca"]["secret"]["name"], secret["secret"]["secretName"]);
    assert!(tls.get("insecureSkipVerify").is_none(), "{tls}");
}
