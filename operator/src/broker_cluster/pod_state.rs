//! What a pod's status says: ready, never ready so far, or failing.
//! Invariant: a failure is told in words that do not change from one look to the next: no counts, no back-off times, no
//! flicker between the phases of a retry.
//! Pure; leaves what follows from it to `roll` and `report`.

use super::observe::Life;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodCondition};

/// Restarts without becoming ready from which a container counts as failing: one may be an accident.
const RESTARTS_MIN: i32 = 2;

/// How far the pod is.
pub(super) fn life(pod: &Pod) -> Life {
    if pod.metadata.deletion_timestamp.is_some() {
        Life::Stopping
    } else if is_ready(pod) {
        Life::Ready
    } else if never_was_ready(pod) {
        Life::NeverReady
    } else {
        Life::NotReady
    }
}

/// Whether the pod is ready.
fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Whether the pod has not been ready once since it was made.
///
/// The kubelet sets both conditions at its first look at a pod; the time of `Ready` changes with each change of it.
fn never_was_ready(pod: &Pod) -> bool {
    let Some(ready) = condition(pod, "Ready") else { return true };
    let began = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let changed = ready.last_transition_time.as_ref();
    match (ready.status.as_str(), changed, began) {
        ("True", _, _) => false,
        // Whole seconds: the first look may straddle one. A start-up probe alone takes longer than that.
        (_, Some(changed), Some(began)) => changed.0.as_second() <= began.0.as_second() + 1,
        (_, changed, _) => changed.is_none(),
    }
}

/// Why the pod cannot start, if it cannot.
pub(super) fn failure(pod: &Pod) -> Option<String> {
    if is_ready(pod) {
        return None;
    }
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() == Some("Failed") {
        let reason = status.reason.as_deref().unwrap_or("its containers have ended");
        return Some(format!("failed: {reason}"));
    }
    let containers = status.container_statuses.iter().flatten();
    containers.into_iter().find_map(container_failure).or_else(|| unschedulable(pod))
}

fn unschedulable(pod: &Pod) -> Option<String> {
    let scheduled = condition(pod, "PodScheduled")?;
    let refused =
        scheduled.status == "False" && scheduled.reason.as_deref() == Some("Unschedulable");
    // The rest of the message lists preemption and differs from try to try.
    let message = scheduled.message.as_deref().unwrap_or_default();
    let first = message.split(". ").next().unwrap_or_default().trim_end_matches('.');
    refused.then(|| format!("fits on no node: {first}"))
}

fn container_failure(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default();
    match reason {
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => {
            Some(format!("cannot pull image {}", container.image))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            let message = waiting.and_then(|waiting| waiting.message.as_deref());
            Some(format!("cannot start its container: {}", message.unwrap_or(reason)))
        }
        _ => crash(container, reason == "CrashLoopBackOff"),
    }
}

fn crash(container: &ContainerStatus, backs_off: bool) -> Option<String> {
    if !backs_off && container.restart_count < RESTARTS_MIN {
        return None;
    }
    let ended = |state: &Option<ContainerState>| state.as_ref()?.terminated.clone();
    let last = ended(&container.state).or_else(|| ended(&container.last_state))?;
    let reason =
        last.reason.filter(|reason| reason != "Error").map(|reason| format!(" ({reason})"));
    Some(format!("ends with code {}{}", last.exit_code, reason.unwrap_or_default()))
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: &str) -> Pod {
        Pod { status: Some(serde_yaml::from_str(status).expect("a status")), ..Pod::default() }
    }

    const STARTED: &str = "startTime: 2026-01-01T00:00:00Z";

    fn with_ready(status: &str, changed: &str) -> Pod {
        pod(&format!(
            "{STARTED}\nconditions: [{{type: Ready, status: '{status}', lastTransitionTime: {changed}}}]"
        ))
    }

    #[test]
    fn pod_was_never_ready_while_its_condition_has_not_changed() {
        assert!(never_was_ready(&pod("{}")));
        assert!(never_was_ready(&with_ready("False", "2026-01-01T00:00:00Z")));
        assert!(!never_was_ready(&with_ready("True", "2026-01-01T00:00:09Z")));
        assert!(!never_was_ready(&with_ready("False", "2026-01-01T01:00:00Z")));
    }

    #[test]
    fn failure_reads_the_same_in_each_phase_of_a_retry() {
        let container = |state: &str| {
            pod(&format!(
                "containerStatuses: [{{name: a, image: r/x:1, imageID: '', ready: false, {state}}}]"
            ))
        };
        let pull = "restartCount: 0, state: {waiting: {reason: ";
        for reason in ["ErrImagePull", "ImagePullBackOff"] {
            let failing = container(&format!("{pull}{reason}, message: back-off 10s}}}}"));
            assert_eq!(failure(&failing).as_deref(), Some("cannot pull image r/x:1"));
        }
        let last = "lastState: {terminated: {exitCode: 1, reason: Error}}";
        for state in ["{waiting: {reason: CrashLoopBackOff}}", "{running: {}}"] {
            let failing = container(&format!("restartCount: 3, state: {state}, {last}"));
            assert_eq!(failure(&failing).as_deref(), Some("ends with code 1"), "{state}");
        }
        let starts = container("restartCount: 0, state: {waiting: {reason: ContainerCreating}}");
        assert_eq!(failure(&starts), None);
        let once = container(&format!("restartCount: 1, state: {{running: {{}}}}, {last}"));
        assert_eq!(failure(&once), None, "one restart may be an accident");
    }

    #[test]
    fn pod_without_a_node_says_what_it_lacks() {
        let waiting = pod(
            "conditions: [{type: PodScheduled, status: 'False', reason: Unschedulable, message: '0/1 nodes are available: 1 Insufficient memory. preemption: none.'}]",
        );
        let expected = "fits on no node: 0/1 nodes are available: 1 Insufficient memory";
        assert_eq!(failure(&waiting).as_deref(), Some(expected));
    }
}
