//! Promises of the storage format: a store that format version 1 has written opens, with all that it held.
//! Invariant: the store in `fixtures/v1` stays as it is; a later format adds one of its own beside it.
//! `GANTRY_UPDATE=1` writes the store of this version anew, which only a change before a release may need.

mod content;
mod fixture;
mod make;

use gantry_store::{Store, inspect::StoreReader, views::layout};

use content::{check, now, options};
use fixture::Fixture;

/// Opens the copy, checks what is in it, and closes it.
fn open_and_check(fixture: &Fixture, views_rebuilt: bool) {
    let (store, report) = Store::open(options(fixture.dir()), now(0)).unwrap();
    assert_eq!((report.views_rebuilt, &*report.damage), (views_rebuilt, &[][..]), "{report:?}");
    assert_eq!(report.cut_at, None);
    check(&store);
    store.close(now(0)).unwrap();
}

/// Whether this release makes the views of version 1 again.
fn are_views_old() -> bool {
    layout::VERSION != 1
}

fn verify(fixture: &Fixture) {
    let verdict = StoreReader::open(fixture.dir()).unwrap().verify(&mut |_, _| {}).unwrap();
    assert_eq!(verdict.findings, []);
}

#[test]
fn store_of_version_1_is_found_whole_and_tells_what_it_holds() {
    let fixture = Fixture::copy();
    verify(&fixture);
    let summary = StoreReader::open(fixture.dir()).unwrap().summary().unwrap();
    content::check_summary(&summary);
    content::check_kinds(&StoreReader::open(fixture.dir()).unwrap());
}

#[test]
fn store_of_version_1_opens_with_all_that_it_held() {
    let fixture = Fixture::copy();
    open_and_check(&fixture, are_views_old());
    verify(&fixture);
    open_and_check(&fixture, false);
}

#[test]
fn store_of_version_1_opens_with_all_that_it_held_from_its_log_alone() {
    for folders in [&["views"][..], &["keys"], &["views", "keys"]] {
        let fixture = Fixture::copy();
        for folder in folders {
            std::fs::remove_dir_all(fixture.dir().join(folder)).unwrap();
        }
        open_and_check(&fixture, folders.contains(&"views") || are_views_old());
        verify(&fixture);
    }
}

#[test]
fn store_of_version_1_is_written_on_and_opens_again() {
    let fixture = Fixture::copy();
    let (store, _) = Store::open(options(fixture.dir()), now(0)).unwrap();
    let added = content::add(&store, 100);
    content::check_added(&store, &added);
    store.close(now(0)).unwrap();
    drop(store);
    let (store, report) = Store::open(options(fixture.dir()), now(0)).unwrap();
    assert!(!report.views_rebuilt);
    content::check_added(&store, &added);
    store.close(now(0)).unwrap();
    verify(&fixture);
}

#[test]
fn store_of_version_1_fits_into_the_tree() {
    let bytes: u64 = Fixture::files().iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes < 400 * 1024, "{bytes} bytes");
}
