//! Which format is asked for, and when the host need not be searched at all.

use super::*;

#[test]
fn the_format_is_the_sessions_wish_over_the_configs_over_the_devices_choice() {
    let mut front = alias("front", "", by_path(PATH_1));
    front.wish = FormatWish {
        width: Some(1280),
        height: Some(720),
        frame_rate: Some(30.0),
        pixel_format: Some("MJPG".to_owned()),
        ..FormatWish::default()
    };
    let asked =
        FormatWish { frame_rate: Some(15.0), pixel_format: Some("YUYV".to_owned()), ..FormatWish::default() };
    let of_another = FormatWish { width: Some(1), ..FormatWish::default() };
    let options = StartOptions {
        formats: vec![("s1".to_owned(), asked), ("s2".to_owned(), of_another)],
        ..StartOptions::default()
    };
    let devices = resolve(&[source("front", MediaType::Video)], &options, &[front], &host());
    let expected = FormatWish {
        width: Some(1280),
        height: Some(720),
        frame_rate: Some(15.0),
        pixel_format: Some("YUYV".to_owned()),
        sample_rate: None,
        channels: None,
    };
    assert_eq!(devices.expect("it is there")[0].wish, expected);
}

#[test]
fn of_several_names_for_one_device_the_one_that_is_used_says_the_format() {
    let sized = |id: &str, name: &str, width| {
        let wish = FormatWish { width: Some(width), ..FormatWish::default() };
        ConfiguredDevice { wish, ..alias(id, name, by_path(PATH_1)) }
    };
    let config = [sized("large", "Large", 1920), sized("small", "Small", 320)];
    let (video, options) = (MediaType::Video, StartOptions::default());
    for (wanted, label, width) in [
        (with_device("large", video), "Large", 1920),
        (with_device("small", video), "Small", 320),
        (source("large", video), "Large", 1920),
        (source("Small", video), "Small", 320),
        // By what tells the hardware: as the last of its names has it.
        (with_device(PATH_1, video), "Small", 320),
    ] {
        let devices =
            resolve(std::slice::from_ref(&wanted), &options, &config, &host()).expect("it is there");
        assert_eq!((devices[0].label.as_str(), devices[0].wish.width), (label, Some(width)), "{wanted:?}");
    }
    let both =
        [with_device("large", video), SourceSpec { id: "s2".to_owned(), ..with_device("small", video) }];
    let twice = resolve(&both, &options, &config, &host()).expect_err("it is one device");
    assert!(matches!(twice, ResolveError::Twice { .. }), "{twice}");
}

#[test]
fn the_host_needs_no_search_only_if_every_source_names_a_virtual_device_by_its_id() {
    let config = [
        synthetic("demo", MediaType::Video),
        synthetic("tone", MediaType::Audio),
        alias("front", "", by_path(PATH_1)),
    ];
    let (video, audio) = (MediaType::Video, MediaType::Audio);
    let table = [
        (vec![], true),
        (vec![with_device("demo", video)], true),
        (vec![with_device("demo", video), with_device("tone", audio)], true),
        (vec![with_device("demo", video), with_device("front", video)], false),
        (vec![with_device("demo", audio)], false),
        (vec![with_device("unknown", video)], false),
        (vec![source("demo", video)], false),
    ];
    for (sources, expected) in table {
        assert_eq!(needs_no_search(&sources, &config), expected, "{sources:?}");
        if expected {
            let found = resolve(&sources, &StartOptions::default(), &config, &[]);
            assert!(found.is_ok(), "{found:?}");
        }
    }
}
