//! Files that a disk doesn't give back as they were written.

use super::players::mkvtoolnix_is_content;
use super::*;

#[test]
fn of_a_whole_file_all_but_header_and_index_is_proven() {
    let bytes = finished();
    let found = damage(Cursor::new(&bytes)).expect("whole");
    let clusters = cluster_starts(&bytes);
    assert_eq!(found.places, []);
    let [header, index] = &found.unchecked[..] else { panic!("{found:?}") };
    assert_eq!(*header, 0..clusters[0] as u64);
    assert_eq!(index.end, bytes.len() as u64);
    assert!(index.start > clusters[3] as u64);
}

#[test]
fn each_turned_bit_in_a_cluster_is_placed_within_its_second_and_names_who_was_recorded() {
    let bytes = finished();
    let clusters = cluster_starts(&bytes);
    let index = damage(Cursor::new(&bytes)).expect("whole").unchecked[1].start as usize;
    // What the last cluster's own size says can hide where the index begins.
    let ends: Vec<usize> = clusters[1..].iter().copied().chain([bytes.len()]).collect();
    for at in (clusters[0]..index).step_by(13).chain(clusters[1]..clusters[1] + 60) {
        let mut rotten = bytes.clone();
        rotten[at] ^= 0x10;
        let found = damage(Cursor::new(&rotten)).expect("its header is whole");
        let cluster = clusters.iter().rposition(|start| *start <= at).expect("it lies in one");
        let around = clusters[cluster] as u64..ends[cluster] as u64;
        let place = found.places.iter().find(|place| place.bytes.contains(&(at as u64)));
        let place = place.unwrap_or_else(|| panic!("byte {at}: {found:?}"));
        for place in &found.places {
            assert!(
                place.bytes.start >= around.start && place.bytes.end <= around.end,
                "byte {at}: {found:?}"
            );
        }
        assert!(!place.media.is_empty(), "byte {at}: {found:?}");
        let (from, to) = (place.media[0].from.ns(), place.media[0].to.ns());
        assert!(to - from <= 1_200_000_000, "byte {at}: {found:?}");
    }
}

#[test]
fn a_picture_that_rots_puts_no_sound_in_doubt_and_sound_that_rots_no_other_second() {
    let bytes = finished();
    let blocks = play(&bytes).0;
    for (track, id) in [(VIDEO, "src-1"), (SOUND, "src-2")] {
        let block = blocks.iter().filter(|block| block.track == track).nth(7).expect("there are more");
        let mut rotten = bytes.clone();
        rotten[block.offset as usize + 30] ^= 1;
        let found = damage(Cursor::new(&rotten)).expect("whole");
        let spans = &found.places[0].media;
        let own = spans.iter().find(|span| span.source_id == id).expect("its source is told");
        let at = block.timestamp;
        assert!(own.from <= at && at <= own.to, "{found:?}");
        if track == VIDEO {
            assert_eq!((found.places.len(), spans.len()), (1, 1), "{found:?}");
        }
    }
}

#[test]
fn a_repaired_cluster_has_no_checksum_and_is_not_called_damaged() {
    let torn = unpatched();
    let repaired = mended(&torn, &plan(&torn));
    let found = damage(Cursor::new(&repaired)).expect("whole");
    assert_eq!((found.places, found.unchecked.len()), (vec![], 1));
    assert_eq!(found.unchecked[0], 0..repaired.len() as u64);
    on_disk(&repaired, |path| mkvtoolnix_is_content(path, MEDIA.samples.len()));
}
