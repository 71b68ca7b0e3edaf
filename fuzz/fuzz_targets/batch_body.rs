//! Feeds arbitrary bytes to the reader of batch bodies.
//! Invariant: the items that are read, written again, are the part of the body they came from.
//! Leaves what items may be to the broker.

#![no_main]

use gantry_record::{BatchItems, put_batch_item};
use libfuzzer_sys::fuzz_target;

const ITEMS_MAX: usize = 64;

fuzz_target!(|data: &[u8]| {
    let mut written = Vec::new();
    for item in BatchItems::new(data, ITEMS_MAX).map_while(Result::ok) {
        let start = written.len();
        put_batch_item(&item, &mut written).expect("an item that was read fits");
        let (own, original) = (&written[start..], &data[start..written.len()]);
        // Magic and checksum are read by nobody and written as 0.
        assert_eq!((&own[..4], &own[12..]), (&original[..4], &original[12..]));
    }
});
