//! Pods and claims beside the mounts, and the cluster's side of the agent.

use std::collections::BTreeMap;

use super::{Page, RenderError, flag, number};
use crate::cluster::ClusterStats;
use crate::metrics::catalog;
use crate::snapshot::{MountStatus, Snapshot};
use crate::verdict::{Cause, State};

/// Pods on mounts that are not well, and what the cluster calls the volumes.
pub(super) fn volumes(page: &mut Page<'_>, mounts: &[&MountStatus]) -> Result<(), RenderError> {
    page.per_mount(&catalog::POD_MOUNT_STATE, mounts, |family, mount| {
        if mount.state == State::Healthy {
            return Ok(());
        }
        // A pod has a line per container and path in the snapshot, and one series.
        let pods: BTreeMap<(&str, &str), (&str, &str)> = mount
            .users
            .iter()
            .map(|user| {
                let named = user.namespace.as_deref().zip(user.pod.as_deref());
                ((user.pod_uid.as_str(), user.volume.as_str()), named.unwrap_or(("", &user.pod_uid)))
            })
            .collect();
        // Two pods of one name in succession differ by their UID alone: one series for both.
        let series: std::collections::BTreeSet<_> =
            pods.into_iter().map(|((_, volume), (namespace, pod))| (namespace, pod, volume)).collect();
        series.into_iter().try_for_each(|(namespace, pod, volume)| {
            family.add_mount(mount, &[namespace, pod, volume, mount.state.as_str()], 1.0)
        })
    })?;
    page.per_mount(&catalog::MOUNT_PODS, mounts, |family, mount| {
        let pods = u32::try_from(mount.pod_count).unwrap_or(u32::MAX);
        family.add_mount(mount, &[], f64::from(pods))
    })?;
    page.per_mount(&catalog::MOUNT_VOLUME_INFO, mounts, |family, mount| {
        mount.volumes.iter().try_for_each(|volume| {
            let class = volume.storage_class.as_deref().unwrap_or_default();
            family.add_mount(mount, &[&volume.persistent_volume, &volume.claim, &volume.namespace, class], 1.0)
        })
    })
}

/// Volumes that pods wait for.
pub(super) fn pending(page: &mut Page<'_>, snapshot: &Snapshot) -> Result<(), RenderError> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::from([(Cause::Unknown.as_str(), 0)]);
    for row in &snapshot.pending {
        *counts.entry(row.why()).or_default() += 1;
    }
    // What is not listed is counted all the same.
    let left_out = snapshot.pending_count.saturating_sub(snapshot.pending.len());
    *counts.entry(Cause::Unknown.as_str()).or_default() += u64::try_from(left_out).unwrap_or(u64::MAX);
    page.family(&catalog::VOLUMES_PENDING, |family| {
        counts.iter().try_for_each(|(cause, count)| family.add(&[cause], number(*count)))
    })?;
    page.family(&catalog::VOLUME_PENDING_SINCE, |family| {
        let blocked = snapshot
            .pending
            .iter()
            .filter(|row| row.blocked)
            .map(|row| ([row.namespace.as_str(), row.pod_name(), &row.volume, &row.source, row.why()], row.since));
        // Two pods of one name in succession differ by their UID alone: one series for both.
        let series: BTreeMap<_, f64> = blocked.collect();
        series.into_iter().try_for_each(|(labels, since)| family.add(&labels, since))
    })
}

/// How the cluster's side does; nothing where there is no cluster.
pub(super) fn numbers(page: &mut Page<'_>, stats: Option<&ClusterStats>) -> Result<(), RenderError> {
    let Some(stats) = stats else { return Ok(()) };
    page.single(&catalog::CLUSTER_WATCHING, flag(stats.watching))?;
    page.single(&catalog::CLUSTER_PODS, number(stats.pods))?;
    page.single(&catalog::CLUSTER_PODS_LEFT_OUT, number(stats.pods_left_out))?;
    page.family(&catalog::CLUSTER_REQUESTS, |family| {
        stats.requests.iter().try_for_each(|(resource, results)| {
            results.iter().try_for_each(|(result, count)| family.add(&[resource, result], number(*count)))
        })
    })?;
    page.family(&catalog::CLUSTER_TROUBLES, |family| {
        stats.troubles.keys().try_for_each(|part| family.add(&[part], 1.0))
    })?;
    page.family(&catalog::CLUSTER_EVENTS, |family| {
        stats.events_sent.iter().try_for_each(|(reason, count)| family.add(&[reason], number(*count)))
    })?;
    page.family(&catalog::CLUSTER_EVENTS_DROPPED, |family| {
        crate::cluster::WHY_DROPPED
            .iter()
            .try_for_each(|why| family.add(&[why], number(stats.events_dropped.get(*why).copied().unwrap_or(0))))
    })?;
    page.single(&catalog::CLUSTER_EVENTS_WAITING, number(stats.events_waiting))
}
