//! Files that are torn, damaged or very long, and bytes of any kind.

use super::*;
use proptest::prelude::*;

/// A file of which only what was written is kept: everything between is zeros.
struct Sparse {
    pieces: std::collections::BTreeMap<u64, Vec<u8>>,
    length: u64,
    at: u64,
    bytes_read: u64,
}

impl Read for Sparse {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.length - self.at.min(self.length)).expect("64 bits");
        let count = left.min(out.len());
        out[..count].fill(0);
        let end = self.at + count as u64;
        for (start, piece) in self.pieces.range(self.at.saturating_sub(1 << 20)..end) {
            for (offset, byte) in (*start..).zip(piece).filter(|(offset, _)| (self.at..end).contains(offset))
            {
                out[usize::try_from(offset - self.at).expect("within out")] = *byte;
            }
        }
        self.at = end;
        self.bytes_read += count as u64;
        Ok(count)
    }
}

impl Seek for Sparse {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(_) => self.length,
            SeekFrom::Current(_) => unreachable!("not used"),
        };
        Ok(self.at)
    }
}

#[test]
fn a_file_of_six_gigabytes_is_repaired_without_reading_it() {
    let (mut writer, bytes) = Writer::new(&header(&[PCM])).expect("a valid header");
    let mut file = Sparse { pieces: [(0, bytes)].into(), length: 0, at: 0, bytes_read: 0 };
    let mut clusters = vec![];
    for n in 0..400 {
        let at = writer.file_bytes();
        let prefix = writer.packet(packet(1, n * 100 * MS, 16 << 20)).expect("valid");
        file.pieces.insert(at, prefix.bytes);
        clusters.extend(prefix.opened);
        file.length = writer.file_bytes();
    }
    clusters.push(file.length);
    assert!(file.length > 6 << 30);
    assert!(clusters.windows(2).all(|ends| ends[1] - ends[0] <= CLUSTER_BYTES_MAX + 64));
    let plan = repair(&mut file, &[]).expect("ours");
    assert_eq!((plan.blocks(), plan.cut_bytes), (400, 0));
    assert_eq!(plan.patches.len(), 400 + 3, "each cluster's size, SeekHead, Duration, Segment's size");
    file.pieces.insert(file.length, plan.tail);
    file.length = plan.file_bytes;
    for Patch { offset, bytes, .. } in plan.patches {
        let (start, piece) = file.pieces.range_mut(..=offset).next_back().expect("the header is at 0");
        let at = usize::try_from(offset - start).expect("small");
        piece[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    assert!(repair(&mut file, &[]).expect("finished").is_empty());
    assert!(file.bytes_read < 16 << 20, "{} bytes read", file.bytes_read);
}

#[test]
fn a_repair_cut_short_at_any_step_ends_the_same() {
    let mut file = File::new(&[MJPEG, PCM, MJPEG, PCM]);
    for n in 0..12 {
        file.add(1 + 2 * u8::from(n % 3 == 0), n * 300 * MS);
    }
    let growing = file.bytes.clone();
    let finished = file.finish();
    let tail_torn = finished[..finished.len() - 20].to_vec();
    for torn in [growing[..growing.len() - 5].to_vec(), growing, tail_torn] {
        let whole_plan = plan(&torn).expect("ours");
        let steps = whole_plan.tail.len() + whole_plan.patches.len();
        let whole = mend(&torn, &whole_plan, steps);
        assert!(plan(&whole).expect("finished").is_empty());
        for step in 0..=steps {
            let partly = mend(&torn, &whole_plan, step);
            let again = plan(&partly).expect("ours");
            assert!(mend(&partly, &again, usize::MAX) == whole, "after step {step} of {steps}");
        }
    }
}

#[test]
fn a_finished_file_that_lost_its_second_half_is_as_long_as_the_first() {
    let mut file = File::new(&[MJPEG]);
    for n in 0..20 {
        file.add(1, n * 500 * MS);
    }
    let finished = file.finish();
    let half = &finished[..4096 + (finished.len() - 4096) / 2];
    let mended = mend(half, &plan(half).expect("ours"), usize::MAX);
    let (blocks, _) = play(Cursor::new(&mended)).expect("whole");
    assert!((5..15).contains(&blocks.len()));
    let length = Duration::from_millis(blocks.len() as u64 * 500);
    assert_eq!(Reader::open(Cursor::new(mended)).expect("whole").info().duration, Some(length));
}

#[test]
fn a_finished_file_is_never_cut_whatever_byte_is_damaged() {
    let mut file = File::new(&[MJPEG, PCM]);
    for n in 0..12 {
        file.add(1 + u8::from(n % 3 == 0), n * 300 * MS);
    }
    let finished = file.finish();
    for at in 4096..finished.len() {
        let mut damaged = finished.clone();
        damaged[at] ^= 0xFF;
        let plan = plan(&damaged).expect("its header is whole");
        assert_eq!((plan.truncate_to, plan.tail.len()), (None, 0), "byte {at}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_some_end(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = play(Cursor::new(&bytes));
        let header = File::new(&[MJPEG, PCM]).bytes;
        let _ = play(Cursor::new([&header[..], &bytes].concat())).expect("the header is whole");
        let _ = plan(&bytes);
    }

    #[test]
    fn any_damage_to_a_growing_file_is_mended(
        edits in prop::collection::vec((0_usize..6000, any::<u8>()), 1..8),
        cut in prop::option::of(0_usize..6000),
    ) {
        let mut file = File::new(&[MJPEG, PCM]);
        (0..40).for_each(|n| file.add(1 + u8::from(n % 3 == 0), n * 150 * MS));
        apply(&mut file.bytes, &file.due[..2]);
        let mut bytes = file.bytes;
        for (at, byte) in edits {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        let Ok(first) = plan(&bytes) else { return Ok(()) };
        let whole = mend(&bytes, &first, usize::MAX);
        let second = plan(&whole).expect("its header was whole");
        prop_assert!(second.is_empty(), "{first:?} then {second:?}");
        let heard: Vec<&Tally> = first.tallies.iter().filter(|tally| tally.blocks > 0).collect();
        if first.damaged_bytes == 0 && !heard.is_empty() {
            // A track without a block is listed no more.
            prop_assert_eq!(heard, second.tallies.iter().collect::<Vec<_>>());
        }
        let (blocks, end) = play(Cursor::new(&whole)).expect("its header was whole");
        if first.damaged_bytes == 0 && first.damaged_at.is_none() {
            prop_assert_eq!(blocks.len() as u64, second.tallies.iter().map(|tally| tally.blocks).sum::<u64>());
            prop_assert_eq!(end, Next::End { at: whole.len() as u64 });
        }
    }
}
