//! Heartbeats: a client says that it is there.
//! Invariant: a consumer is never told that it is a member while it cannot receive.
//! Consumers become members by their settings, which travel on the telemetry stream; without it their
//! heartbeat is answered as one from a client whose settings are not known.

use gantry_model::GroupName;
use gantry_proto::v2::{ClientType, Code, HeartbeatRequest};

use super::status::Refusal;

pub(super) fn check(request: &HeartbeatRequest) -> Result<(), Refusal> {
    match request.client_type() {
        ClientType::Producer => Ok(()),
        ClientType::Unspecified => Err(Refusal::new(
            Code::UnrecognizedClientType,
            "the heartbeat does not say what kind of client it is from",
        )),
        _ => {
            let group = request.group.as_ref().map_or("", |group| group.name.as_str());
            GroupName::new(group)
                .map_err(|error| Refusal::new(Code::IllegalConsumerGroup, error.to_string()))?;
            Err(Refusal::new(
                Code::UnrecognizedClientType,
                "the settings of this consumer are not known to the broker",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use gantry_proto::v2::Resource;

    use super::*;

    fn beat(client_type: ClientType, group: &str) -> Result<(), Code> {
        let group = Some(Resource { name: group.into(), ..Resource::default() });
        let request = HeartbeatRequest { group, client_type: client_type.into() };
        check(&request).map_err(|refusal| refusal.code)
    }

    #[test]
    fn producer_needs_no_group_and_consumer_a_legal_one() {
        assert_eq!(beat(ClientType::Producer, ""), Ok(()));
        assert_eq!(beat(ClientType::PushConsumer, "a/b"), Err(Code::IllegalConsumerGroup));
        assert_eq!(beat(ClientType::SimpleConsumer, "g"), Err(Code::UnrecognizedClientType));
        assert_eq!(beat(ClientType::Unspecified, "g"), Err(Code::UnrecognizedClientType));
    }
}
