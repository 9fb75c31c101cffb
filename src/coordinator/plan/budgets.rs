//! Guards about what was done already: cool-downs and how much may be in flight.

use super::{Case, Check, Round};
use crate::coordinator::facts::Facts;
use crate::coordinator::guard::Guard;
use crate::coordinator::history::{History, Record, Stage};
use crate::coordinator::time::seconds;

impl Round<'_> {
    pub(super) fn about_budgets(&self, case: &Case<'_>, facts: &Facts, history: &History) -> Check {
        self.cool_downs(case, facts, history)?;
        self.shares(case, facts, history)?;
        self.guard(Guard::HistoryFull, history.full(self.remedy.cool_down, history.clock(self.wall)), String::new)
    }

    fn cool_downs(&self, case: &Case<'_>, facts: &Facts, history: &History) -> Check {
        let (request, now) = (case.request, history.clock(self.wall));
        let recent = || history.records.iter().filter(|record| record.at.age(now) < seconds(self.remedy.cool_down));
        let same = recent().find(|record| record.uid == request.uid && !matches!(record.stage, Stage::Refused { .. }));
        self.guard(Guard::Repeated, same.is_some(), || at(same))?;
        let waits = history.records.iter().find(|record| {
            record.uid == request.uid && matches!(record.stage, Stage::Refused { until } if until > now)
        });
        self.guard(Guard::Backoff, waits.is_some(), || {
            waits.map_or_else(String::new, |record| match record.stage {
                Stage::Refused { until } => format!("next try at {until}, it was refused {} times", record.tries),
                _ => String::new(),
            })
        })?;
        let workload = |record: &&Record| {
            record.namespace == request.namespace && record.workload == facts.owner.workload && record.counts()
        };
        let parent = recent()
            .filter(workload)
            .find(|record| record.server == request.server && record.replaced && facts.created > record.newest);
        self.guard(Guard::Replacement, parent.is_some(), || at(parent))?;
        let last = recent().rfind(workload);
        let waiting = last.filter(|record| matches!(record.stage, Stage::NotReady { .. }));
        self.guard(Guard::NotReady, waiting.is_some(), || at(waiting))
    }

    fn shares(&self, case: &Case<'_>, facts: &Facts, history: &History) -> Check {
        let now = history.clock(self.wall);
        let namespace = &case.request.namespace;
        let flying = |wanted: &dyn Fn(&Record) -> bool| history.in_flight(now).filter(|record| wanted(record)).count();
        let workload = flying(&|record| record.namespace == *namespace && record.workload == facts.owner.workload);
        self.guard(Guard::OnePerWorkload, workload > 0, || facts.owner.workload.clone())?;
        let node = flying(&|record| record.node == case.node);
        self.guard(Guard::OnePerNode, node > 0, || case.node.to_owned())?;
        let limit = self.remedy.in_flight;
        // At most half, but one can always go.
        let share = (limit / 2).max(1);
        let here = flying(&|record| record.namespace == *namespace);
        self.guard(Guard::NamespaceShare, here >= share, || format!("{here} of {limit}"))?;
        let all = flying(&|_| true);
        self.guard(Guard::InFlight, all >= limit, || format!("{all} of {limit}"))
    }
}

fn at(record: Option<&Record>) -> String {
    record.map_or_else(String::new, |record| format!("{}/{} at {}", record.namespace, record.pod, record.at))
}
