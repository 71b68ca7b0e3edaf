//! Promises about what RocksDB drops and keeps by itself.

use gantry_model::{QueueId, QueueOffset, TopicId};

use super::*;

#[test]
fn merging_drops_the_runs_whose_messages_the_log_has_all_forgotten_and_no_other() {
    let (dir, queue) = (tempfile::tempdir().unwrap(), (TopicId(1), QueueId(2)));
    let memory = RocksMemory { cache_bytes: 1 << 20, write_bytes: 4 << 20 };
    let views = RocksViews::open(dir.path(), memory).unwrap();
    let mut batch = ViewBatch::new();
    let entry = |offset| layout::Entry {
        position: PhysicalOffset(offset * 100),
        size: 100,
        tag_hash: 0,
        store_time_ms: 0,
    };
    for first in [0, 10, 20] {
        let mut run = layout::RunOut::default();
        for offset in first..first + 10 {
            run.push(&mut batch, queue, QueueOffset(offset), &entry(offset));
        }
        run.end(&mut batch, queue);
    }
    views.apply(&batch).unwrap();
    views.note_log_start(PhysicalOffset(1500));
    views.flush().unwrap();
    views.db.compact_range_cf(views.family(View::Queue), None::<&[u8]>, None::<&[u8]>);
    let kept = crate::views::dump(&views).unwrap();
    let wanted = (10..30).map(|offset| format!("queue 1 2 {offset} {} 100 0 0", offset * 100));
    assert_eq!(kept, wanted.collect::<Vec<_>>());
}
