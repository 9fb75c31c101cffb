//! Guards about the pod, by what the coordinator read itself.

use super::{Case, Check, Round};
use crate::coordinator::facts::{Facts, OwnerKind, VolumeServer};
use crate::coordinator::guard::Guard;
use crate::verdict::State;

impl Round<'_> {
    pub(super) fn about_pod(&self, case: &Case<'_>, facts: &Facts) -> Check {
        let none = String::new;
        self.guard(Guard::OtherPod, facts.uid != case.request.uid, none)?;
        self.guard(Guard::OtherNode, facts.node != case.node, || {
            format!("{} asks, it runs on {}", case.node, facts.node)
        })?;
        self.guard(Guard::Terminating, facts.terminating, none)?;
        self.guard(Guard::Completed, facts.completed, none)?;
        self.guard(Guard::Mirror, facts.mirror, none)?;
        self.volume(case, facts)?;
        self.permission(case, facts)?;
        self.own_opt_in(facts)?;
        self.disruption_budgets(facts)
    }

    fn volume(&self, case: &Case<'_>, facts: &Facts) -> Check {
        let request = case.request;
        let wrong = match &facts.volume {
            None => Some(format!("it has no network volume {:?}", request.volume)),
            Some(VolumeServer::Named(server)) if *server != request.server => {
                Some(format!("volume {:?} is of {server}, not of {}", request.volume, request.server))
            }
            Some(_) => None,
        };
        self.guard(Guard::Volume, wrong.is_some(), || wrong.unwrap_or_default())
    }

    fn permission(&self, case: &Case<'_>, facts: &Facts) -> Check {
        let annotations = facts.annotations();
        let allowed = annotations.allowed();
        self.guard(Guard::Forbidden, !allowed.evict, || {
            let said = [("pod", annotations.pod), ("namespace", annotations.namespace), ("node", annotations.node)];
            let said: Vec<String> =
                said.iter().filter_map(|(who, text)| text.map(|text| format!("{who} says {text:?}"))).collect();
            said.join(", ")
        })?;
        // DESIGN 4.3: never a pod that would then stay in Terminating.
        let stays =
            case.request.state == State::Hung && (!allowed.unstick || facts.owner.kind == OwnerKind::StatefulSet);
        self.guard(Guard::State, stays, || "it hangs, and its release would not be allowed".to_owned())?;
        let asked = annotations.asked();
        self.guard(Guard::OptIn, self.remedy.require_opt_in && !asked.evict, String::new)
    }

    /// What is never done unless the pod itself says so.
    fn own_opt_in(&self, facts: &Facts) -> Check {
        if facts.annotations().pod_asked().evict {
            return Ok(());
        }
        let none = String::new;
        let kind = facts.owner.kind;
        self.guard(Guard::Bare, kind == OwnerKind::None, none)?;
        self.guard(Guard::DaemonSet, kind == OwnerKind::DaemonSet, none)?;
        self.guard(Guard::Job, kind == OwnerKind::Job, none)?;
        self.guard(Guard::VirtualMachine, kind == OwnerKind::VirtualMachine, none)?;
        self.guard(Guard::LocalData, facts.local_data, none)?;
        self.guard(Guard::SafeToEvict, facts.safe_to_evict_denied, none)?;
        self.guard(Guard::Critical, facts.critical, none)
    }

    fn disruption_budgets(&self, facts: &Facts) -> Check {
        let names = || facts.budgets.iter().map(|budget| budget.name.as_str()).collect::<Vec<_>>().join(", ");
        self.guard(Guard::SeveralBudgets, facts.budgets.len() > 1, names)?;
        for budget in &facts.budgets {
            self.guard(Guard::NegativeBudget, budget.allowed < 0, || budget.name.clone())?;
            let never = budget.never();
            self.guard(Guard::BudgetNever, never.is_some(), || {
                format!("{} {}", budget.name, never.unwrap_or_default())
            })?;
        }
        Ok(())
    }
}
