//! Feeds arbitrary bytes to the readers and editors of property strings.
//! Invariant: what `edit` writes decodes to the same entries less the dropped ones, and editing it again changes nothing.
//! Leaves the checksum entry to the target `record`.

#![no_main]

use std::collections::BTreeMap;

use gantry_record::properties::{edit, entries, find, put};
use libfuzzer_sys::fuzz_target;

const DROPPED: [&str; 3] = ["POP_CK", "a", "__CRC32#"];

fuzz_target!(|data: &[u8]| {
    let mut expected: BTreeMap<&[u8], &[u8]> = entries(data).collect();
    for (key, value) in &expected {
        if let Ok(key) = std::str::from_utf8(key) {
            assert_eq!(find(data, key), Some(*value));
        }
    }
    expected.retain(|key, _| !DROPPED.iter().any(|name| name.as_bytes() == *key));

    let mut edited = Vec::new();
    edit(data, &DROPPED, &mut edited);
    assert_eq!(entries(&edited).collect::<BTreeMap<_, _>>(), expected);
    assert!(edited.len() <= data.len() + 1);

    let mut again = Vec::new();
    edit(&edited, &DROPPED, &mut again);
    assert_eq!(again, edited);

    if put(&mut edited, "added", "value").is_ok() {
        assert_eq!(find(&edited, "added"), Some(&b"value"[..]));
    }
});
