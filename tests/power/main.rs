//! Power cuts: evbus works on a disk that records every write and every flush; from the record come
//! the disks that a power cut at any moment may leave. Everything that evbus had acknowledged by
//! then must be on each of them.
//!
//! `EVBUS_POWER_IMAGES=1000` tries this many for each file system, `EVBUS_POWER_SEED` sets the
//! first seed, and `EVBUS_POWER_KEEP` names a folder for the images that are wrong. A seed repeats
//! the work, the moment at which evbus is killed and the cut of the disk; the kernel decides what
//! it writes and when, so a step may have another number.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::print_stderr, reason = "what was tried, for --nocapture")]

use std::path::Path;

mod bus;
mod image;
mod private;
mod recorder;
#[path = "../simulation/rng.rs"]
#[allow(dead_code, reason = "the simulation uses more of it")]
mod rng;
#[path = "../support/root.rs"]
mod root;
mod verdict;
mod workload;

use image::{Cut, JournalMode};
use recorder::{RecordedStep, Recording};
use rng::Rng;
use verdict::ExpectedState;

/// Images for each recording.
const IMAGES_OF_ONE: usize = 25;

/// After this many wrong images the rest shows nothing new.
const ENOUGH: usize = 5;

/// A number from the environment.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn acknowledged_work_survives_with_a_journal() {
    survives("acknowledged_work_survives_with_a_journal", JournalMode::Journal);
}

#[test]
fn acknowledged_work_survives_without_a_journal() {
    survives("acknowledged_work_survives_without_a_journal", JournalMode::NoJournal);
}

/// The harness itself loses what was not flushed, and nothing else.
#[test]
fn the_disk_keeps_only_flushed_writes() {
    private::in_private_mounts("the_disk_keeps_only_flushed_writes", |room| {
        for mode in [JournalMode::Journal, JournalMode::NoJournal] {
            keeps_what_was_flushed(mode, room);
        }
    });
}

fn keeps_what_was_flushed(mode: JournalMode, room: &Path) {
    let recording = image::record(mode, room, |disk, recorder| {
        std::fs::write(disk.join("flushed"), "x").unwrap();
        std::fs::File::open(disk.join("flushed")).unwrap().sync_all().unwrap();
        std::fs::File::open(disk).unwrap().sync_all().unwrap();
        recorder.mark("flushed");
        std::fs::write(disk.join("cached"), "x").unwrap();
        recorder.mark("cached");
    });
    for mark in ["flushed", "cached"] {
        let is_mark = |step: &RecordedStep| matches!(step, RecordedStep::Mark(text) if text == mark);
        let at = 1 + recording.steps.iter().position(is_mark).unwrap();
        let rng = Rng::new(0);
        let image = Cut::bare(at).image(&recording, &rng);
        let wrong = image::boot(mode, &image, room, |disk| {
            assert!(disk.join("flushed").exists(), "{mode:?} {mark}");
            assert!(!disk.join("cached").exists(), "{mode:?} {mark}");
            Vec::new()
        });
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

fn survives(test: &str, mode: JournalMode) {
    if !bus::can_kill() {
        private::not_tried("emits that are killed and repeated; strace is not there, or may not trace");
    }
    private::in_private_mounts(test, |room| {
        let wrong = images(mode, room, number("EVBUS_POWER_IMAGES", 50), number("EVBUS_POWER_SEED", 1));
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

/// Makes as many recordings as the images need, each with another seed; returns what is wrong.
fn images(mode: JournalMode, room: &Path, images: usize, seed: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    for (round, done) in (0..images).step_by(IMAGES_OF_ONE).enumerate() {
        wrong.extend(one_recording(mode, room, seed + round, IMAGES_OF_ONE.min(images - done)));
        if wrong.len() >= ENOUGH {
            break;
        }
    }
    eprintln!("{mode:?}: {images} images from seed {seed} on, {} of them wrong", wrong.len());
    wrong
}

/// Records one workload, and checks some of the disks that may be left; returns what is wrong.
fn one_recording(mode: JournalMode, room: &Path, seed: usize, images: usize) -> Vec<String> {
    let rng = Rng::new(seed as u64);
    let home = room.join("home");
    std::fs::create_dir_all(&home).unwrap();
    let _ = std::fs::remove_file(home.join("again"));
    let deletes = mode == JournalMode::Journal;
    let recording = image::record(mode, room, |disk, recorder| workload::run(disk, recorder, &home, &rng, deletes));
    let mut wrong = Vec::new();
    for (number, at) in moments(&recording, images, &rng).into_iter().enumerate() {
        let cut = if number % 3 == 0 { Cut::bare(at) } else { Cut::new(at, mode, &rng) };
        let found = look(mode, room, &home, &recording, &cut, &rng);
        if !found.is_empty() {
            let (last, found) = (recording.marks(at).last().unwrap_or("nothing"), found.join("\n    "));
            let which = format!("EVBUS_POWER_SEED={seed} {mode:?}, image {number}: {cut}, after '{last}'");
            wrong.push(format!("{which}:\n    {found}"));
        }
    }
    wrong
}

fn look(mode: JournalMode, room: &Path, home: &Path, recording: &Recording, cut: &Cut, rng: &Rng) -> Vec<String> {
    let image = cut.image(recording, rng);
    let known = verdict::known(recording.marks(recording.steps.len()));
    let expected = ExpectedState::new(recording.marks(cut.at));
    let wrong = image::boot(mode, &image, room, |disk| verdict::judge(&expected, &known, disk, home));
    if let Some(kept) = std::env::var_os("EVBUS_POWER_KEEP").filter(|_| !wrong.is_empty()) {
        std::fs::write(Path::new(&kept).join(format!("{mode:?}-{}", cut.at)), image).unwrap();
    }
    wrong
}

/// When the power fails: mostly just after a promise, before the next flush of anything else keeps
/// it.
fn moments(recording: &Recording, count: usize, rng: &Rng) -> Vec<usize> {
    let steps = &recording.steps;
    let promise = |at: &usize| matches!(&steps[*at], RecordedStep::Mark(text) if workload::promises(text));
    let mut promised: Vec<usize> = (0..steps.len()).filter(promise).collect();
    let mut moments = Vec::with_capacity(count);
    for number in 0..count {
        let after_promise = number % 3 < 2 && !promised.is_empty();
        let last = if after_promise { promised.swap_remove(rng.below(promised.len())) } else { rng.below(steps.len()) };
        moments.push(last + 1);
    }
    moments
}
