//! Stored files that are not what they were: emptied, changed, replaced. No wrong byte comes out of them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::content::{Kept, files_of};
use super::place::{Place, end_of, text_of};

/// So many of the stored files are damaged, one after the other, spread over all of them.
const DAMAGED_MAX: usize = 10;

/// A damage to a stored file of this content.
type Damage = fn(&Path, &[u8]);

fn stored(seed: u64) -> (Place, Kept, Vec<PathBuf>) {
    let place = Place::in_memory();
    let files = files_of(seed, 30_000, 4);
    place.lay(&files);
    let kept = Kept { what: "the snapshot".to_owned(), snapshot: place.keep(&["snapshot"]), files };
    let stored = place.stored_files();
    assert!(!stored.is_empty());
    let apart = stored.len().div_ceil(DAMAGED_MAX);
    (place, kept, stored.into_iter().step_by(apart).collect())
}

/// Damages each file in turn; a checkout then gives right bytes or refuses. Returns the exit codes of the refusals.
fn refusals(seed: u64, damage: Damage) -> Vec<i32> {
    let (place, kept, stored) = stored(seed);
    let mut codes = Vec::new();
    for path in stored {
        let content = std::fs::read(&path).unwrap();
        let mode = path.metadata().unwrap().permissions();
        std::fs::remove_file(&path).unwrap();
        damage(&path, &content);
        place.clear();
        let output = end_of(place.pv(&["checkout", "--force", &kept.snapshot]).spawn().unwrap());
        let told = text_of(&output);
        for (name, content) in &kept.files {
            match std::fs::read(place.path(name)) {
                Ok(found) => {
                    assert!(found == *content, "wrong bytes in `{name}` with a damaged `{}`: {told}", path.display());
                }
                Err(_) => assert!(!output.status.success(), "`{name}` is missing, yet: {told}"),
            }
        }
        if !output.status.success() {
            assert!(told.contains("error: "), "{told}");
            codes.push(output.status.code().unwrap());
        }
        if path.is_dir() { std::fs::remove_dir(&path) } else { std::fs::remove_file(&path) }.unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, mode).unwrap();
    }
    place.assert_comes_out(&kept);
    codes
}

#[test]
fn a_stored_file_with_one_other_byte_is_refused_with_exit_4() {
    let codes = refusals(1, |path, content| {
        let mut content = content.to_vec();
        let middle = content.len() / 2;
        content[middle] ^= 0x20;
        std::fs::write(path, content).unwrap();
    });
    assert!(!codes.is_empty() && codes.iter().all(|code| *code == 4), "{codes:?}");
}

#[test]
fn a_read_only_stored_file_is_trusted_no_more_than_another() {
    // DVC takes a file of mode 0444 for what its name says.
    let codes = refusals(2, |path, content| {
        let content: Vec<u8> = content.iter().map(|byte| byte ^ 0x11).collect();
        std::fs::write(path, content).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o444)).unwrap();
    });
    assert!(!codes.is_empty() && codes.iter().all(|code| *code == 4), "{codes:?}");
}

#[test]
fn an_empty_stored_file_is_refused_with_exit_4() {
    let codes = refusals(3, |path, _| std::fs::write(path, b"").unwrap());
    assert!(!codes.is_empty() && codes.iter().all(|code| *code == 4), "{codes:?}");
}

#[test]
fn a_stored_file_that_was_cut_off_is_refused_with_exit_4() {
    let codes = refusals(4, |path, content| std::fs::write(path, &content[..content.len() / 2]).unwrap());
    assert!(!codes.is_empty() && codes.iter().all(|code| *code == 4), "{codes:?}");
}

#[test]
fn a_directory_in_the_place_of_a_stored_file_is_an_error() {
    let codes = refusals(5, |path, _| std::fs::create_dir(path).unwrap());
    assert!(!codes.is_empty() && codes.iter().all(|code| [2, 4].contains(code)), "{codes:?}");
}

#[test]
fn an_execution_again_of_a_damaged_snapshot_is_refused_with_exit_4() {
    let (place, kept, stored) = stored(6);
    for path in stored {
        let mut content = std::fs::read(&path).unwrap();
        content.iter_mut().for_each(|byte| *byte ^= 0x40);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, content).unwrap();
    }
    let output = end_of(place.pv(&["run", &kept.snapshot]).spawn().unwrap());
    assert_eq!(output.status.code(), Some(4), "{}", text_of(&output));
}

#[test]
fn a_snapshot_that_finds_its_stored_files_emptied_writes_them_again_or_refuses() {
    let (place, kept, stored) = stored(7);
    for path in stored {
        let mode = path.metadata().unwrap().permissions();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"").unwrap();
        std::fs::set_permissions(&path, mode).unwrap();
    }
    let output = end_of(place.pv(&["snapshot"]).spawn().unwrap());
    if output.status.success() {
        place.assert_comes_out(&kept);
    } else {
        assert_eq!(output.status.code(), Some(4), "{}", text_of(&output));
    }
}
