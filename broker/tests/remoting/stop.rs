//! Start, stop and readiness.

use super::world::*;

#[tokio::test]
async fn stopping_broker_answers_held_pulls_and_is_not_ready() {
    let world = World::start().await;
    let channel = world.connect().await;
    call(&channel, send("orders", &[], "x")).await;
    assert!(world.telemetry.ready().is_ready());
    let waiting = channel.begin_call(&pull_waiting("g", "orders", 1, "*", 60_000)).unwrap();
    let services = world.broker.services();
    until(async || (services.holds.len() == 1).then_some(())).await;
    let telemetry = world.telemetry.clone();
    let dir = world.stop().await;
    let answer = soon(waiting).await;
    assert!(answer.is_err() || answer.unwrap().code == 19);
    assert!(!telemetry.ready().is_ready());
    drop(dir);
}

#[tokio::test]
async fn stopping_broker_refuses_messages_with_service_not_available() {
    let world = World::start().await;
    let channel = world.connect().await;
    world.broker.services().lifecycle.stop();
    let answer = call(&channel, send("orders", &[], "x")).await;
    assert_eq!(answer.code, 14);
    assert!(answer.remark.unwrap().starts_with("service not available now"));
    world.stop().await;
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let world = World::start().await;
    let channel = world.connect().await;
    for number in 0..100 {
        assert_eq!(code(&channel, send("orders", &[], &number.to_string())).await, 0);
    }
    let world = World::start_in(world.stop().await, |_| {}).await;
    let channel = world.connect().await;
    let mut seen = Vec::new();
    while seen.len() < 100 {
        let answer = call(&channel, pull("g", "orders", seen.len() as i64, "*")).await;
        assert_eq!(answer.code, 0, "{answer:?}");
        seen.extend(bodies(&answer));
    }
    assert_eq!(seen, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
    let answer = call(&channel, send("orders", &[], "next")).await;
    assert_eq!(field(&answer, "queueOffset"), "100");
    world.stop().await;
}

#[tokio::test]
async fn second_broker_in_the_same_folder_does_not_start() {
    let world = World::start().await;
    let settings = gantry_model::settings::BrokerSettings {
        data_dir: world.dir.path().to_owned(),
        bind: [127, 0, 0, 1].into(),
        remoting_port: 0,
        grpc_port: 0,
        ..Default::default()
    };
    let second = gantry_broker::Broker::start(settings, &world.telemetry).await;
    assert!(matches!(second, Err(gantry_broker::StartError::Store { .. })));
    world.stop().await;
}
