//! Every bit of one message's record, of a segment's header, of a mark and of a filler.

use std::ops::Range;

use super::scene::{Flipped, SEGMENT_BYTES, Scene, Views};
use crate::log::{MARK_TOPIC, SEGMENT_TOPIC};

fn small() -> Scene {
    Scene::with(&[&["a", "bad", "c"], &["d"]])
}

/// Messages enough to fill two segments and a half.
fn three_segments() -> Scene {
    let bodies: Vec<_> = (0..10).map(|number| format!("{number:0700}")).collect();
    let batches: Vec<_> = bodies.iter().map(|body| [body.as_str()]).collect();
    let batches: Vec<_> = batches.iter().map(|batch| &batch[..]).collect();
    let scene = Scene::with(&batches);
    let last = scene.messages.last().unwrap().1.start;
    assert_eq!(last / SEGMENT_BYTES, 2, "the last message is in the third segment");
    scene
}

/// Opens the scene with each bit of `range` flipped in turn.
fn each_flip(scene: &Scene, range: Range<u64>, views: Views, check: impl Fn(&Flipped, &str)) {
    for at in range.clone() {
        for bit in 0..8 {
            let name = format!("byte {}, bit {bit}", at - range.start);
            check(&scene.flipped(at, bit, views), &name);
        }
    }
}

#[test]
fn every_bit_of_a_record_is_found_on_a_read_and_costs_that_record_alone() {
    let scene = small();
    let place = scene.messages[1].1.clone();
    each_flip(&scene, place.clone(), Views::Kept, |flipped, name| {
        assert_eq!(flipped.report.damage, [], "{name}: nothing has read it");
        assert_eq!(flipped.read_all(), ["a", "c", "d"], "{name}");
        assert!(flipped.reports_only(place.start), "{name}: {:?}", flipped.store.status());
        assert_eq!(flipped.find("bad"), [""; 0], "{name}");
        assert_eq!(flipped.find("order-1"), ["d", "c", "a"], "{name}");
        let position = gantry_model::PhysicalOffset(place.start);
        assert_eq!(flipped.store.read_record(position).unwrap(), None, "{name}");
        assert!(flipped.reports_only(place.start), "{name}: counted once");
    });
}

#[test]
fn every_bit_of_a_record_is_found_at_a_start_and_costs_that_record_alone() {
    let scene = small();
    let place = scene.messages[1].1.clone();
    each_flip(&scene, place.clone(), Views::Lost, |flipped, name| {
        assert_eq!(flipped.report.damage.len(), 1, "{name}");
        assert!(flipped.reports_only(place.start), "{name}: {:?}", flipped.store.status());
        assert_eq!(flipped.report.cut_at, None, "{name}");
        assert_eq!(flipped.read_all(), ["a", "c", "d"], "{name}");
        assert_eq!(flipped.find("order-1"), ["d", "c", "a"], "{name}");
        assert!(flipped.reports_only(place.start), "{name}: counted once");
    });
}

#[test]
fn bit_of_any_record_in_the_newest_segment_costs_that_record_alone() {
    let scene = small();
    for (body, place) in &scene.messages {
        let at = place.end - 50;
        for views in [Views::Kept, Views::Lost] {
            let flipped = scene.flipped(at, 3, views);
            assert_eq!(flipped.read_all(), scene.bodies_beside(place), "{body}, views {views:?}");
            assert!(flipped.reports_only(place.start), "{body}, views {views:?}");
        }
    }
}

#[test]
fn bit_of_the_last_batch_costs_one_record_also_after_a_kill_of_a_store_at_rest() {
    let scene = Scene::killed(&[&["a"], &["b", "c", "d"]]);
    for (body, place) in &scene.messages {
        for views in [Views::Kept, Views::Lost] {
            let flipped = scene.flipped(place.end - 50, 3, views);
            assert_eq!(flipped.read_all(), scene.bodies_beside(place), "{body}, views {views:?}");
            assert!(flipped.reports_only(place.start), "{body}, views {views:?}");
        }
    }
}

#[test]
fn every_bit_of_the_newest_segments_header_is_found_and_costs_no_message() {
    let scene = three_segments();
    let all = scene.bodies_beside(&(0..0));
    let place = scene.own(SEGMENT_TOPIC).pop().unwrap();
    each_flip(&scene, place.clone(), Views::Kept, |flipped, name| {
        assert!(flipped.reports_only(place.start), "{name}: {:?}", flipped.report);
        assert_eq!(flipped.read_all(), all, "{name}");
    });
}

#[test]
fn flip_in_any_segments_header_is_found_under_lost_views_and_costs_no_message() {
    let scene = three_segments();
    let all = scene.bodies_beside(&(0..0));
    for place in scene.own(SEGMENT_TOPIC) {
        for at in place.clone().step_by(7) {
            let flipped = scene.flipped(at, (at % 8) as u32, Views::Lost);
            let byte = at - place.start;
            assert!(flipped.reports_only(place.start), "{byte}: {:?}", flipped.report);
            assert_eq!(flipped.read_all(), all, "byte {byte} at {}", place.start);
        }
    }
}

#[test]
fn every_bit_of_a_mark_is_found_and_costs_no_message() {
    let scene = small();
    let all = scene.bodies_beside(&(0..0));
    let mut marks = scene.own(MARK_TOPIC);
    let last = marks.pop().unwrap();
    assert!(!marks.is_empty());
    for place in marks {
        each_flip(&scene, place.clone(), Views::Lost, |flipped, name| {
            assert!(flipped.reports_only(place.start), "{name}: {:?}", flipped.report);
            assert_eq!(flipped.read_all(), all, "{name}");
        });
    }
    // Nothing behind the last one says that it was ever whole: it is a torn tail, and is cut.
    each_flip(&scene, last.clone(), Views::Lost, |flipped, name| {
        assert_eq!(flipped.report.cut_at.map(|at| at.0), Some(last.start), "{name}");
        assert_eq!(flipped.read_all(), all, "{name}");
    });
}

#[test]
fn every_bit_of_a_filler_is_found_and_costs_no_message() {
    let scene = three_segments();
    let all = scene.bodies_beside(&(0..0));
    let fillers = scene.own("");
    assert_eq!(fillers.len(), 2);
    // Behind its first 20 bytes a filler means nothing.
    let place = fillers[1].start..fillers[1].start + 20;
    each_flip(&scene, place.clone(), Views::Lost, |flipped, name| {
        assert!(flipped.reports_only(place.start), "{name}: {:?}", flipped.report);
        assert_eq!(flipped.read_all(), all, "{name}");
    });
}
