//! The public proto: everything in it is explained, and it only grows. What was released stays as it is,
//! name, number and kind, since callers were built with it.
//!
//! `tests/data/agent-v1.snapshot` lists what callers may rely on, a line each. A change that adds something
//! adds its lines: `cargo test --test proto` names those that are missing, and
//! `SHUTTERD_EXTEND_SNAPSHOT=1 cargo test --test proto` appends them. A line is never changed or removed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use prost_types::{FileDescriptorProto, ServiceDescriptorProto};

const PACKAGE: &str = "shutterd.v1";
const EXTEND_VARIABLE: &str = "SHUTTERD_EXTEND_SNAPSHOT";

fn agent() -> FileDescriptorProto {
    let set = FileDescriptorSet::decode(shutterd::api::proto::FILE_DESCRIPTOR_SET).expect("it is compiled");
    set.file.into_iter().find(|file| file.package() == PACKAGE).expect("the package is in it")
}

/// A line for each thing that a caller may rely on.
fn lines(file: &FileDescriptorProto) -> BTreeSet<String> {
    assert!(file.message_type.iter().all(|message| message.nested_type.is_empty()), "nothing is nested");
    let messages = file.message_type.iter().flat_map(message_lines);
    let enums = file.enum_type.iter().flat_map(enum_lines);
    messages.chain(enums).chain(file.service.iter().flat_map(rpc_lines)).collect()
}

fn message_lines(message: &DescriptorProto) -> Vec<String> {
    let own = format!("message {}", message.name());
    let field = |field: &FieldDescriptorProto| {
        let label = match field.label() {
            Label::Repeated => "repeated",
            Label::Required => "required",
            Label::Optional if field.proto3_optional() => "optional",
            Label::Optional => "single",
        };
        let (name, number, kind) = (field.name(), field.number(), kind_of(field));
        format!("field {}.{name} {number} {kind} {label} {}", message.name(), field.json_name())
    };
    std::iter::once(own).chain(message.field.iter().map(field)).collect()
}

fn kind_of(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        plain => plain.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

fn enum_lines(one: &EnumDescriptorProto) -> Vec<String> {
    let value = |name: &str, number: i32| format!("value {}.{name} {number}", one.name());
    one.value.iter().map(|it| value(it.name(), it.number())).collect()
}

fn rpc_lines(service: &ServiceDescriptorProto) -> Vec<String> {
    let stream = |is_one: bool| if is_one { "stream " } else { "" };
    let rpc = |it: &prost_types::MethodDescriptorProto| {
        let (from, to) = (it.input_type().trim_start_matches('.'), it.output_type().trim_start_matches('.'));
        let (asked, answered) = (stream(it.client_streaming()), stream(it.server_streaming()));
        format!("rpc {}.{} {asked}{from} {answered}{to}", service.name(), it.name())
    };
    service.method.iter().map(rpc).collect()
}

fn snapshot_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/agent-v1.snapshot")
}

/// What is in the snapshot and not in the proto, and what is in the proto and not in the snapshot.
fn differences(snapshot: &str, file: &FileDescriptorProto) -> (Vec<String>, Vec<String>) {
    let (known, present) = (snapshot.lines().map(str::to_owned).collect::<BTreeSet<_>>(), lines(file));
    (known.difference(&present).cloned().collect(), present.difference(&known).cloned().collect())
}

#[test]
fn the_proto_only_grows() {
    let path = snapshot_path();
    let snapshot = std::fs::read_to_string(&path).expect("the snapshot is there");
    let (gone, new) = differences(&snapshot, &agent());
    assert!(gone.is_empty(), "callers rely on this, and it is gone or changed:\n{}", gone.join("\n"));
    if std::env::var_os(EXTEND_VARIABLE).is_some() {
        let longer: String =
            snapshot.lines().chain(new.iter().map(String::as_str)).flat_map(|it| [it, "\n"]).collect();
        return std::fs::write(&path, longer).expect("the snapshot can be written");
    }
    assert!(
        new.is_empty(),
        "this is new, and from now on callers rely on it; {EXTEND_VARIABLE}=1 cargo test --test proto adds it:\n{}",
        new.join("\n")
    );
}

type Change = fn(&mut FileDescriptorProto);

#[test]
fn what_is_renamed_renumbered_retyped_or_removed_is_found() {
    let whole: String = lines(&agent()).iter().flat_map(|line| [line, "\n"]).collect();
    let changes: [(Change, &str); 7] = [
        (|file| file.message_type[0].field[0].name = Some("identity".to_owned()), "field Session.id 1 "),
        (|file| file.message_type[0].field[0].number = Some(99), "field Session.id 1 "),
        (|file| file.message_type[0].field[0].json_name = Some("id".to_owned()), "field Session.id 1 "),
        (|file| file.message_type[0].field[0].set_type(Type::Bytes), "field Session.id 1 "),
        (|file| file.message_type[0].field[0].set_label(Label::Repeated), "field Session.id 1 "),
        (|file| file.enum_type[0].value[1].number = Some(9), "value StopMode.STOP_MODE_DRAIN 1"),
        (|file| drop(file.service[0].method.remove(0)), "rpc CaptureAgent.StartSession "),
    ];
    for (change, line) in changes {
        let mut file = agent();
        change(&mut file);
        let (gone, _) = differences(&whole, &file);
        assert!(gone.len() == 1 && gone[0].starts_with(line), "{line}: {gone:?}");
    }
}

/// What has no comment, by its path in the descriptor (descriptor.proto, SourceCodeInfo).
fn unexplained(file: &FileDescriptorProto) -> Vec<String> {
    let mut wanted: Vec<(Vec<i32>, String)> = vec![];
    let place = |at: usize| i32::try_from(at).expect("a file is short");
    for (at, message) in file.message_type.iter().enumerate() {
        wanted.push((vec![4, place(at)], message.name().to_owned()));
        let fields = message.field.iter().enumerate();
        wanted.extend(fields.map(|(n, it)| (vec![4, place(at), 2, place(n)], it.name().to_owned())));
    }
    for (at, one) in file.enum_type.iter().enumerate() {
        wanted.push((vec![5, place(at)], one.name().to_owned()));
        let values = one.value.iter().enumerate();
        wanted.extend(values.map(|(n, it)| (vec![5, place(at), 2, place(n)], it.name().to_owned())));
    }
    for (at, service) in file.service.iter().enumerate() {
        wanted.push((vec![6, place(at)], service.name().to_owned()));
        let rpcs = service.method.iter().enumerate();
        wanted.extend(rpcs.map(|(n, it)| (vec![6, place(at), 2, place(n)], it.name().to_owned())));
    }
    let told = file.source_code_info.as_ref().expect("comments are compiled in");
    let explained: BTreeSet<&[i32]> = told
        .location
        .iter()
        .filter(|it| it.leading_comments().trim().len() > 3)
        .map(|it| it.path.as_slice())
        .collect();
    wanted.retain(|(path, _)| !explained.contains(path.as_slice()));
    wanted.into_iter().map(|(path, name)| format!("{name} {path:?}")).collect()
}

#[test]
fn every_message_field_value_and_rpc_has_a_comment() {
    let mut file = agent();
    assert_eq!(unexplained(&file), Vec::<String>::new());
    let told = file.source_code_info.as_mut().expect("comments are compiled in");
    told.location.retain(|it| it.path != [4, 0, 2, 0]);
    assert_eq!(unexplained(&file), ["id [4, 0, 2, 0]"], "a comment that is missing is found");
}
