//! Which queue the messages of a message group go to.
//! Invariant: the same group and queue count always give the same queue, and a queue more moves few groups.
//! The hash is the reference's: Java's `String.hashCode` into the jump consistent hash of Lamping and Veach, with
//! the generator that Guava uses. Client-side hashes differ from SDK to SDK, so the broker decides.

/// The queue of `group` among `queues`, which is at least 1.
pub(super) fn queue_of(group: &str, queues: u32) -> u32 {
    jump(i64::from(gantry_record::tag_hash(group)), queues)
}

fn jump(input: i64, buckets: u32) -> u32 {
    let mut state = input as u64;
    let mut candidate: u32 = 0;
    loop {
        state = state.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let fraction = f64::from((state >> 33) as u32 + 1) / f64::from(1_u32 << 31);
        let next = (f64::from(candidate) + 1.0) / fraction;
        if next >= f64::from(buckets) {
            return candidate;
        }
        candidate = next as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_known_values_of_guava() {
        // From Guava's own tests of `consistentHash`.
        let expected: [(i64, u32); 3] = [
            (10_863_919_174_838_991, 6),
            (2_016_238_256_797_177_309, 3),
            (1_673_758_223_894_951_030, 5),
        ];
        for (input, bucket) in expected {
            assert_eq!(jump(input, 11), bucket, "{input}");
        }
    }

    #[test]
    fn one_queue_more_moves_only_groups_that_go_to_it() {
        for group in (0..1000).map(|number| format!("group-{number}")) {
            let (before, after) = (queue_of(&group, 8), queue_of(&group, 9));
            assert!(after == before || after == 8, "{group}: {before} to {after}");
            assert!(before < 8);
        }
    }
}
