//! `docs/remedy.md`, made from the guards.

use std::fmt::Write as _;

use super::guard::{Guard, Holds};

const HEAD: &str = "\
# Rescue

This page is generated; a test compares it with the program.

When a server comes back with another filesystem, pods stay Running on a mount that is dead for ever, and Kubernetes
does not notice. A new pod would have a working one. mountwarden can evict such pods: off by default, through the
Eviction API (so PodDisruptionBudgets hold), and only where two trial mounts proved that a new pod will find what it needs.
A server that is down is alerted on, never answered with evictions. And pods that are deleted already, and stay in
Terminating because a volume of theirs is dead, can be [released](#pods-that-stay-in-terminating).

Agents ask, one coordinator decides. The agents' tokens may evict nobody. The coordinator believes of a request only what
it cannot read itself: state, cause, and what the trial mounts saw. It reads the pod, its owner, namespace, node, volumes and
budgets from the API server, and does so again right before each call.

## Switching it on

1. Run `mountwarden coordinate` with `remedy.mode: observe` for at least a cool-down (30 minutes): it begins the history
   without which nothing is ever done.
2. `remedy.mode: dry-run`: everything is decided, the API server checks each eviction (`dryRun: All`) and nothing happens. Log, Events and
   `/api/v1/decisions` say what would have been done.
3. Opt in: `kubectl annotate namespace NAME mountwarden.io/remedy=evict,unstick`.
4. `remedy.mode: enforce`.

`mountwarden.io/remedy` stands on a pod, a namespace or a node: `evict`, `unstick`, both with a comma, or `none`. The most
restrictive holds, `none` wins, and a word that is no known one counts as `none`. An absent annotation restricts nothing;
`remedy.require_opt_in` (the default) wants `evict` on the pod or its namespace. A node's annotation restricts and never opts in.

**To stop everything at once:** `kubectl -n NAMESPACE create configmap mountwarden-remedy --from-literal=stop=true`. Any
value but `false` stops. It is read before each eviction and before each release, and what cannot be read counts as stopped. For one node:
`kubectl annotate node NAME mountwarden.io/remedy=none`.

`mountwarden status --plan` says for every pod on a dead mount of a node what would be done, or which guard says no.

Pods that use a directory of their node (hostPath, emptyDir, a volume of type `local`) get no rescue, even where the node's mount is
healthy again and only their containers kept the dead one: no trial mount can tell what a new pod would find there. The agent does not
ask for them. `status --plan` alone says so (`host_path`, asked before `gate`), and the Event on the pod says to restart it.

## Why a pod was not evicted

Every rule has a name. It stands in the pod's Event (`MountEvictionRefused`, `MountEvictionBlocked`), in the log, in
`/api/v1/decisions`, and as label `guard` of `mountwarden_coordinator_decisions_total`. `wait` passes by itself, `permanent` needs somebody.
They are asked in this order; the first that says no is told.

| guard | holds | not evicted, because | what to do |
|---|---|---|---|
";

const MIDDLE: &str = "
## How much at a time

* `remedy.in_flight` (5) evictions in flight in the cluster, at most half of them in one namespace, one per node, one per workload.
  One is in flight until its replacement (same controller, younger than the eviction) is Ready, or two minutes have passed.
* A replacement is not evicted again for the same server before `remedy.cool_down` (30 m) has passed. The other original pods
  of its workload follow as soon as it is Ready.
* Three replacements of a server in a row that do not become Ready, or ask for a rescue themselves, open its breaker: nothing more is
  evicted for it until a cool-down has passed since the last of them.
* If more than half of the nodes that mount a server report it dead, all of them must have proven by trial mounts that it works
  again.
* A no of a PodDisruptionBudget is asked again after 10 s, 20 s, 40 s, up to 5 minutes, and decided anew each time.

A simulation of 300 pods (60 Deployments of 5 on 30 nodes, half with a PodDisruptionBudget) on one server that was down for 10
minutes, with the real planner (`cargo test --release --test rescue -- --nocapture three_hundred`): nobody is evicted during the outage; with the
defaults the first pod is evicted 0:31 minutes after the server is back, half of them within 6:50, the last after 14:42, and it is Ready at 14:53.

What was done stands in the ConfigMap `mountwarden-history` (one key per mode). It is written before each eviction with
the version that was read, so two coordinators that both believe to lead cannot exceed these numbers. Where it is deleted, damaged, or
a clock was set, nothing is done for a whole cool-down. Whoever knows better may shorten that on a new cluster:
`kubectl -n NAMESPACE create configmap mountwarden-history --from-literal='enforce={\"version\":1,\"began\":0,\"written\":0,\"records\":[]}'`.

## What it looks like

`make lab-story` plays it with a real NFS server, the real agent and coordinator, and stand-ins for kubelet and API server:

```
     0.0 s  the server is back, with another directory
    13.6 s  the agent says: stale
    44.0 s  NodeMounts asks for a rescue: two trial mounts, 30 s apart, found another directory, with 4 of 4 names that were known
    44.1 s  Eviction of shop/web-1, with its UID as precondition
    44.4 s  the new pod is ready
    45.1 s  the old pod is gone, and the new pod's volume is healthy
```

Mounting the volume anew on the node alone helps no container: each keeps its own copy of the old mount (`remounted_on_host`). It is
played too, and such a pod is evicted and works again 30 s after the node's mount was made.

";

const UNSTICK: &str = "\
## Pods that stay in Terminating

The kubelet looks at a volume before it unmounts it. Where the server is gone that look never ends, and the pod stays in
Terminating until the server is back; where a writer of the pod sits in the kernel it even stays Running. The agent of the node can take such
mounts away, so that the kubelet finishes by itself:

* `stale` and `lost` mounts that an eviction left behind, and dead FUSE mounts, wherever `unstick` is allowed: they are detached.
* `hung` mounts only with `unstick.hung: true`. Their requests are aborted (MNT_FORCE) until no process of the pod is left, then they are detached.
  **What was not written is lost. A write that the server has read already can still run there later, and overwrite what the replacement
  writes**: nothing fences it. Hence only after `unstick.hung_after` (15 m), never for StatefulSets, and only once this node's TCP connection to the
  server is closed.
* Pods that the API does not know any more (force-deleted) are reported after 10 minutes (`MountOrphaned` on the node), and released only
  with `unstick.orphans: true`.

One pod of a node at a time. Everything is looked at again right before: the API server is asked for the pod, its namespace, the node and the kill
switch; every process, everybody's mount table and the host's connections are read anew. The kill switch and the node's annotation are read twice a second
while a release is under way: one that is stopped is called off between two of its calls, and what was not taken away stays. Success is what the host's mount
table and the API say afterwards (`MountReleased`; `MountReleaseFailed` when not, and it is tried again after 30 s, 60 s, up to 10 minutes).

Every rule has a name. It stands in the Event `MountReleaseRefused`, in the log, and in `mountwarden status --plan`. They are asked in
this order; the first that says no is told.

| guard | holds | not released, because | what to do |
|---|---|---|---|
";

const TAIL: &str = "
`make lab-story` plays this too, with a killed writer in fsync, stand-ins for the kubelet's own stuck looks, and `unstick.hung_after` at its
shortest (60 s). The agent sits in the surroundings of its pod, with the capabilities of `k8s/install-remedy-enforce.yaml`. Killed -9 before and in the
middle of the release, it ends it the same way; the kill switch calls a release off in the middle; three pods of one superblock, and a pod with a subPath, go too:

```
     0.0 s  the server is gone
     8.4 s  the agent says: hung
    30.0 s  the pod is deleted (terminationGracePeriodSeconds 2)
    67.1 s  not yet: hung_young
    72.6 s  not yet: nobody_blocked
    78.3 s  MountReleased, and the pod is gone from the API; the server is still gone
    79.7 s  the server is back, and a new pod works
```

What the agent does not see: a file that was left open when its mount was detached, a mount in a namespace in which no process lives, a
connection from another network namespace than the host's.

## What a node, or a tenant, that lies can get

* A node can ask only for pods that run on it, with a network volume of the server it names (where the specification says so), that opted
  in, one at a time. Its forged evidence costs a Ready replacement elsewhere; if that comes back to the node, the lie counts
  as a bad end, and three of them open the breaker.
* At most 200 requests of a node are read.
* A node that claims a dead server with a closed gate delays rescues of that server only where it tips the majority of the nodes
  that mount it; it cannot cause one.
* A tenant may write annotations on its own pods: that opts its own pods in or out, nobody else's. Text from nodes and
  tenants is clipped, and stripped of control characters, before it goes into logs and Events.
* A history that is lost while the coordinator's clock is an hour behind is dated an hour too early, and known too soon: two faults at once.
* Known limit: a node can open the breaker of a server that it mounts by lying three times within a cool-down. That stops rescues of that server
  for everybody, and evicts nobody.
";

/// The page.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    for guard in Guard::ALL {
        row(&mut page, guard.as_str(), guard.holds(), guard.says(), guard.advice());
    }
    page.push_str(MIDDLE);
    page.push_str(UNSTICK);
    for guard in crate::remedy::unstick::Guard::ALL {
        row(&mut page, guard.as_str(), guard.holds(), guard.says(), guard.advice());
    }
    page.push_str(TAIL);
    page
}

fn row(page: &mut String, name: &str, holds: Holds, says: &str, advice: &str) {
    let holds = match holds {
        Holds::Wait => holds.as_str().to_owned(),
        Holds::Permanent => format!("**{}**", holds.as_str()),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(page, "| `{name}` | {holds} | {says} | {advice} |");
}
