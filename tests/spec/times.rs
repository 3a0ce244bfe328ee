//! Times: on the wall, since boot, and simulated.

use super::*;

#[test]

fn wall_time_is_read_with_any_zone_and_written_in_utc_with_milliseconds() {
    for (text, written) in [
        ("2024-04-01T10:30:00.000Z", "2024-04-01T10:30:00.000Z"),
        ("2024-04-01T10:30:00Z", "2024-04-01T10:30:00.000Z"),
        ("2024-04-01T12:30:00.5+02:00", "2024-04-01T10:30:00.500Z"),
        ("2024-04-01T10:30:00.123456789Z", "2024-04-01T10:30:00.123Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
        ("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59.500Z"),
        ("2038-01-19T03:14:08Z", "2038-01-19T03:14:08.000Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.000Z"),
    ] {
        assert_eq!(time(text).to_string(), written, "{text}");
        assert_eq!(json!(time(text)), json!(written));
    }
    for text in ["", "now", "2024-04-01", "2024-04-01T10:30:00", "1711967400", "2024-02-30T00:00:00Z"] {
        let error = text.parse::<WallTime>().expect_err(text).to_string();
        assert!(error.contains("RFC 3339"), "{error}");
        assert!(serde_json::from_value::<WallTime>(json!(text)).is_err());
    }
    let long = "9".repeat(100_000);
    assert!(long.parse::<WallTime>().expect_err("no time").to_string().len() < 300);
}

#[test]
fn wall_time_stays_within_the_years_that_can_be_written() {
    let (first, last) = (WallTime::from_nanos(i128::MIN), WallTime::from_nanos(i128::MAX));
    assert!(first < last);
    assert_eq!(last + Duration::MAX, last);
    assert_eq!(first - Duration::MAX, first);
    assert_eq!(time(&last.to_string()).to_string(), last.to_string());
    assert_eq!(time(&first.to_string()).to_string(), first.to_string());
}

proptest! {
    #[test]
    fn wall_time_to_the_millisecond_survives_its_text(ms in -60_000_000_000_000_i64..250_000_000_000_000) {
        let at = WallTime::from_nanos(i128::from(ms) * 1_000_000);
        prop_assert_eq!(time(&at.to_string()), at);
    }

    #[test]
    fn no_text_and_no_json_makes_reading_a_session_panic(text in ".{0,80}", value in any_json()) {
        drop(text.parse::<WallTime>());
        drop(text.parse::<SessionId>());
        drop(SessionSpec::from_json(value.clone()));
        for pointer in ["/_id", "/name", "/meta", "/config", "/sources", "/sources/0", "/sources/0/id"] {
            let session = sample_with(pointer, value.clone());
            if let Ok(spec) = SessionSpec::from_json(session.clone()) {
                prop_assert!(spec.asks_the_same(&spec));
                prop_assert_eq!(Value::from(spec), session);
            }
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("(id|name|device|type|expires|removeMedia|_id|.{0,4})", inner, 0..6)
                .prop_map(|object| Value::Object(object.into_iter().collect())),
        ]
    })
}

#[test]
fn monotonic_time_neither_wraps_nor_runs_backwards() {
    let (early, late) = (MonoTime::from_nanos(1), MonoTime::from_nanos(u64::MAX));
    assert_eq!(late + Duration::from_nanos(1), late);
    assert_eq!(late + Duration::MAX, late);
    assert_eq!(early - Duration::MAX, MonoTime::from_nanos(0));
    assert_eq!(early - late, Duration::ZERO);
    assert_eq!(early.since(late), Duration::ZERO);
    assert_eq!(late.since(early), Duration::from_nanos(u64::MAX - 1));
    assert_eq!(json!(late), json!(u64::MAX));
}

#[test]
fn a_simulated_clock_moves_when_it_is_told_and_a_wall_step_moves_no_monotonic_time() {
    let clock = SimulatedClock::at(time("2024-05-01T11:30:00Z"));
    let began = clock.now();
    assert_eq!((clock.now(), clock.wall()), (began, time("2024-05-01T11:30:00Z")));
    clock.advance(Duration::from_millis(1500));
    assert_eq!(clock.now() - began, Duration::from_millis(1500));
    assert_eq!(clock.wall(), time("2024-05-01T11:30:01.500Z"));
    assert_eq!(clock.wall_at(began), time("2024-05-01T11:30:00Z"));
    assert_eq!(clock.wall_at(began + Duration::from_mins(1)), time("2024-05-01T11:31:00Z"));

    clock.step_wall(time("1970-01-01T00:00:00Z"));
    assert_eq!(clock.now() - began, Duration::from_millis(1500));
    assert_eq!(clock.wall_at(clock.now()), time("1970-01-01T00:00:00Z"));
    assert_eq!(clock.wall_at(began), time("1969-12-31T23:59:58.500Z"));
}

#[test]
fn the_system_clock_never_runs_backwards() {
    let first = SystemClock.now();
    assert!(first > MonoTime::default());
    assert!(SystemClock.now() >= first);
    assert!(SystemClock.wall() > time("2024-01-01T00:00:00Z"));
}
