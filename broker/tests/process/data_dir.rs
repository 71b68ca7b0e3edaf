//! The data folder: one broker at a time, and no format that the program does not know.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use super::program::Program;

#[test]
fn data_folder_in_use_is_named_in_one_line_and_the_first_broker_serves_on() {
    let dir = tempfile::tempdir().unwrap();
    let first = Program::serving(dir.path(), "");
    let (status, log) = Program::spawn(dir.path(), "").ended();
    assert_eq!(status.code(), Some(1), "{log}");
    let last = log.lines().last().unwrap();
    assert!(last.starts_with("gantry-broker: start the broker: open the store in"), "{log}");
    assert!(last.contains("in use"), "{log}");
    assert_eq!(Program::get(first.address("http"), "/readyz").0, "200");
}

#[test]
fn unknown_settings_key_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (status, log) = Program::spawn(dir.path(), "flush_intervall: 5s").ended();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("flush_intervall"), "{log}");
    assert_eq!(log.lines().count(), 1, "{log}");
}

#[test]
fn data_folder_of_a_newer_version_is_refused_with_both_formats_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::serving(dir.path(), "");
    program.terminate();
    assert!(program.ended().0.success());
    let segment = first_segment(dir.path());
    let bytes = fs::read(&segment).unwrap();
    let newer = of_next_format(&bytes);
    fs::OpenOptions::new().write(true).open(&segment).unwrap().write_all(&newer).unwrap();
    let before = fs::read(&segment).unwrap();

    let (status, log) = Program::spawn(dir.path(), "").ended();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.lines()
            .last()
            .unwrap()
            .ends_with("the store has format 2, this version knows formats up to 1"),
        "{log}"
    );
    assert!(fs::read(&segment).unwrap() == before, "the segment was changed");
}

fn first_segment(dir: &Path) -> PathBuf {
    let mut segments: Vec<_> = fs::read_dir(dir.join("data/log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().parse::<u64>().is_ok())
        .collect();
    segments.sort();
    segments.remove(0)
}

/// The header record of a segment as the next format would write it: its body begins with the format.
fn of_next_format(segment: &[u8]) -> Vec<u8> {
    let record = gantry_record::records(segment).next().unwrap().unwrap();
    let mut body = record.body().to_vec();
    let format = u32::from_be_bytes(body[..4].try_into().unwrap());
    body[..4].copy_from_slice(&(format + 1).to_be_bytes());
    let draft = gantry_record::Draft { body: &body, ..record.draft() };
    let mut out = Vec::new();
    let slot = gantry_record::encode(&draft, &mut out).unwrap();
    slot.seal(&mut out, record.queue_offset(), record.position(), record.store_time_ms());
    out
}
