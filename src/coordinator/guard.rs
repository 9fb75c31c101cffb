//! Every reason not to act, by name.

pub use crate::remedy::guards::Holds;
use crate::remedy::guards::guards;

guards! {
    /// A rule that forbids an eviction. The words are label values of `mountwarden_coordinator_decisions_total`.
    Mode Permanent "mode" "remedies are switched off (remedy.mode is observe)",
        "Set remedy.mode to dry-run, read what it would do, then to enforce.";
    Leader Wait "leader" "this coordinator does not hold the Lease",
        "Nothing: the other one acts. If none does, look at the Lease and its holder.";
    KillSwitch Wait "kill_switch" "the kill switch is set, or could not be read",
        "Remove the key `stop` from the ConfigMap mountwarden-remedy when rescues may go on.";
    History Wait "history" "it is not known what was done before, so nothing is done for a whole cool-down",
        "Nothing: it passes. The history was deleted, damaged or never there.";
    HistoryFull Wait "history_full" "so much was done within one cool-down that no more can be remembered",
        "Nothing: it passes. Look why so many pods needed a rescue.";
    Malformed Permanent "malformed" "the agent's request cannot be understood",
        "Agent and coordinator must be of one version.";
    Stale Wait "request_stale" "the agent did not confirm its request within the last 60 s (or dates it in the future)",
        "Look whether the node's agent runs, and whether the clocks of node and coordinator agree.";
    State Permanent "state" "the mount's state is not one that an eviction heals",
        "Only stale and lost mounts are healed by a new pod; a hung one waits for its server.";
    Gate Wait "gate" "no two trial mounts that agree, at least the grace apart, prove that a new pod would find a working mount",
        "Bring the server back; the agent tries on by itself.";
    GateUnknown Permanent "gate_unknown" "what a new pod would find could not be compared with what this pod had",
        "Decide yourself: kubectl delete pod.";
    OtherData Permanent "other_data" "a new pod would find another directory than this pod had",
        "If that is as meant, delete the pod yourself, or set remedy.evict_on_replaced to always.";
    EmptyData Permanent "empty_data" "a new pod would find an empty directory, or one where nothing is exported",
        "Restore the data or the export first. remedy.evict_on_replaced: always evicts even so.";
    Fleet Wait "fleet" "more than half of the nodes that mount this server report it dead, and not all of them see it working again",
        "Look at the server: this is an outage, not a pod's trouble.";
    Breaker Wait "breaker" "the last three replacements on this server did not become Ready, or were dead again",
        "Look why new pods do not work either. It closes when a cool-down has passed since.";
    Queued Wait "queued" "others come first in this round",
        "Nothing: its turn comes.";
    PodGone Permanent "pod_gone" "the pod does not exist any more",
        "Nothing: it is gone already.";
    Unread Wait "unread" "the API server did not say what must be known of the pod, its owner, namespace, node, volumes or budgets",
        "The log names what could not be read; look at the API server and at the coordinator's rights.";
    OtherPod Permanent "other_pod" "another pod has this name now",
        "Nothing: the pod that was meant is gone.";
    OtherNode Permanent "other_node" "the pod does not run on the node that asks",
        "Agents may ask for pods of their own node only: look at the agent of the node that asked.";
    Terminating Wait "terminating" "the pod is being deleted already",
        "If it stays, its node releases it where unstick is allowed.";
    Completed Permanent "completed" "the pod has ended",
        "Nothing: it uses no mount any more.";
    Mirror Permanent "mirror" "the pod is static: its kubelet runs it, and an eviction would only remove its image in the API",
        "Restart it on its node.";
    Volume Permanent "volume" "the pod has no such network volume of that server",
        "Look at the agent of the node that asked: its request does not fit the pod.";
    HostPath Permanent "host_path" "the pod has it in a directory of its node (hostPath, emptyDir, a local volume): a new pod would get just what the node has there",
        "Where it is the node's own mount, mount it anew there; once that is healthy restart the pod: kubectl delete pod.";
    Forbidden Permanent "forbidden" "mountwarden.io/remedy on the pod, its namespace or its node does not allow it",
        "Change the annotation if it is not meant so. What is no known word counts as none.";
    OptIn Permanent "opt_in" "neither the pod nor its namespace asks for it",
        "kubectl annotate namespace NAME mountwarden.io/remedy=evict,unstick, or remedy.require_opt_in: false.";
    Bare Permanent "bare_pod" "no controller would make a new pod, and the pod itself did not opt in",
        "Annotate the pod itself with mountwarden.io/remedy: evict if it may just go.";
    DaemonSet Permanent "daemon_set" "the pod belongs to a DaemonSet, and itself did not opt in",
        "Annotate the pod template with mountwarden.io/remedy: evict.";
    Job Permanent "job" "the pod belongs to a Job, whose work would be lost, and itself did not opt in",
        "Annotate the pod template with mountwarden.io/remedy: evict.";
    VirtualMachine Permanent "virtual_machine" "the pod is a virtual machine, and itself did not opt in",
        "Annotate the pod template with mountwarden.io/remedy: evict.";
    LocalData Permanent "local_data" "the pod keeps data on its node (emptyDir on disk, local volume), and itself did not opt in",
        "Annotate the pod template with mountwarden.io/remedy: evict if that data may be lost.";
    SafeToEvict Permanent "safe_to_evict" "cluster-autoscaler.kubernetes.io/safe-to-evict is false, and the pod itself did not opt in",
        "Annotate the pod template with mountwarden.io/remedy: evict.";
    Critical Permanent "critical" "the pod is critical for the system, and itself did not opt in",
        "Annotate the pod template with mountwarden.io/remedy: evict.";
    SeveralBudgets Permanent "several_budgets" "more than one PodDisruptionBudget selects the pod, which the Eviction API refuses for ever",
        "Leave one budget for these pods.";
    BudgetNever Permanent "budget_never" "its PodDisruptionBudget can never allow it",
        "Set unhealthyPodEvictionPolicy: AlwaysAllow on the budget, and let it allow one disruption.";
    NegativeBudget Permanent "budget_negative" "its PodDisruptionBudget is negative, which the Eviction API refuses",
        "Repair the budget's status: its controller counts wrongly.";
    NotAllowed Permanent "not_allowed" "the API server forbids the coordinator to evict it",
        "Give the coordinator's service account the right to create pods/eviction; the message names what is missing.";
    Repeated Wait "repeated" "this very pod was evicted within the last cool-down",
        "Look why it is still there: a finalizer, a kubelet that does not answer, a dead mount (unstick).";
    Replacement Wait "replacement" "it replaced an evicted pod within the last cool-down of this server",
        "Look why the new pod's mount is dead too.";
    NotReady Wait "not_ready" "the last replacement of this workload is not Ready yet",
        "Look at that pod: the others wait for it.";
    Backoff Wait "backoff" "its PodDisruptionBudget, or the API server, said no a moment ago",
        "Nothing, unless it lasts: then look at the budget's other pods.";
    OnePerWorkload Wait "one_per_workload" "another pod of its workload is in flight",
        "Nothing: its turn comes.";
    OnePerNode Wait "one_per_node" "another pod of its node is in flight",
        "Nothing: its turn comes.";
    NamespaceShare Wait "namespace_share" "half of all evictions in flight are in its namespace already",
        "Nothing: its turn comes. remedy.in_flight raises it.";
    InFlight Wait "in_flight" "as many evictions as allowed are in flight",
        "Nothing: its turn comes. remedy.in_flight raises it.";
}

/// Guards that are switched off, for the tests that prove that each is needed; none in the program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Blind(Option<Guard>);

impl Blind {
    /// Nothing is switched off.
    pub const NONE: Blind = Blind(None);

    /// Switches one off.
    #[must_use]
    pub fn to(guard: Guard) -> Blind {
        Blind(Some(guard))
    }

    /// Whether `guard` does not see.
    #[must_use]
    pub fn is(self, guard: Guard) -> bool {
        self.0 == Some(guard)
    }
}
