//! Files that are torn, damaged, or another program's.

use super::*;

#[test]
fn a_growing_file_cut_at_any_byte_plays_up_to_there_and_is_mended() {
    cut_at_every_byte(&growing());
}

#[test]
fn a_file_without_its_patches_cut_at_any_byte_plays_up_to_there_and_is_mended() {
    cut_at_every_byte(&unpatched());
}

#[test]
fn a_finished_file_cut_at_any_byte_plays_up_to_there_and_is_mended() {
    cut_at_every_byte(&finished());
}

/// Cuts within the last two clusters and what follows them.
fn cut_at_every_byte(bytes: &[u8]) {
    let blocks = play(bytes).0;
    assert_eq!(blocks.len(), MEDIA.samples.len());
    let clusters = cluster_starts(bytes);
    let from = clusters[clusters.len() - 2];
    let sampled: Vec<usize> = (0..12).map(|n| from + (bytes.len() - 1 - from) * n / 11).collect();
    for cut in from..bytes.len() {
        let torn = &bytes[..cut];
        let whole = blocks.iter().filter(|block| block.offset + block.payload_bytes <= cut as u64).count();
        assert_eq!(play(torn).0, blocks[..whole], "cut at {cut}");
        let plan = plan(torn);
        assert_eq!(plan.blocks(), whole as u64, "cut at {cut}");
        let file = mended(torn, &plan);
        assert_eq!(
            play(&file),
            (blocks[..whole].to_vec(), Next::End { at: file.len() as u64 }),
            "cut at {cut}"
        );
        assert!(repair(Cursor::new(&file), &[]).expect("finished").is_empty(), "cut at {cut}");
        if open(bytes).is_finished() && whole == blocks.len() {
            assert!(file == bytes, "cut at {cut}: the index is written as it was");
        }
        if sampled.contains(&cut) {
            on_disk(torn, |path| assert_eq!(probe_torn(path).len(), whole, "raw, cut at {cut}"));
            on_disk(&file, |path| assert_eq!(probe_packets(path).len(), whole, "cut at {cut}"));
        }
    }
}

/// Packets that ffprobe finds in a file as the crash left it, whatever it says of the end.
fn probe_torn(path: &str) -> Vec<String> {
    let args = ["-v", "quiet", "-show_entries", "packet=stream_index,size", "-of", "csv=p=0", path];
    let told = Command::new("ffprobe").args(args).output().expect("ffprobe can be run");
    String::from_utf8(told.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn pages_that_a_power_cut_turned_to_zeros_are_not_taken_for_media() {
    let bytes = unpatched();
    let blocks = play(&bytes).0;
    let last = *cluster_starts(&bytes).last().expect("four clusters");
    let pages: Vec<usize> = (0..bytes.len()).step_by(4096).filter(|page| page + 4096 > last).collect();
    assert!(pages.len() > 2);
    for from in pages {
        let mut torn = bytes.clone();
        torn[from..].fill(0);
        let before = blocks.iter().filter(|block| block.offset + block.payload_bytes <= from as u64).count();
        let plan = plan(&torn);
        assert_eq!(plan.blocks(), before as u64, "zeros from {from}");
        on_disk(&mended(&torn, &plan), |path| assert_eq!(probe_packets(path).len(), before));
    }
}

#[test]
fn a_file_torn_within_its_header_holds_no_media() {
    let (_, header) = Writer::new(&MEDIA.header).expect("valid");
    for cut in 0..header.len() {
        let torn = Reader::open(Cursor::new(&header[..cut])).map(|_| ()).expect_err("torn");
        assert!(matches!(torn, Error::HeaderIncomplete { at } if at <= cut as u64), "cut at {cut}: {torn}");
    }
    let plan = plan(&header);
    assert_eq!((plan.blocks(), plan.cut_bytes), (0, 0));
    assert!(repair(Cursor::new(mended(&header, &plan)), &[]).expect("finished").is_empty());
}

#[test]
fn a_size_of_which_a_power_cut_kept_half_hides_nothing() {
    let bytes = growing();
    let blocks = play(&bytes).0;
    let clusters = cluster_starts(&bytes);
    for cluster in &clusters[..clusters.len() - 1] {
        // The other bytes lie in a page that is as it was before the size was known.
        for kept in 2..8 {
            let mut torn = bytes.clone();
            torn[cluster + 4 + kept..cluster + 12].fill(0xFF);
            let plan = plan(&torn);
            assert_eq!(plan.blocks(), blocks.len() as u64, "{kept} bytes of the size at {cluster}");
            assert_eq!(play(&mended(&torn, &plan)).0, blocks, "{kept} bytes of the size at {cluster}");
        }
    }
}

#[test]
fn a_file_of_zeros_holds_no_media() {
    for length in [1, 100, 4096, 10_000] {
        let blank = Reader::open(Cursor::new(vec![0; length])).map(|_| ()).expect_err("blank");
        assert!(matches!(blank, Error::HeaderIncomplete { at: 0 }), "{length} zeros: {blank}");
    }
    let other =
        Reader::open(Cursor::new([&[0; 5000][..], b"x"].concat())).map(|_| ()).expect_err("another's");
    assert!(matches!(other, Error::NotMatroska { .. }), "{other}");
}

#[test]
fn files_of_other_programs_are_read_but_not_repaired() {
    on_disk(&finished(), |path| {
        let copy = format!("{path}.copy.mkv");
        let makers: [(&str, Vec<&str>); 3] = [
            ("ffmpeg", vec!["-v", "error", "-y", "-i", path, "-c", "copy", &copy]),
            ("ffmpeg", vec!["-v", "error", "-y", "-i", path, "-c", "copy", "-live", "1", &copy]),
            ("mkvmerge", vec!["-o", &copy, "--disable-lacing", path]),
        ];
        for (program, args) in makers {
            run(program, &args);
            let bytes = std::fs::read(&copy).expect("just written");
            let (blocks, end) = play(&bytes);
            assert_eq!(
                (blocks.len(), end),
                (MEDIA.samples.len(), Next::End { at: bytes.len() as u64 }),
                "{args:?}"
            );
            if open(&bytes).is_finished() {
                assert!(plan(&bytes).is_empty(), "{args:?}");
            }
            let torn = repair(Cursor::new(&bytes[..bytes.len() * 3 / 4]), &[]);
            assert!(matches!(torn, Err(Error::NotRepairable { .. })), "{args:?}: {torn:?}");
        }
    });
    let text = Reader::open(Cursor::new(b"RIFF....WAVE")).map(|_| ());
    assert!(matches!(text, Err(Error::NotMatroska { .. })));
}

#[test]
fn a_source_that_comes_back_late_plays_on_after_its_gap() {
    let mut file = File::new(&MEDIA.header);
    let picture = &MEDIA.samples[0].payload;
    let frames: Vec<&Sample> = MEDIA.samples.iter().filter(|sample| sample.track == SOUND).collect();
    let mut expected = vec![];
    let mut add = |track, ms: i64, payload: &Vec<u8>| {
        file.add(&Sample { track, ns: ms * 1_000_000, payload: payload.clone() });
        expected.push((u64::from(track.get()) - 1, ms));
    };
    add(VIDEO, 0, picture);
    add(VIDEO, 5000, picture);
    // Sound that was held up arrives after newer pictures: within 3.2 s before its cluster, and beyond.
    add(SOUND, 4872, &frames[0].payload);
    add(SOUND, 1800, &frames[1].payload);
    add(SOUND, 128, &frames[2].payload);
    add(VIDEO, 5200, picture);
    on_disk(&file.finish(&[]), |path| {
        let told: Vec<(u64, i64)> =
            probe_packets(path).iter().map(|p| (p.0, (p.1 * 1000.0).round() as i64)).collect();
        assert_eq!(told, expected);
        run("mkvinfo", &[path]);
    });
}
