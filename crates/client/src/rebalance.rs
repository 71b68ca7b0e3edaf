//! Which queues a member of a group reads: contiguous shares, as all clients of RocketMQ compute them.
//! Invariant: for the same queues and members, each queue has exactly one reader.
//! Pure: leaves finding queues and members to `consumer`.

/// The share of `member` in `queues`; `members` must hold it, else the share is empty.
///
/// Members with lower ids get one more where it does not divide evenly. Source: RocketMQ's
/// `AllocateMessageQueueAveragely`; every member has to compute the same.
pub fn share<'q, Q: Ord>(queues: &'q [Q], members: &[String], member: &str) -> Vec<&'q Q> {
    let mut queues: Vec<&Q> = queues.iter().collect();
    queues.sort_unstable();
    let mut members: Vec<&str> = members.iter().map(String::as_str).collect();
    members.sort_unstable();
    members.dedup();
    let Ok(index) = members.binary_search(&member) else {
        return Vec::new();
    };
    let (each, rest) = (queues.len() / members.len(), queues.len() % members.len());
    let start = index * each + index.min(rest);
    let count = each + usize::from(index < rest);
    queues[start..start + count].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(queues: u32, members: &[&str]) -> Vec<Vec<u32>> {
        let queues: Vec<u32> = (0..queues).rev().collect();
        let members: Vec<String> = members.iter().map(|id| (*id).to_owned()).collect();
        let share =
            |member: &String| share(&queues, &members, member).into_iter().copied().collect();
        members.iter().map(share).collect()
    }

    #[test]
    fn shares_are_contiguous_and_lower_ids_get_the_rest() {
        assert_eq!(shares(8, &["a", "b", "c"]), [vec![0, 1, 2], vec![3, 4, 5], vec![6, 7]]);
        assert_eq!(shares(4, &["a", "b"]), [vec![0, 1], vec![2, 3]]);
    }

    #[test]
    fn members_beyond_the_queues_read_nothing() {
        assert_eq!(shares(2, &["a", "b", "c"]), [vec![0], vec![1], vec![]]);
    }

    #[test]
    fn order_of_members_does_not_matter_and_every_queue_has_one_reader() {
        for queues in 0..20 {
            let mut all: Vec<u32> = shares(queues, &["z", "m", "a", "k"]).concat();
            all.sort_unstable();
            assert_eq!(all, (0..queues).collect::<Vec<_>>());
        }
        assert_eq!(shares(4, &["b", "a"]), [vec![2, 3], vec![0, 1]]);
    }

    #[test]
    fn who_is_not_a_member_reads_nothing() {
        assert!(share(&[1, 2], &["a".to_owned()], "b").is_empty());
    }
}
