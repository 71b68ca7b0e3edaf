//! Conditions: every reason that any kind may give, in one table.
//! Invariant: a condition's time changes with its status alone; each names the generation that it speaks of.
//! Leaves which reason holds to the kinds, and writing to `status`.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// Type of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// The object is as asked for. Every kind has it.
    Ready,
    /// Pods are being replaced. Of clusters.
    Rolling,
    /// Consumers are scaled. Of consumer groups with `scaling`.
    Scaling,
}

impl ConditionType {
    /// As it stands in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Rolling => "Rolling",
            Self::Scaling => "Scaling",
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $when:literal])+ $name:ident => $type:ident $status:ident $text:literal;)+) => {
        /// Why a condition is as it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason {
            $($(#[doc = $when])+ $name,)+
        }

        impl Reason {
            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// As it stands in the condition.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// The condition that it is given for.
            pub const fn condition(self) -> ConditionType {
                match self { $(Self::$name => ConditionType::$type,)+ }
            }

            /// Status of that condition.
            pub const fn status(self) -> &'static str {
                match self { $(Self::$name => stringify!($status),)+ }
            }

            /// First sentence of the message.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

// When => type, status, text. The doc line says when.
reasons! {
    /// Every part of a cluster serves, or a topic or group is on every broker as declared.
    AsDeclared => Ready True "everything is as declared";
    /// Pods of a cluster start, or brokers are not registered yet.
    Starting => Ready False "not every part serves yet";
    /// A pod cannot start: its image, its volume or the program fails.
    PodFailing => Ready False "a pod cannot start";
    /// The spec cannot be carried out, for a reason that the API server could not know.
    InvalidSpec => Ready False "the spec cannot be carried out";
    /// An object of a needed name belongs to somebody else.
    NameTaken => Ready False "an object of a needed name belongs to somebody else and is left alone";
    /// The API server refused or did not answer.
    ApiFailed => Ready Unknown "the Kubernetes API did not take a change";
    /// A volume should grow and its storage class does not allow it.
    VolumeCannotGrow => Ready False "a volume cannot grow in place";
    /// The cluster that a topic or group names does not exist.
    ClusterNotFound => Ready False "the cluster does not exist";
    /// The cluster exists, but not all of its brokers answer.
    BrokersUnreachable => Ready Unknown "brokers do not answer";
    /// An older resource declares the same name on the same cluster.
    Duplicate => Ready False "an older resource declares the same name";
    /// A broker refused a change.
    BrokerRefused => Ready False "a broker refused";
    /// The name is one that brokers use themselves.
    ReservedName => Ready False "the name is one that brokers use themselves";
    /// A topic that a group reads does not exist.
    TopicNotFound => Ready False "a topic does not exist";

    /// Every pod is of the newest revision.
    UpToDate => Rolling False "every pod is up to date";
    /// Pods are replaced one after the other.
    Replacing => Rolling True "pods are replaced one after the other";
    /// A replaced pod does not become ready: the others are left as they are.
    Halted => Rolling False "a replaced pod does not become ready, the others are left as they are";

    /// The target has as many replicas as the backlog asks for.
    FollowsBacklog => Scaling True "the target follows the backlog";
    /// Data are missing: the number of replicas is held.
    Holding => Scaling False "the number of replicas is held: data are missing";
    /// The target of scaling does not exist.
    TargetNotFound => Scaling False "the target does not exist";
    /// The operator may not scale the target.
    TargetForbidden => Scaling False "the operator may not scale the target";
    /// The target cannot be scaled, or belongs to a cluster.
    TargetRefused => Scaling False "the target cannot be scaled";
    /// Somebody else sets the replicas of the target.
    Contended => Scaling False "somebody else sets the replicas of the target";
}

impl Reason {
    /// The wanted condition; `detail` goes on after the table's sentence, if there is more to say.
    pub fn because(self, detail: impl Into<String>) -> Wanted {
        Wanted { reason: self, detail: detail.into() }
    }
}

/// A condition that is to stand in a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Why.
    pub reason: Reason,
    /// Names and values of this case; may be empty.
    pub detail: String,
}

impl Wanted {
    /// The message of the condition.
    pub fn message(&self) -> String {
        match self.detail.as_str() {
            "" => self.reason.text().to_owned(),
            detail => format!("{}: {detail}", self.reason.text()),
        }
    }
}

/// The conditions of a status: those `wanted`, with the times of `before` where the status is the same.
/// Conditions of other types are dropped.
pub fn conditions(
    before: &[Condition],
    wanted: &[Wanted],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let condition = |wanted: &Wanted| {
        let (type_, status) = (wanted.reason.condition().as_str(), wanted.reason.status());
        let same = before.iter().find(|old| old.type_ == type_ && old.status == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: wanted.reason.as_str().to_owned(),
            message: wanted.message(),
            observed_generation: generation,
            last_transition_time: same
                .map_or(Time(seconds(now)), |old| old.last_transition_time.clone()),
        }
    };
    wanted.iter().map(condition).collect()
}

/// Kubernetes keeps whole seconds.
fn seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn time_of_a_condition_changes_with_its_status_alone() {
        let first = conditions(&[], &[Reason::Starting.because("1 of 2")], Some(1), at(100));
        let second = conditions(&first, &[Reason::PodFailing.because("x")], Some(2), at(200));
        assert_eq!(second[0].last_transition_time, Time(at(100)));
        assert_eq!(second[0].observed_generation, Some(2));
        assert_eq!(second[0].message, "a pod cannot start: x");
        let third = conditions(&second, &[Reason::AsDeclared.because("")], Some(2), at(300));
        assert_eq!(third[0].last_transition_time, Time(at(300)));
        assert_eq!(third[0].message, "everything is as declared");
    }

    #[test]
    fn every_reason_has_a_name_of_its_own_and_a_sentence_that_fits_before_a_colon() {
        let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert!(!reason.text().ends_with(['.', ':']), "{}", reason.as_str());
            assert!(["True", "False", "Unknown"].contains(&reason.status()));
        }
    }
}
