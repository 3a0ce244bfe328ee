//! The config: what it takes, in which order, and that each error says where and what to do.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shutterd::config::{ConfigError, LogFormat, Overrides, Settings, SoundCodec, load_with};
use shutterd::session::device::{Fault, FaultOrder, FormatWish, MediaType};
use shutterd::session::resolve::{Place, Traits};

const SHIPPED: &str = include_str!("../config/shutterd.toml");

/// Loads `text` as `shutterd.toml` with variables and flags.
fn load(text: &str, variables: &[(&str, &str)], flags: &Overrides) -> Result<Settings, ConfigError> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("shutterd.toml");
    std::fs::write(&path, text).expect("the file is written");
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    load_with(Some(&path), variables, flags)
}

fn file(text: &str) -> Result<Settings, ConfigError> {
    load(text, &[], &Overrides::default())
}

/// The error's text; of one in the file, from the line number on.
fn error_of(result: Result<Settings, ConfigError>) -> String {
    let text = result.expect_err("this config is refused").to_string();
    match text.split_once("shutterd.toml:") {
        Some((_, rest)) => rest.to_owned(),
        None => text,
    }
}

fn uncommented(text: &str) -> String {
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let settings = file("").expect("an empty file is a config");
    assert_eq!(settings, Settings::default());
    assert_eq!(settings.state_dir, Path::new("/var/lib/shutterd"));
    assert_eq!(settings.media_dir, Path::new("/var/lib/shutterd/media"));
    assert_eq!(settings.api.tcp, Some("127.0.0.1:7460".parse().expect("an address")));
    assert_eq!(settings.api.token_path, Path::new("/var/lib/shutterd/operator.token"));
    assert_eq!(settings.http.listen, Some("127.0.0.1:7461".parse().expect("an address")));
    assert_eq!((settings.http.calls_max, settings.http.window), (120, Duration::from_secs(60)));
    assert_eq!((settings.media.file_mode, settings.media.dir_mode), (0o640, 0o750));
    assert_eq!(settings.media.sound, SoundCodec::Flac);
    assert_eq!(settings.limits.drain, Duration::from_secs(10));
    assert_eq!(settings.limits.max_duration, Some(Duration::from_secs(24 * 3600)));
    assert_eq!((settings.media.group, settings.worker.path), (None, None));
}

#[test]
fn the_shipped_file_as_it_is_and_with_all_keys_uncommented_gives_the_defaults() {
    assert_eq!(file(SHIPPED).expect("the shipped file"), Settings::default());
    let keys = SHIPPED.split("# Devices:").next().expect("a split has a first part");
    let set = uncommented(keys);
    assert!(set.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count() >= 30);
    assert_eq!(file(&set).expect("the shipped keys"), Settings::default());
}

#[test]
fn the_example_devices_of_the_shipped_file_are_valid() {
    let settings = file(&uncommented(SHIPPED)).expect("the shipped examples");
    let ids: Vec<&str> = settings.devices.iter().map(|device| device.id.as_str()).collect();
    assert_eq!(ids, ["front", "desk-mic", "pattern", "tone", "recorded", "network-camera"]);
}

#[test]
fn the_environment_goes_before_the_file_and_flags_before_both() {
    let text = "state_dir = \"/from/file\"\n[api]\ntcp = \"127.0.0.1:1\"\n[limits]\nsessions_max = 3\n[log]\nlevel = \"warn\"\n";
    let variables = [
        ("SHUTTERD__STATE_DIR", "/from/variable"),
        ("SHUTTERD__API__TCP", "127.0.0.1:2"),
        ("SHUTTERD__LIMITS__SESSIONS_MAX", "5"),
        ("SHUTTERD_LOG", "not ours"),
        ("PATH", "/bin"),
    ];
    let only_file = file(text).expect("the file");
    assert_eq!((only_file.limits.sessions_max, only_file.log.level.as_str()), (3, "warn"));
    let both = load(text, &variables, &Overrides::default()).expect("file and variables");
    assert_eq!(both.state_dir, Path::new("/from/variable"));
    assert_eq!(both.api.tcp, Some("127.0.0.1:2".parse().expect("an address")));
    assert_eq!((both.limits.sessions_max, both.log.level.as_str()), (5, "warn"));
    let flags = Overrides {
        state_dir: Some(PathBuf::from("/from/flag")),
        runtime_dir: Some(PathBuf::from("relative/run")),
        tcp: Some("off".to_owned()),
        log_level: Some("shutterd::link=trace,error".to_owned()),
        ..Overrides::default()
    };
    let all = load(text, &variables, &flags).expect("all layers");
    assert_eq!(all.state_dir, Path::new("/from/flag"));
    assert_eq!(all.media_dir, Path::new("/from/flag/media"));
    assert_eq!(all.api.token_path, Path::new("/from/flag/operator.token"));
    assert!(all.runtime_dir.is_absolute() && all.runtime_dir.ends_with("relative/run"));
    assert_eq!((all.api.tcp, all.limits.sessions_max), (None, 5));
    assert_eq!(all.log.level, "shutterd::link=trace,error");
}

#[test]
fn a_text_of_the_environment_is_kept_as_it_is() {
    let variables = [
        ("SHUTTERD__MEDIA__FILE_MODE", "0600"),
        ("SHUTTERD__MEDIA__GROUP", "1e5"),
        ("SHUTTERD__API__TCP", ""),
    ];
    let settings = load("", &variables, &Overrides::default()).expect("texts");
    assert_eq!((settings.media.file_mode, settings.media.group.as_deref()), (0o600, Some("1e5")));
    assert_eq!(settings.api.tcp, None);
}

#[test]
fn a_named_file_must_exist_and_a_directory_is_none() {
    let error = load_with(Some(Path::new("/nowhere/shutterd.toml")), [], &Overrides::default());
    assert!(matches!(error, Err(ConfigError::Unreadable { .. })), "{error:?}");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let error = load_with(Some(dir.path()), [], &Overrides::default());
    assert!(matches!(error, Err(ConfigError::Unreadable { .. })), "{error:?}");
}

/// Bad files, and what their error says from the line number on.
const BAD_KEYS: &[(&str, &str)] = &[
    ("\n\n[limits]\ndrain_timeout_ms = 0", "4: limits.drain_timeout_ms is 0: use 100 to 600000"),
    ("[limits]\ndrain_timeout_ms = -5", "2: limits.drain_timeout_ms is -5: use 100 to 600000"),
    (
        "[limits]\ndrain_timeout_ms = 1.5",
        "2: limits.drain_timeout_ms is the number 1.5: write a whole number, 100 to 600000",
    ),
    (
        "[limits]\ndrain_timeout_ms = \"500\"",
        "2: limits.drain_timeout_ms is the text \"500\": write a whole number, 100 to 600000",
    ),
    (
        "[limits]\ndrain_timeout_ms = true",
        "2: limits.drain_timeout_ms is the boolean true: write a whole number, 100 to 600000",
    ),
    (
        "[media]\nfile_mode = 640",
        "2: media.file_mode is the number 640: write octal permissions in quotes, like \"0640\"",
    ),
    (
        "[media]\nfile_mode = \"0666\"",
        "2: media.file_mode is \"0666\": use octal permissions with all of \"0600\" and nothing beyond \"0664\"",
    ),
    (
        "[media]\ndir_mode = \"0680\"",
        "2: media.dir_mode is \"0680\": use octal permissions with all of \"0700\" and nothing beyond \"2775\"",
    ),
    ("[media]\nsound = \"mp3\"", "2: media.sound is \"mp3\": use \"flac\" or \"pcm\""),
    ("[log]\nlevel = 3", "2: log.level is the number 3: write a level"),
    ("[log]\nlevel = \"inof\"", "2: log.level is \"inof\": use a level"),
    ("state_dir = \"here\"", "1: state_dir is \"here\": use an absolute path"),
    ("[api]\ntcp = \"0.0.0.0:7460\"", "2: api.tcp is \"0.0.0.0:7460\": use a loopback address"),
    ("[http]\nlisten = \"0.0.0.0:7461\"", "2: http.listen is \"0.0.0.0:7461\": use a loopback address"),
    ("[http]\ncalls_max = 0", "2: http.calls_max is 0: use 1 to 1000000"),
    ("[api]\ntcp = \"localhost:7460\"", "2: api.tcp is \"localhost:7460\": use an address with a port"),
    ("[limits]\ndrain_ms = 5", "2: there is no key limits.drain_ms: there are limits.sessions_max"),
    ("\nlimit = 5", "2: there is no key limit: there are state_dir"),
    ("[limit]\ndrain_timeout_ms = 5", "1: there is no key limit: there are state_dir"),
    ("\"limits.sessions_max\" = 5", "1: there is no key limits.sessions_max: there are state_dir"),
    ("limits = 5", "1: limits is the number 5: write a section"),
    ("[limits.sessions_max]\na = 1", "1: limits.sessions_max is a table: write a whole number"),
    ("devices = 5", "1: devices is the number 5: write [[devices]]"),
    ("[devices]\nid = \"a\"", "1: devices is a table: write [[devices]]"),
    ("\n[limits]\na b", "3: this is not TOML:"),
    ("[log]\nlevel = \"info\"\nlevel = \"warn\"", "3: this is not TOML: duplicate key"),
    ("[limits]\nsessions_max = 99999999999999999999", "2: this is not TOML:"),
    ("state_dir = 2026-05-01", "1: this is not TOML: 2026-05-01 is a date"),
];

#[test]
fn each_bad_file_is_refused_with_its_line_and_what_would_do() {
    let whole = file("[limits]\ndrain_timeout_ms = 0").expect_err("it is refused").to_string();
    assert!(
        whole.ends_with("/shutterd.toml:2: limits.drain_timeout_ms is 0: use 100 to 600000 (milliseconds)")
    );
    for (text, expected) in BAD_KEYS {
        let error = error_of(file(text));
        assert!(error.starts_with(expected), "{text:?} gave {error:?}, not {expected:?}");
    }
}

#[test]
fn a_runtime_directory_too_long_for_a_socket_is_refused() {
    let error = error_of(file(&format!("runtime_dir = \"/{}\"", "r".repeat(80))));
    assert!(error.contains("at most 80 bytes"), "{error}");
}

#[test]
fn each_bad_variable_is_refused_by_its_name() {
    let variables = [
        ("SHUTTERD__LIMITS__DRAIN_TIMEOUT_MS", "0", "limits.drain_timeout_ms is 0: use 100"),
        ("SHUTTERD__LIMITS__DRAIN_TIMEOUT_MS", "1e4", "limits.drain_timeout_ms is the text \"1e4\": write"),
        ("SHUTTERD__LIMITS__DRAIN_TIMEOUT_MS", "+500", "limits.drain_timeout_ms is the text \"+500\": write"),
        ("SHUTTERD__LIMITS__DRAIN_MS", "5", "there is no key limits.drain_ms: there are limits."),
        ("SHUTTERD__LIMITS", "5", "there is no key limits: there are state_dir"),
        ("SHUTTERD__limits__drain_timeout_ms", "500", "there is no key"),
        ("SHUTTERD__STATE_DIR__X", "5", "there is no key state_dir.x: there are state_dir"),
        ("SHUTTERD__DEVICES", "[]", "there is no key devices: devices are set in the file only"),
    ];
    for (name, value, expected) in variables {
        let error = error_of(load("", &[(name, value)], &Overrides::default()));
        let expected = format!("environment variable {name}: {expected}");
        assert!(error.starts_with(&expected), "{name}={value} gave {error:?}, not {expected:?}");
    }
}

#[test]
fn a_variable_that_is_not_utf_8_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let variable = (OsString::from("SHUTTERD__MEDIA__GROUP"), OsString::from_vec(vec![0xff]));
    let other = (OsString::from_vec(vec![0xfe]), OsString::from_vec(vec![0xff]));
    let error = load_with(Some(Path::new("/dev/null")), [other, variable], &Overrides::default());
    assert!(error_of(error).starts_with("environment variable SHUTTERD__MEDIA__GROUP: media.group is"));
}

#[test]
fn a_bad_flag_is_refused_by_its_name() {
    let flags = Overrides { tcp: Some("192.0.2.1:80".to_owned()), ..Overrides::default() };
    let error = error_of(load("", &[], &flags));
    assert!(error.starts_with("flag --tcp: api.tcp is \"192.0.2.1:80\": use a loopback address"), "{error}");
}

#[test]
fn devices_are_read_with_everything_they_say() {
    let settings = file(
        r#"
        [[devices]]
        id = "front"
        name = "Front camera"
        kind = "camera"
        match = { name = "HD Webcam", serial = "1A2B" }
        width = 1280
        height = 720
        frame_rate = 29.97
        pixel_format = "MJPG"
        [[devices]]
        id = "tone"
        kind = "synthetic"
        media = "audio"
        sample_rate = 48000
        channels = 2
        faults = [{ at_frame = 0, frames = 7, fault = "vanish" }]
        [[devices]]
        id = "pipe"
        kind = "pipe"
        media = "video"
        path = "fd:3"
        frame_rate = 25
        "#,
    )
    .expect("three devices");
    let [front, tone, pipe] = settings.devices.as_slice() else { panic!("{:?}", settings.devices) };
    let traits =
        Traits { name: Some("HD Webcam".to_owned()), serial: Some("1A2B".to_owned()), ..Traits::default() };
    assert_eq!(
        (front.id.as_str(), front.name.as_str(), front.media),
        ("front", "Front camera", MediaType::Video)
    );
    assert_eq!(front.place, Place::Real(traits));
    let wish = FormatWish {
        width: Some(1280),
        height: Some(720),
        frame_rate: Some(29.97),
        pixel_format: Some("MJPG".to_owned()),
        ..FormatWish::default()
    };
    assert_eq!(front.wish, wish);
    assert_eq!(
        tone.place,
        Place::Synthetic(vec![FaultOrder { at_frame: 0, frames: 7, fault: Fault::Vanish }])
    );
    assert_eq!(
        (tone.media, tone.wish.sample_rate, tone.wish.channels),
        (MediaType::Audio, Some(48_000), Some(2))
    );
    assert_eq!((&pipe.place, pipe.wish.frame_rate), (&Place::Pipe("fd:3".to_owned()), Some(25.0)));
}

/// What is wrong behind a virtual camera of four lines, and what the error says from the line number on.
const BAD_PATTERNS: &[(&str, &str)] = &[
    (
        "[[devices]]\nid = \"a\"\nkind = \"pipe\"\nmedia = \"video\"\npath = \"/a\"",
        "6: device id \"a\" is there twice, first at ",
    ),
    ("colour = 1", "5: there is no key devices[0].colour: there are id"),
    (
        "width = \"640\"",
        "5: devices[0].width is the text \"640\": write a whole number, 16 to 16384 (pixels)",
    ),
    ("width = 4", "5: devices[0].width is 4: use 16 to 16384 (pixels)"),
    ("frame_rate = nan", "5: devices[0].frame_rate is NaN: use 0.1 to 1000 (frames a second)"),
    ("pixel_format = \"MJPEG\"", "5: devices[0].pixel_format is \"MJPEG\": use a V4L2 four-character code"),
    (
        "channels = 1",
        "5: devices[0].channels is given: it means nothing here, where this device delivers video",
    ),
    ("loop = true", "5: devices[0].loop is given: it means nothing here, where kind is \"synthetic\""),
    (
        "faults = [\n{ at_frame = 1, frames = 0, fault = \"stall\" }]",
        "6: devices[0].faults[0].frames is 0: use 1 to",
    ),
    (
        "faults = [{ at_frame = 1, frames = 1, fault = \"burn\" }]",
        "5: devices[0].faults[0].fault is \"burn\": use one of \"stall\"",
    ),
    ("faults = [{ frames = 1, fault = \"stall\" }]", "5: devices[0].faults[0].at_frame is missing"),
];

/// Bad devices, and what their error says from the line number on.
const BAD_DEVICES: &[(&str, &str)] = &[
    ("[[devices]]\nid = \"a\"", "1: devices[0].kind is missing: write one of \"camera\""),
    ("[[devices]]\nkind = \"camera\"\nmatch = { name = \"x\" }", "1: devices[0].id is missing"),
    ("[[devices]]\nid = \"\"\nkind = \"pipe\"\nmedia = \"audio\"", "1: devices[0].id is missing"),
    (
        "[[devices]]\nid = \"a\"\nkind = \"scanner\"",
        "3: devices[0].kind is \"scanner\": use one of \"camera\"",
    ),
    (
        "[[devices]]\nid = \"a\"\nkind = \"camera\"",
        "1: devices[0].match is missing: write at least one of name",
    ),
    (
        "[[devices]]\nid = \"a\"\nkind = \"camera\"\nmatch = {}",
        "4: devices[0].match is empty: give at least one of name",
    ),
    (
        "[[devices]]\nid = \"a\"\nkind = \"camera\"\nmatch = { model = \"x\" }",
        "4: there is no key devices[0].match.model",
    ),
    (
        "[[devices]]\nid = \"a\"\nkind = \"camera\"\nmedia = \"audio\"",
        "4: devices[0].media is \"audio\": a camera delivers something else",
    ),
    ("[[devices]]\nid = \"a\"\nkind = \"pipe\"", "1: devices[0].media is missing"),
    (
        "[[devices]]\nid = \"a\"\nkind = \"pipe\"\nmedia = \"audio\"\npath = \"here\"",
        "5: devices[0].path is \"here\": use an absolute path, or \"fd:N\"",
    ),
    (
        "[[devices]]\nid = \"a\"\nkind = \"pipe\"\nmedia = \"audio\"\npath = \"fd:0\"",
        "5: devices[0].path is \"fd:0\": use an absolute path, or \"fd:N\" with an N from 3",
    ),
    ("devices = [3]", "1: devices[0] is the number 3: write a table of id"),
];

#[test]
fn each_bad_device_is_refused_with_its_line_and_what_would_do() {
    let pattern = "[[devices]]\nid = \"a\"\nkind = \"synthetic\"\nmedia = \"video\"\n";
    let patterns = BAD_PATTERNS.iter().map(|(text, expected)| (format!("{pattern}{text}"), expected));
    let others = BAD_DEVICES.iter().map(|(text, expected)| ((*text).to_owned(), expected));
    for (text, expected) in patterns.chain(others) {
        let error = error_of(file(&text));
        assert!(error.starts_with(expected), "{text:?} gave {error:?}, not {expected:?}");
    }
}

#[test]
fn too_many_devices_and_too_long_files_are_refused() {
    let many: String = (0..65)
        .map(|at| format!("[[devices]]\nid = \"d{at}\"\nkind = \"synthetic\"\nmedia = \"video\"\n"))
        .collect();
    assert!(error_of(file(&many)).contains("at most 64 devices"));
    let long = file(&"# comment\n".repeat(200_000));
    assert!(matches!(long, Err(ConfigError::TooLong { .. })), "{long:?}");
}

#[test]
fn formats_and_codecs_are_read() {
    let settings = file(
        "[log]\nformat = \"json\"\n[media]\nsound = \"pcm\"\n[limits]\nmax_duration_hours = 0\n[api]\ntcp = \"[::1]:0\"",
    );
    let settings = settings.expect("a config");
    assert_eq!((settings.log.format, settings.media.sound), (LogFormat::Json, SoundCodec::Pcm));
    assert_eq!(settings.limits.max_duration, None);
    assert_eq!(settings.api.tcp, Some("[::1]:0".parse().expect("an address")));
}
