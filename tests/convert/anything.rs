//! Any object, and any number in it, there and back.

use super::*;

fn any_key() -> impl Strategy<Value = String> {
    let known = proptest::sample::select(vec![
        "_id",
        "name",
        "type",
        "state",
        "timestamp",
        "duration",
        "config",
        "removeMedia",
        "sources",
        "id",
        "device",
        "deviceId",
        "meta",
        "expires",
        "healthCheck",
        "workerState",
        "product",
        "user",
        "version",
        "extra_json",
        "extraJson",
        "",
    ]);
    prop_oneof![3 => known.prop_map(str::to_owned), 1 => ".{0,6}"]
}

fn any_number() -> impl Strategy<Value = Number> {
    let written = prop_oneof![
        "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        any::<i64>().prop_map(|integer| integer.to_string()),
        (-1.0e6..1.0e6).prop_map(|double: f64| double.to_string()),
        any::<f64>()
            .prop_filter("JSON has no other numbers", |double| double.is_finite())
            .prop_map(|double| double.to_string()),
    ];
    written.prop_map(|literal| serde_json::from_str(&literal).expect("the strategy writes numbers"))
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any_number().prop_map(Value::Number),
        ".{0,12}".prop_map(Value::String),
    ];
    leaf.prop_recursive(3, 48, 6, |inner| {
        let object = proptest::collection::vec((any_key(), inner.clone()), 0..6)
            .prop_map(|members| members.into_iter().collect::<Map<_, _>>())
            .boxed();
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(Value::Array),
            proptest::collection::vec(object.clone(), 0..4)
                .prop_map(|list| list.into_iter().map(Value::Object).collect()),
            object.prop_map(Value::Object),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    /// Also in its last bit: a file's tags and a receipt out of the journal tell the same gap.
    #[test]
    fn any_seconds_of_a_gap_come_back_equal(start_seconds in 0.0..1e6, duration_seconds in 0.0..1e3) {
        let gap = Gap { start_seconds, duration_seconds, missed: 0, reason: GapReason::Stalled };
        let text = serde_json::to_string(&gap).expect("it is JSON");
        prop_assert_eq!(serde_json::from_str::<Gap>(&text).expect("it reads"), gap);
    }

    #[test]
    fn any_object_comes_back_equal(members in proptest::collection::vec((any_key(), any_value()), 0..12)) {
        let session: Map<String, Value> = members.into_iter().collect();
        prop_assert_eq!(there_and_back(&session), session);
    }
}
