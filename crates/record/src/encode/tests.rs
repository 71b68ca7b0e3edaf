//! What encoder and parser promise together.
//! Invariant: expected bytes are those that Java clients and brokers produced.
//! Leaves single fields of other files to the tests there.

use proptest::prelude::*;

use super::*;
use crate::{OffsetMessageId, RecordError, RecordView, peek_size, records};

fn draft<'a>() -> Draft<'a> {
    Draft {
        topic: "TopicTest",
        queue: QueueId(3),
        flag: 7,
        sys_flag: 0,
        born_time_ms: 1_700_000_000_000,
        born_host: "10.0.0.1:40000".parse().unwrap(),
        store_host: "127.0.0.1:10911".parse().unwrap(),
        reconsume_times: 0,
        prepared_offset: 0,
        body: b"hello",
        properties: b"a\x01b\x02",
    }
}

fn sealed(draft: &Draft<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let slot = encode(draft, &mut out).unwrap();
    slot.seal(&mut out, QueueOffset(42), PhysicalOffset(1024), 1_700_000_000_123);
    out
}

/// The record without its checksum entry, as a reference broker writes it.
fn reference(draft: &Draft<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let layout = put_fields(draft, 0, &mut out);
    out[QUEUE_OFFSET_AT..][..8].copy_from_slice(&42_u64.to_be_bytes());
    out[POSITION_AT..][..8].copy_from_slice(&1024_u64.to_be_bytes());
    out[layout.store_time_at..][..8].copy_from_slice(&1_700_000_000_123_u64.to_be_bytes());
    out
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

const VECTOR_V4: &str =
    "0000006d daa320a7 3610a686 00000003 00000007 000000000000002a 0000000000000400 00000000
    0000018bcfe56800 0a000001 00009c40 0000018bcfe5687b 7f000001 00002a9f 00000000
    0000000000000000 00000005 68656c6c6f 09 546f70696354657374 0004 61016202";
const VECTOR_V6: &str =
    "00000079 daa320a7 3610a686 00000003 00000007 000000000000002a 0000000000000400 00000010
    0000018bcfe56800 20010db8000000000000000000000001 00009c40 0000018bcfe5687b 7f000001 00002a9f
    00000000 0000000000000000 00000005 68656c6c6f 09 546f70696354657374 0004 61016202";

#[test]
fn record_is_what_java_writes_byte_by_byte() {
    assert_eq!(reference(&draft()), hex(VECTOR_V4));
    let v6 = Draft { born_host: "[2001:db8::1]:40000".parse().unwrap(), ..draft() };
    assert_eq!(reference(&v6), hex(VECTOR_V6));
    let id = RecordView::parse(&hex(VECTOR_V4)).unwrap().offset_message_id();
    assert_eq!(id.to_string(), "7F00000100002A9F0000000000000400");
}

#[test]
fn sealed_record_is_javas_with_20_bytes_more_of_properties() {
    let (ours, java) = (sealed(&draft()), hex(VECTOR_V4));
    assert_eq!(ours.len(), java.len() + CHECKSUM_BYTES);
    assert_eq!(ours[4..java.len() - 6], java[4..java.len() - 6]);
    assert_eq!(ours[java.len() - 4..java.len()], java[java.len() - 4..]);
    assert!(ours[java.len()..].starts_with(b"__CRC32#\x01"));
    let body: Vec<u8> = ours[..java.len()].to_vec();
    let digits: String = crc32fast::hash(&body)
        .to_string()
        .chars()
        .rev()
        .chain("0000000000".chars())
        .take(10)
        .collect();
    assert_eq!(&ours[java.len() + 9..ours.len() - 1], digits.as_bytes());
}

#[test]
fn reference_record_parses_but_has_no_checksum_to_verify() {
    let java = hex(VECTOR_V4);
    let view = RecordView::parse(&java).unwrap();
    assert_eq!(view.property("a"), Some("b"));
    assert_eq!(view.verify_body(), Ok(()));
    let position = PhysicalOffset(1024);
    assert_eq!(RecordView::verify(&java, position), Err(RecordError::ChecksumMissing { position }));
}

#[test]
fn fields_that_contradict_each_other_or_their_types_are_refused() {
    let java = hex(VECTOR_V4);
    let changed = |at: usize, byte: u8| {
        let mut record = java.clone();
        record[at] = byte;
        RecordView::parse(&record).unwrap_err()
    };
    let negative = |at| match changed(at, 0x80) {
        RecordError::Value { field, value, .. } if value < 0 => field,
        other => panic!("byte {at}: {other}"),
    };
    assert_eq!(negative(QUEUE_AT), "queue id");
    assert_eq!(negative(QUEUE_OFFSET_AT), "queue offset");
    assert_eq!(negative(POSITION_AT), "position");
    assert_eq!(negative(56), "store time");
    assert_eq!(negative(76), "prepared offset");
    assert!(matches!(changed(53, 1), RecordError::Value { field: "born port", .. }));
    assert!(matches!(changed(69, 1), RecordError::Value { field: "store port", .. }));
    assert!(matches!(changed(84, 0x80), RecordError::Length { field: "body", .. }));
    assert!(matches!(changed(94, 0xFF), RecordError::NotUtf8 { field: "topic", at: 0 }));
    assert!(matches!(changed(105, 0xFF), RecordError::NotUtf8 { field: "properties", at: 0 }));
    assert_eq!(changed(104, 3), RecordError::Trailing { end: 108, size: 109 });
    assert!(matches!(changed(104, 5), RecordError::Length { field: "properties", .. }));
    assert!(matches!(changed(7, 0), RecordError::Magic { .. }));
}

#[test]
fn record_read_at_another_position_is_refused() {
    let record = sealed(&draft());
    assert_eq!(
        RecordView::verify(&record, PhysicalOffset(1025)),
        Err(RecordError::Position { expected: PhysicalOffset(1025), found: PhysicalOffset(1024) })
    );
}

#[test]
fn any_flipped_bit_is_found() {
    let v2 = format!("%RETRY%{}", "g".repeat(125));
    for draft in [draft(), Draft { topic: &v2, ..draft() }] {
        let mut record = sealed(&draft);
        for bit in 0..record.len() * 8 {
            record[bit / 8] ^= 1 << (bit % 8);
            assert!(RecordView::verify(&record, PhysicalOffset(1024)).is_err(), "bit {bit}");
            record[bit / 8] ^= 1 << (bit % 8);
        }
        RecordView::verify(&record, PhysicalOffset(1024)).unwrap();
    }
}

#[test]
fn only_topics_over_127_bytes_make_v2_records() {
    for (bytes, magic) in [(127, MAGIC_V1), (128, MAGIC_V2), (255, MAGIC_V2)] {
        let topic = "t".repeat(bytes);
        let record = sealed(&Draft { topic: &topic, ..draft() });
        assert_eq!(peek_size(&record), Some((record.len() as u32, magic)));
        assert_eq!(RecordView::parse(&record).unwrap().topic(), topic);
    }
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_the_buffer_alone() {
    let mut out = b"before".to_vec();
    let long = "t".repeat(256);
    let unended = vec![b'x'; PROPERTIES_UNSEALED_BYTES_MAX];
    let largest = [&b"k\x01"[..], &vec![b'v'; PROPERTIES_UNSEALED_BYTES_MAX - 3], b"\x02"].concat();
    let too_large = [&largest[..], b"x"].concat();
    for bad in [
        Draft { topic: "", ..draft() },
        Draft { topic: &long, ..draft() },
        Draft { properties: &too_large, ..draft() },
        // Fits only without the separator that has to be added.
        Draft { properties: &unended, ..draft() },
        Draft { properties: b"a\x01\xFF\x02", ..draft() },
        Draft { queue: QueueId(1 << 31), ..draft() },
        Draft { prepared_offset: 1 << 63, ..draft() },
    ] {
        assert!(encode(&bad, &mut out).is_err());
    }
    assert_eq!(out, b"before");
    let record = sealed(&Draft { properties: &largest, ..draft() });
    let view = RecordView::verify(&record, PhysicalOffset(1024)).unwrap();
    assert_eq!(view.properties_raw().len(), 32_767);
}

#[test]
fn missing_last_separator_does_not_join_the_checksum_to_a_value() {
    let record = sealed(&Draft { properties: b"a\x01b", ..draft() });
    let view = RecordView::verify(&record, PhysicalOffset(1024)).unwrap();
    assert_eq!(view.property("a"), Some("b"));
    assert_eq!(view.properties_unsealed(), "a\u{1}b\u{2}");
}

#[test]
fn ipv4_address_from_an_ipv6_socket_is_stored_as_ipv4() {
    let born_host = "[::ffff:10.0.0.1]:40000".parse().unwrap();
    // A peer's own host bits say nothing about the addresses.
    let mapped = Draft { born_host, sys_flag: 0x30, ..draft() };
    assert_eq!(reference(&mapped), hex(VECTOR_V4));
}

#[test]
fn sealing_again_replaces_what_was_sealed_before() {
    let mut out = b"earlier bytes".to_vec();
    let slot = encode(&draft(), &mut out).unwrap();
    slot.seal(&mut out, QueueOffset(1), PhysicalOffset(99), 5);
    slot.seal(&mut out, QueueOffset(2), PhysicalOffset(7), 6);
    let mut moved = out.split_off(slot.start);
    RecordView::verify(&moved, PhysicalOffset(7)).unwrap();
    slot.moved_to(0).seal(&mut moved, QueueOffset(3), PhysicalOffset(8), 7);
    let view = RecordView::verify(&moved, PhysicalOffset(8)).unwrap();
    assert_eq!((view.queue_offset(), view.store_time_ms()), (QueueOffset(3), 7));
}

#[test]
fn concatenated_records_are_walked_until_the_first_bad_one() {
    let mut bytes = [sealed(&draft()), sealed(&Draft { body: b"", ..draft() })].concat();
    let bodies: Vec<_> = records(&bytes).map(|record| record.unwrap().body()).collect();
    assert_eq!(bodies, [&b"hello"[..], b""]);
    bytes.pop();
    let all: Vec<_> = records(&bytes).collect();
    assert!(matches!(all[..], [Ok(_), Err(RecordError::Size { .. })]), "{all:?}");
}

#[derive(Debug, Clone)]
struct Parts {
    topic: String,
    numbers: (u32, i32, i32, i64, i32, u64),
    hosts: (SocketAddr, SocketAddr),
    body: Vec<u8>,
    properties: Vec<(String, String)>,
    sealed: (u64, u64, u64),
}

fn parts() -> impl Strategy<Value = Parts> {
    let text = "[a-zé😀]{1,8}";
    let topic = prop_oneof!["[a-zA-Z0-9%]{1,127}", "[a-zA-Z0-9%]{128,255}"];
    let host = || any::<(IpAddr, u16)>().prop_map(SocketAddr::from);
    let number = || 0..=i64::MAX as u64;
    let numbers =
        (0..=i32::MAX as u32, any::<i32>(), any::<i32>(), any::<i64>(), any::<i32>(), number());
    let properties = proptest::collection::vec((text, text), 0..6);
    let sealed = (number(), number(), number());
    (topic, numbers, (host(), host()), any::<Vec<u8>>(), properties, sealed).prop_map(
        |(topic, numbers, hosts, body, properties, sealed)| Parts {
            topic,
            numbers,
            hosts,
            body,
            properties,
            sealed,
        },
    )
}

fn encoded_properties(parts: &Parts) -> Vec<u8> {
    let mut properties = Vec::new();
    for (key, value) in &parts.properties {
        crate::properties::put(&mut properties, key, value).unwrap();
    }
    properties
}

fn draft_of<'a>(parts: &'a Parts, properties: &'a [u8]) -> Draft<'a> {
    let (queue, flag, sys_flag, born_time_ms, reconsume_times, prepared_offset) = parts.numbers;
    let canonical = |host: SocketAddr| SocketAddr::new(host.ip().to_canonical(), host.port());
    let (born_host, store_host) = (canonical(parts.hosts.0), canonical(parts.hosts.1));
    let mut draft = Draft {
        topic: &parts.topic,
        queue: QueueId(queue),
        flag,
        sys_flag,
        born_time_ms,
        born_host,
        store_host,
        reconsume_times,
        prepared_offset,
        body: &parts.body,
        properties,
    };
    draft.sys_flag = sys_flag_of(&draft);
    draft
}

proptest! {
    #[test]
    fn sealed_record_reads_back_and_every_truncation_is_an_error(parts in parts()) {
        let properties = encoded_properties(&parts);
        let draft = draft_of(&parts, &properties);
        let (queue_offset, position, time) =
            (QueueOffset(parts.sealed.0), PhysicalOffset(parts.sealed.1), parts.sealed.2);
        let mut out = Vec::new();
        let slot = encode(&draft, &mut out).unwrap();
        slot.seal(&mut out, queue_offset, position, time);
        prop_assert_eq!(slot.size as usize, out.len());

        let view = RecordView::verify(&out, position).unwrap();
        prop_assert_eq!(view.draft(), draft);
        prop_assert_eq!(view.queue_offset(), queue_offset);
        prop_assert_eq!(view.store_time_ms(), time);
        let id = OffsetMessageId { host: draft.store_host, position };
        prop_assert_eq!(id.to_string().parse(), Ok(view.offset_message_id()));
        view.verify_body().unwrap();
        for cut in 0..out.len() {
            prop_assert!(RecordView::parse(&out[..cut]).is_err());
        }
    }

    #[test]
    fn seal_sums_the_same_as_the_whole_record(parts in parts()) {
        let properties = encoded_properties(&parts);
        let mut out = Vec::new();
        let slot = encode(&draft_of(&parts, &properties), &mut out).unwrap();
        let (queue_offset, position, time) = parts.sealed;
        slot.seal(&mut out, QueueOffset(queue_offset), PhysicalOffset(position), time);
        let sum = crc32fast::hash(&out[..out.len() - CHECKSUM_BYTES]);
        let digits = &out[out.len() - 11..out.len() - 1];
        prop_assert_eq!(digits, checksum_digits(sum));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = RecordView::parse(&bytes);
        records(&bytes).for_each(drop);
    }

    #[test]
    fn any_change_of_a_byte_reads_as_an_error_or_as_some_record(
        parts in parts(), at: prop::sample::Index, byte: u8,
    ) {
        let properties = encoded_properties(&parts);
        let mut out = Vec::new();
        let slot = encode(&draft_of(&parts, &properties), &mut out).unwrap();
        slot.seal(&mut out, QueueOffset(0), PhysicalOffset(9), 1);
        let at = at.index(out.len());
        let changed = out[at] != byte;
        out[at] = byte;
        if let Ok(view) = RecordView::parse(&out) {
            view.properties().for_each(drop);
            view.tag_hash();
        }
        prop_assert_eq!(RecordView::verify(&out, PhysicalOffset(9)).is_err(), changed);
    }
}
