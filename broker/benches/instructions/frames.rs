//! The frames of the replay, as RocketMQ's Java client writes them.
//! Invariant: the same call gives the same bytes in every process.
//! Opens no socket. Layout: RocketMQ remoting, request codes 310, 320 and 11 with a JSON header.

use bytes::{Bytes, BytesMut};
use gantry_record::{BatchItem, put_batch_item};
use gantry_remoting::{Command, RequestCode};

/// Messages of one batch.
pub(crate) const BATCH_MESSAGES: usize = 32;
/// Bytes of a message that is sent alone.
const BODY_BYTES: usize = 1024;
/// Bytes of a message in a batch.
const ITEM_BYTES: usize = 128;

/// A message of 1 KiB with its keys.
pub(crate) fn single(number: usize) -> anyhow::Result<Vec<u8>> {
    let properties = format!(
        "KEYS\u{1}key-{number:012}\u{2}UNIQ_KEY\u{1}7F0000010000000000000000{number:08X}\u{2}WAIT\u{1}true\u{2}"
    );
    encode(send(RequestCode::SEND_MESSAGE_V2, &properties, "false", body(BODY_BYTES)), number)
}

/// A batch of small messages, each with its unique key.
pub(crate) fn batch(number: usize) -> anyhow::Result<Vec<u8>> {
    let item = body(ITEM_BYTES);
    let mut items = Vec::new();
    for index in 0..BATCH_MESSAGES {
        let properties = format!("UNIQ_KEY\u{1}7F0000010000000000{index:06X}{number:08X}\u{2}");
        let item = BatchItem { flag: 0, body: &item, properties: properties.as_bytes() };
        put_batch_item(&item, &mut items)?;
    }
    encode(send(RequestCode::SEND_BATCH_MESSAGE, "WAIT\u{1}true\u{2}", "true", items), number)
}

/// A pull of 32 messages that waits for none.
pub(crate) fn pull(number: usize, topic: &str, offset: usize) -> anyhow::Result<Vec<u8>> {
    let fields = [
        ("consumerGroup", "replay-readers"),
        ("topic", topic),
        ("queueId", "0"),
        ("queueOffset", &offset.to_string()),
        ("maxMsgNums", "32"),
        ("sysFlag", "4"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "15000"),
        ("subscription", "*"),
        ("subVersion", "0"),
    ];
    encode(request(RequestCode::PULL_MESSAGE, &fields), number)
}

/// Where the messages of 1 KiB go.
pub(crate) const SINGLE_TOPIC: &str = "replay-single";
/// Where the batches go.
pub(crate) const BATCH_TOPIC: &str = "replay-batch";

fn send(code: RequestCode, properties: &str, batch: &str, body: Vec<u8>) -> Command {
    let topic = if code == RequestCode::SEND_BATCH_MESSAGE { BATCH_TOPIC } else { SINGLE_TOPIC };
    let fields = [
        ("a", "replay-writers"),
        ("b", topic),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "0"),
        ("f", "0"),
        ("g", "1700000000000"),
        ("h", "0"),
        ("i", properties),
        ("j", "0"),
        ("k", "false"),
        ("m", batch),
        ("n", "broker-a"),
    ];
    request(code, &fields).with_body(Bytes::from(body))
}

fn request(code: RequestCode, fields: &[(&str, &str)]) -> Command {
    fields
        .iter()
        .fold(Command::request(code), |request, (key, value)| request.with_ext(*key, *value))
}

fn encode(mut command: Command, number: usize) -> anyhow::Result<Vec<u8>> {
    command.opaque = i32::try_from(number)?;
    let mut frame = BytesMut::new();
    command.encode(&mut frame)?;
    Ok(frame.to_vec())
}

fn body(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| b'a' + ((at * 7 + at / 26) % 26) as u8).collect()
}
