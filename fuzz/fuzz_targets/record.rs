//! Feeds arbitrary bytes to every reader of records, batches and ids.
//! Invariant: no input panics, and what parses encodes to a record that verifies and says the same.
//! Leaves frames and headers to the other targets.

#![no_main]

use gantry_model::{PhysicalOffset, QueueOffset};
use gantry_record::{
    BatchItems, Draft, OffsetMessageId, RecordView, encode, put_batch_item, records,
    unique_id_time_ms,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for view in records(data).flatten() {
        view.properties().for_each(drop);
        view.tag_hash();
        let _ = view.verify_body();
        let _ = RecordView::verify(view.bytes(), view.position());
        encode_again(&view);
    }
    read_batch(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = text.parse::<OffsetMessageId>();
        let _ = unique_id_time_ms(text, 1_700_000_000_000);
    }
});

/// A record that parses is refused by the encoder only for what the checksum adds or for its topic.
fn encode_again(view: &RecordView<'_>) {
    let draft = view.draft();
    let mut out = Vec::new();
    let Ok(slot) = encode(&draft, &mut out) else {
        assert!(out.is_empty());
        return;
    };
    slot.seal(&mut out, QueueOffset(1), PhysicalOffset(2), 3);
    let again = RecordView::verify(&out, PhysicalOffset(2)).expect("sealed records verify");
    let same = Draft {
        sys_flag: again.sys_flag(),
        born_host: again.born_host(),
        store_host: again.store_host(),
        properties: again.draft().properties,
        ..draft
    };
    assert_eq!(again.draft(), same);
    assert!(again.properties_unsealed().starts_with(view.properties_unsealed()));
}

fn read_batch(data: &[u8]) {
    let Ok(items) = BatchItems::new(data, 1_000).collect::<Result<Vec<_>, _>>() else { return };
    let mut out = Vec::new();
    for item in &items {
        put_batch_item(item, &mut out).expect("what was read can be written");
    }
    let again: Vec<_> = BatchItems::new(&out, 1_000).map(Result::unwrap).collect();
    assert_eq!(again, items);
}
