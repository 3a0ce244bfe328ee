//! Which device a source means: tables of hosts, configs and sources.

#[path = "resolve/wishes.rs"]
mod wishes;

use shutterd::session::device::{
    Address, DeviceKey, DeviceSpec, Fault, FaultOrder, FormatWish, FoundDevice, MediaType,
};
use shutterd::session::resolve::{ConfiguredDevice, Place, ResolveError, Traits, needs_no_search, resolve};
use shutterd::session::{SourceSpec, StartOptions};

const PATH_1: &str = "/dev/v4l/by-path/pci-0000:00:14.0-usb-0:1:1.0-video-index0";
const PATH_2: &str = "/dev/v4l/by-path/pci-0000:00:14.0-usb-0:2:1.0-video-index0";

fn camera(port: u8, name: &str) -> FoundDevice {
    FoundDevice {
        key: DeviceKey(format!("camera:usb-{port}")),
        name: name.to_owned(),
        media: MediaType::Video,
        node: format!("/dev/video{port}"),
        bus: format!("usb-{port}"),
        by_path: Some(if port == 1 { PATH_1 } else { PATH_2 }.to_owned()),
        by_id: Some(format!("/dev/v4l/by-id/usb-Maker_Cam_{port}-video-index0")),
        serial: Some(format!("SN{port}")),
        formats: Vec::new(),
    }
}

fn microphone(card: &str) -> FoundDevice {
    FoundDevice {
        key: DeviceKey(format!("microphone:{card}")),
        name: format!("{card} Analog"),
        media: MediaType::Audio,
        node: format!("hw:CARD={card},DEV=0"),
        bus: card.to_owned(),
        by_path: None,
        by_id: None,
        serial: None,
        formats: Vec::new(),
    }
}

/// Two cameras of different names, and a microphone.
fn host() -> Vec<FoundDevice> {
    vec![camera(1, "Integrated Webcam"), camera(2, "Table Cam"), microphone("PCH")]
}

fn alias(id: &str, name: &str, traits: Traits) -> ConfiguredDevice {
    configured(id, name, MediaType::Video, Place::Real(traits))
}

fn configured(id: &str, name: &str, media: MediaType, place: Place) -> ConfiguredDevice {
    ConfiguredDevice { id: id.to_owned(), name: name.to_owned(), media, place, wish: FormatWish::default() }
}

fn synthetic(id: &str, media: MediaType) -> ConfiguredDevice {
    configured(id, "", media, Place::Synthetic(Vec::new()))
}

fn by_path(path: &str) -> Traits {
    Traits { by_path: Some(path.to_owned()), ..Traits::default() }
}

fn source(name: &str, media: MediaType) -> SourceSpec {
    SourceSpec { id: "s1".to_owned(), name: name.to_owned(), media, device_id: None }
}

fn with_device(device_id: &str, media: MediaType) -> SourceSpec {
    SourceSpec { device_id: Some(device_id.to_owned()), ..source("any name", media) }
}

fn resolve_one(
    source: SourceSpec,
    configured: &[ConfiguredDevice],
    found: &[FoundDevice],
) -> Result<DeviceSpec, ResolveError> {
    resolve(&[source], &StartOptions::default(), configured, found).map(|mut devices| devices.remove(0))
}

fn key_of(
    source: SourceSpec,
    configured: &[ConfiguredDevice],
    found: &[FoundDevice],
) -> Result<String, ResolveError> {
    resolve_one(source, configured, found).map(|device| device.key.0)
}

#[test]
fn a_device_id_is_the_key_a_link_the_serial_the_node_or_the_id_of_the_config() {
    let config = [alias("front", "", by_path(PATH_2)), synthetic("demo", MediaType::Video)];
    let table = [
        ("camera:usb-2", "camera:usb-2"),
        (PATH_2, "camera:usb-2"),
        ("/dev/v4l/by-id/usb-Maker_Cam_2-video-index0", "camera:usb-2"),
        ("SN2", "camera:usb-2"),
        ("/dev/video2", "camera:usb-2"),
        ("front", "camera:usb-2"),
        ("SN1", "camera:usb-1"),
        ("demo", "virtual:demo"),
        ("virtual:demo", "virtual:demo"),
    ];
    for (device_id, key) in table {
        let found = key_of(with_device(device_id, MediaType::Video), &config, &host());
        assert_eq!(found.as_deref(), Ok(key), "{device_id}");
    }
}

#[test]
fn two_names_of_one_pipe_are_one_device() {
    let pipe = |id: &str, media, path: &str| ConfiguredDevice {
        place: Place::Pipe(path.to_owned()),
        ..synthetic(id, media)
    };
    let config = [
        pipe("wide", MediaType::Video, "/run/camera"),
        pipe("narrow", MediaType::Video, "/run//./camera"),
        pipe("sound", MediaType::Audio, "/run/camera"),
        pipe("other", MediaType::Video, "/run/camera2"),
    ];
    let key = |id, media| key_of(with_device(id, media), &config, &[]);
    assert_eq!(key("wide", MediaType::Video).as_deref(), Ok("pipe:/run/camera"));
    assert_eq!(key("narrow", MediaType::Video).as_deref(), Ok("pipe:/run/camera"));
    assert_eq!(key("sound", MediaType::Audio).as_deref(), Ok("pipe:/run/camera"));
    assert_eq!(key("other", MediaType::Video).as_deref(), Ok("pipe:/run/camera2"));
    let sources = [with_device("wide", MediaType::Video), with_device("sound", MediaType::Audio)];
    let twice = resolve(&sources, &StartOptions::default(), &config, &[]);
    assert!(matches!(twice, Err(ResolveError::Twice { .. })), "{twice:?}");
}

#[test]
fn a_device_id_that_is_not_there_is_missing_even_if_there_is_only_one_device() {
    for device_id in ["SN3", "Integrated Webcam", "", "/dev/video", "sn1", "front"] {
        let config = [alias("front", "", by_path(PATH_2))];
        let result =
            resolve_one(with_device(device_id, MediaType::Video), &config, &[camera(1, "Integrated Webcam")]);
        let Err(ResolveError::Missing { wanted, there, .. }) = result else {
            panic!("{device_id:?} is {result:?}");
        };
        assert_eq!(wanted, device_id);
        assert_eq!(there, "\"Integrated Webcam\" (camera:usb-1)");
    }
}

#[test]
fn a_name_is_the_alias_or_its_name_or_what_tells_the_hardware_or_the_drivers_name() {
    let config = [alias("front", "Front Door", by_path(PATH_2)), synthetic("demo", MediaType::Video)];
    let table = [
        ("front", "camera:usb-2"),
        ("Front Door", "camera:usb-2"),
        ("Table Cam", "camera:usb-2"),
        ("SN1", "camera:usb-1"),
        ("/dev/video1", "camera:usb-1"),
        ("Integrated Webcam", "camera:usb-1"),
        ("demo", "virtual:demo"),
    ];
    for (name, key) in table {
        let found = key_of(source(name, MediaType::Video), &config, &host());
        assert_eq!(found.as_deref(), Ok(key), "{name}");
    }
}

#[test]
fn the_only_device_of_a_kind_is_meant_by_any_name() {
    for name in ["", "Integrated Webcam", "PCH Analog", "what the browser called it"] {
        let found = key_of(source(name, MediaType::Audio), &[], &host());
        assert_eq!(found.as_deref(), Ok("microphone:PCH"), "{name:?}");
    }
}

#[test]
fn an_unknown_name_on_a_host_with_several_devices_is_ambiguous_and_lists_them() {
    for name in ["", "no such name", "integrated webcam"] {
        let error = key_of(source(name, MediaType::Video), &[], &host()).expect_err("two cameras fit");
        let candidates = r#""Integrated Webcam" (camera:usb-1), "Table Cam" (camera:usb-2)"#;
        assert_eq!(
            error,
            ResolveError::Ambiguous {
                source_id: "s1".to_owned(),
                wanted: name.to_owned(),
                candidates: candidates.to_owned()
            }
        );
        assert!(error.to_string().contains("deviceId"), "it says what to do: {error}");
    }
}

#[test]
fn a_host_without_a_device_of_the_kind_says_so() {
    let error = key_of(source("PCH Analog", MediaType::Audio), &[], &[camera(1, "Integrated Webcam")]);
    let error = error.expect_err("a camera is no microphone").to_string();
    assert!(error.contains("no such audio device"), "{error}");
    assert!(error.contains("there is none"), "{error}");
}

#[test]
fn a_device_of_the_wrong_kind_is_never_taken() {
    let config = [synthetic("tone", MediaType::Audio), alias("front", "", by_path(PATH_1))];
    for (device_id, media) in [
        ("tone", MediaType::Video),
        ("microphone:PCH", MediaType::Video),
        ("SN1", MediaType::Audio),
        ("front", MediaType::Audio),
    ] {
        let result = key_of(with_device(device_id, media), &config, &host());
        assert!(matches!(result, Err(ResolveError::Missing { .. })), "{device_id}: {result:?}");
    }
}

#[test]
fn identical_cameras_are_told_apart_by_an_alias_and_never_guessed() {
    let twins = [camera(1, "Cam"), camera(2, "Cam")];
    let result = key_of(source("Cam", MediaType::Video), &[], &twins);
    let Err(ResolveError::Ambiguous { candidates, .. }) = result else { panic!("{result:?}") };
    assert_eq!(candidates, r#""Cam" (camera:usb-1), "Cam" (camera:usb-2)"#);

    let left = [alias("left", "", by_path(PATH_1))];
    assert_eq!(key_of(source("left", MediaType::Video), &left, &twins).as_deref(), Ok("camera:usb-1"));
    let named = [alias("left", "Cam", by_path(PATH_1))];
    assert_eq!(key_of(source("Cam", MediaType::Video), &named, &twins).as_deref(), Ok("camera:usb-1"));
}

#[test]
fn an_alias_that_fits_two_cameras_is_ambiguous_and_lists_what_tells_them_apart() {
    let twins = [camera(1, "Cam"), camera(2, "Cam")];
    let vague = [alias("front", "Front", Traits { name: Some("Cam".to_owned()), ..Traits::default() })];
    for source in [source("front", MediaType::Video), with_device("front", MediaType::Video)] {
        let result = key_of(source, &vague, &twins);
        let Err(ResolveError::Ambiguous { candidates, .. }) = result else { panic!("{result:?}") };
        assert_eq!(candidates, r#""Front" (camera:usb-1), "Front" (camera:usb-2)"#);
    }
}

#[test]
fn an_alias_whose_device_is_gone_never_becomes_another_camera() {
    let config = [alias("front", "Integrated Webcam", by_path(PATH_2))];
    let only_the_other = [camera(1, "Integrated Webcam")];
    for name in ["front", "Integrated Webcam"] {
        let result = key_of(source(name, MediaType::Video), &config, &only_the_other);
        assert!(matches!(result, Err(ResolveError::Missing { .. })), "{name}: {result:?}");
    }
}

#[test]
fn a_source_without_a_name_never_means_a_device_without_one() {
    let nameless = [camera(1, ""), camera(2, "Cam")];
    let result = key_of(source("", MediaType::Video), &[], &nameless);
    assert!(matches!(result, Err(ResolveError::Ambiguous { .. })), "{result:?}");
}

#[test]
fn every_trait_that_is_given_must_fit() {
    let (one, two) = (camera(1, "Cam"), camera(2, "Cam"));
    let text = |text: &str| Some(text.to_owned());
    let table = [
        (Traits::default(), true, true),
        (Traits { name: text("Cam"), ..Traits::default() }, true, true),
        (Traits { name: text("cam"), ..Traits::default() }, false, false),
        (Traits { node: text("/dev/video1"), ..Traits::default() }, true, false),
        (by_path(PATH_1), true, false),
        (by_path("pci-0000:00:14.0-usb-0:2:1.0-video-index0"), false, true),
        (by_path("usb-2"), false, true),
        (by_path("video-index0"), false, false),
        (Traits { by_id: text("usb-Maker_Cam_1-video-index0"), ..Traits::default() }, true, false),
        (Traits { serial: text("SN2"), ..Traits::default() }, false, true),
        (Traits { name: text("Cam"), serial: text("SN2"), ..Traits::default() }, false, true),
        (Traits { node: text("/dev/video1"), serial: text("SN2"), ..Traits::default() }, false, false),
    ];
    for (traits, fits_one, fits_two) in table {
        assert_eq!((traits.fit(&one), traits.fit(&two)), (fits_one, fits_two), "{traits:?}");
    }
}

#[test]
fn two_sources_on_one_device_are_refused_whatever_they_call_it() {
    let named = |id: &str, source: SourceSpec| SourceSpec { id: id.to_owned(), ..source };
    let config = [alias("front", "", by_path(PATH_1))];
    let sources = [
        named("a", source("Table Cam", MediaType::Video)),
        named("b", source("front", MediaType::Video)),
        named("c", with_device("SN1", MediaType::Video)),
    ];
    let error = resolve(&sources, &StartOptions::default(), &config, &host());
    let twice = ResolveError::Twice {
        first: "b".to_owned(),
        second: "c".to_owned(),
        device: "Integrated Webcam".to_owned(),
    };
    assert_eq!(error, Err(twice));
}

#[test]
fn devices_come_in_the_order_of_the_sources() {
    let sources = [
        source("PCH Analog", MediaType::Audio),
        source("Table Cam", MediaType::Video),
        source("Integrated Webcam", MediaType::Video),
    ];
    let devices = resolve(&sources, &StartOptions::default(), &[], &host()).expect("all are there");
    let keys: Vec<_> = devices.iter().map(|device| device.key.0.as_str()).collect();
    assert_eq!(keys, ["microphone:PCH", "camera:usb-2", "camera:usb-1"]);
}

#[test]
fn a_real_device_has_the_address_that_must_still_be_true_when_it_is_opened() {
    let device = resolve_one(with_device("SN2", MediaType::Video), &[], &host()).expect("it is there");
    let by_id = host()[1].by_id.clone();
    let address = Address::Camera { node: "/dev/video2".to_owned(), bus: "usb-2".to_owned(), by_id };
    assert_eq!(device.address, address);
    let device = resolve_one(source("", MediaType::Audio), &[], &host()).expect("it is there");
    assert_eq!(device.address, Address::Microphone { pcm: "hw:CARD=PCH,DEV=0".to_owned() });
}

#[test]
fn a_virtual_device_has_the_address_of_the_config() {
    let faults = vec![FaultOrder { at_frame: 3, frames: 2, fault: Fault::Stall }];
    let table = [
        (Place::Synthetic(faults.clone()), Address::Synthetic { faults }),
        (
            Place::Replay { path: "/srv/a.mkv".to_owned(), again: true },
            Address::Replay { path: "/srv/a.mkv".to_owned(), again: true },
        ),
        (Place::Pipe("fd:3".to_owned()), Address::Pipe { path: "fd:3".to_owned() }),
    ];
    for (place, address) in table {
        let config = [configured("demo", "Demo Camera", MediaType::Video, place)];
        let device =
            resolve_one(with_device("demo", MediaType::Video), &config, &[]).expect("it is configured");
        assert_eq!((device.address, device.label.as_str()), (address, "Demo Camera"));
    }
}
