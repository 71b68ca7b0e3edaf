//! A log at its limit: sends alone are refused, with the code that makes the SDKs wait before they try again.

use gantry_model::settings::Bytes;
use gantry_proto::v2::{Code, SendMessageResponse};

use super::{
    client::{Client, code, connect, create, message, send},
    world::{World, bodies, call, pull},
};

const MIB: usize = 1024 * 1024;
/// More messages of 4 MiB than the log has room for.
const TOO_MANY: usize = 64;

/// Sends until it is refused; how many messages were taken, and what the refusal says.
async fn fill(client: &mut Client) -> (usize, SendMessageResponse) {
    let body = "m".repeat(4 * MIB);
    for sent in 0..TOO_MANY {
        let answer = send(client, vec![message("orders", "1", &body)]).await;
        if code(answer.status.as_ref()) != Code::Ok {
            return (sent, answer);
        }
    }
    panic!("the log is never full")
}

#[tokio::test]
async fn send_to_a_log_at_its_limit_is_told_to_wait_and_why_as_over_remoting() {
    let world = World::start_with(|settings| settings.log_size_max = Some(Bytes::mib(128))).await;
    create(&world, "orders", None);
    let mut client = connect(&world).await;
    let (sent, answer) = fill(&mut client).await;
    assert!(sent >= 15, "{sent}");
    for status in [answer.status.as_ref(), answer.entries[0].status.as_ref()] {
        assert_eq!(code(status), Code::TooManyRequests, "{answer:?}");
    }
    let said = answer.status.unwrap().message;
    assert!(said.contains("takes 134217728 bytes"), "{said}");
    assert!(said.contains("its limit of 134217728"), "{said}");

    let channel = world.connect().await;
    let refused = call(&channel, super::world::send("orders", &[], "x")).await;
    assert_eq!((refused.code, refused.remark.as_deref()), (14, Some(said.as_str())));
    // What was taken is served.
    let pulled = call(&channel, pull("g", "orders", 0, "*")).await;
    assert_eq!(bodies(&pulled)[0].len(), 4 * MIB);
    world.stop().await;
}
