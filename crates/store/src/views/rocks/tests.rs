//! Promises about what RocksDB drops and keeps by itself.

use std::sync::mpsc;

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

#[test]
fn batch_that_has_to_wait_for_tables_fails_after_some_seconds_and_is_taken_when_it_no_longer_has_to()
 {
    let dir = tempfile::tempdir().unwrap();
    let memory = RocksMemory { cache_bytes: 1 << 20, write_bytes: 4 << 20 };
    let views = Arc::new(RocksViews::open(dir.path(), memory).unwrap());
    let set = |views: &RocksViews, files: &str| {
        let triggers = ["level0_slowdown_writes_trigger", "level0_stop_writes_trigger"];
        let options = triggers.map(|name| (name, files));
        views.db.set_options_cf(views.family(View::Meta), &options).unwrap();
        let merging = [("level0_file_num_compaction_trigger", "100")];
        views.db.set_options_cf(views.family(View::Meta), &merging).unwrap();
    };
    let mut batch = ViewBatch::new();
    batch.put(View::Meta, b"key", b"value");
    set(&views, "1");
    views.apply(&batch).unwrap();
    views.flush().unwrap();

    // On a thread of its own: RocksDB would wait for ever.
    let (tell, told) = mpsc::channel();
    let waiting = Arc::clone(&views);
    thread::spawn(move || {
        let mut batch = ViewBatch::new();
        batch.put(View::Meta, b"key", b"other");
        tell.send(waiting.apply(&batch)).unwrap();
    });
    let refused = told.recv_timeout(Duration::from_mins(1)).expect("it waits in RocksDB");
    assert!(matches!(refused, Err(ViewError::Full { .. })), "{refused:?}");
    set(&views, "100");
    views.apply(&batch).unwrap();
}
