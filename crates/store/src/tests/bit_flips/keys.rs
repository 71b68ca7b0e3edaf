//! Every byte of a file of the key index that means something.

use super::scene::{Scene, Views};

#[test]
fn flip_in_a_key_file_is_reported_and_the_log_answers_in_its_place() {
    let scene = Scene::with(&[&["a", "b", "c"], &["d"]]);
    let path = &scene.key_file();
    let header = (0..36).map(|at| (at, true));
    // Hashes and positions of 12 entries, unused places, the number of entries and the checksum of the one block.
    let entries = (4096..4096 + 12 * 16).map(|at| (at, true));
    let end = [4096 + 200, 4096 + 4080, 4096 + 4083, 4096 + 4084, 4096 + 4087].map(|at| (at, true));
    // Behind the checksum there is nothing.
    let unused = [(4096 + 4088, false), (4096 + 4095, false)];
    for (at, is_reported) in header.chain(entries).chain(end).chain(unused) {
        let flipped = scene.flipped_file(path, at, (at % 8) as u32, Views::Kept);
        for body in ["a", "b", "c", "d"] {
            assert_eq!(flipped.find(body), [body], "byte {at}");
        }
        assert_eq!(flipped.find("order-1"), ["d", "c", "b", "a"], "byte {at}");
        let status = flipped.store.status();
        assert_eq!(status.damaged_files, u64::from(is_reported), "byte {at}");
        assert_eq!(status.damaged_records, 0, "byte {at}");
        assert!(status.damage.iter().all(|damage| damage.path == *path), "byte {at}");
    }
}
