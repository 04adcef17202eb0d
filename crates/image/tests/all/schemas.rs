//! Every message: random canonical encodings survive, damaged ones are refused without harm.

use gelid_image::messages::{self, *};
use gelid_image::{Field, Kind, Label, Record, Schema, Show, WireError};
use proptest::prelude::*;
use prost::Message;

/// Random numbers out of a proptest input, so that failures shrink.
struct Entropy<'a>(std::slice::Iter<'a, u64>);

impl Entropy<'_> {
    /// A number, 0 once the input is used up.
    fn next(&mut self) -> u64 {
        self.0.next().copied().unwrap_or(0)
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The canonical encoding of a random message.
fn random(schema: &Schema, entropy: &mut Entropy<'_>, depth: u32) -> Vec<u8> {
    let mut fields: Vec<Field> = schema.fields().collect();
    fields.sort_by_key(|field| field.number);
    let mut out = Vec::new();
    for field in fields {
        let count = match field.label {
            Label::Required => 1,
            // Recursive types end somewhere.
            _ if depth > 4 => 0,
            Label::Optional => entropy.next() % 2,
            Label::Repeated => entropy.next() % 3,
        };
        for _ in 0..count {
            encode(&field, entropy, depth, &mut out);
        }
    }
    out
}

fn encode(field: &Field, entropy: &mut Entropy<'_>, depth: u32, out: &mut Vec<u8>) {
    let (wire_type, value) = match field.kind {
        Kind::Bool => (0, entropy.next() & 1),
        // The narrow types are sign-extended; a small number fits all of them.
        Kind::Int => (0, i64::from(entropy.next() as i32 >> 1).cast_unsigned()),
        Kind::Sint | Kind::Uint => (0, entropy.next() & 0xffff_ffff),
        Kind::Enum(names) => {
            let pick = entropy.next() as usize % names.len();
            (0, i64::from(names[pick].0).cast_unsigned())
        }
        Kind::Fixed64 => (1, entropy.next()),
        Kind::String | Kind::Text | Kind::Bytes | Kind::Message(_) => (2, 0),
    };
    varint(out, u64::from(field.number) << 3 | wire_type);
    let bytes = match field.kind {
        Kind::Fixed64 => return out.extend_from_slice(&value.to_le_bytes()),
        Kind::Message(nested) => random(nested(), entropy, depth + 1),
        Kind::String => format!("{:x}é", entropy.next()).into_bytes(),
        Kind::Text | Kind::Bytes => entropy.next().to_le_bytes().to_vec(),
        _ => return varint(out, value),
    };
    varint(out, bytes.len() as u64);
    out.extend_from_slice(&bytes);
}

fn any_schema() -> impl Strategy<Value = &'static Schema> {
    let all = messages::all_schemas();
    (0..all.len()).prop_map(move |index| all[index])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn canonical_encodings_survive(
        schema in any_schema(),
        entropy in prop::collection::vec(any::<u64>(), 0..200),
    ) {
        let bytes = random(schema, &mut Entropy(entropy.iter()), 0);
        schema.check(&bytes).unwrap();
        prop_assert_eq!(schema.canonical(&bytes).unwrap(), bytes.clone());
        let json = schema.to_json(&bytes).unwrap();
        for field in schema.fields().filter(|f| f.label == Label::Required) {
            prop_assert!(!json[field.name].is_null(), "{}", field.name);
        }
    }

    #[test]
    fn damage_never_panics(
        schema in any_schema(),
        entropy in prop::collection::vec(any::<u64>(), 0..100),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = random(schema, &mut Entropy(entropy.iter()), 0);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = value;
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        if schema.check(&bytes).is_ok()
            && let Ok(canonical) = schema.canonical(&bytes)
        {
            // What was accepted once is accepted again, and stays the same.
            schema.check(&canonical).unwrap();
            prop_assert_eq!(schema.canonical(&canonical).unwrap(), canonical.clone());
            schema.to_json(&canonical).unwrap();
        }
    }

    #[test]
    fn noise_never_panics(schema in any_schema(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = schema.check(&bytes);
        let _ = schema.to_json(&bytes);
        let _ = schema.canonical(&bytes);
    }
}

#[test]
fn every_required_field_is_missed() {
    for schema in messages::all_schemas() {
        let full = random(schema, &mut Entropy([].iter()), 0);
        schema.check(&full).unwrap();
        let required: Vec<_> = schema
            .fields()
            .filter(|f| f.label == Label::Required)
            .collect();
        let empty = schema.check(&[]);
        match required.first() {
            None => empty.unwrap(),
            Some(first) => assert_eq!(
                empty,
                Err(WireError::Missing {
                    message: schema.name,
                    field: first.name
                })
            ),
        }
    }
}

#[test]
fn field_numbers_are_distinct_and_few_enough_for_the_check() {
    for schema in messages::all_schemas() {
        let mut numbers: Vec<u32> = schema.fields().map(|f| f.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), schema.fields().len(), "{}", schema.name);
        assert!(schema.fields().len() <= 64, "{}", schema.name);
    }
}

#[test]
fn nesting_is_bounded() {
    // cgroup_dir_entry: dir_name = 1 (required), children = 2.
    let mut bytes = vec![0x0a, 0];
    for _ in 0..200 {
        let mut outer = vec![0x0a, 0, 0x12];
        varint(&mut outer, bytes.len() as u64);
        outer.extend_from_slice(&bytes);
        bytes = outer;
    }
    let refused = CgroupDirEntry::schema().check(&bytes);
    assert_eq!(
        refused,
        Err(WireError::TooDeep {
            message: "cgroup_dir_entry"
        })
    );
    assert!(CgroupDirEntry::schema().to_json(&bytes).is_err());
}

#[test]
fn required_zeros_are_written() {
    // Addresses of all zeros included: 11 numbers, exe_file_id.
    assert_eq!(MmEntry::default().encode_to_vec().len(), 12 * 2);
    assert_eq!(
        FownEntry::default().encode_to_vec(),
        [8, 0, 16, 0, 24, 0, 32, 0, 40, 0]
    );
}

#[test]
fn packed_lists_are_accepted_and_rewritten_unpacked() {
    // pstree_entry.threads = 5 packed.
    let packed = [8, 1, 16, 0, 24, 1, 32, 1, 0x2a, 2, 1, 2];
    let schema = PstreeEntry::schema();
    schema.check(&packed).unwrap();
    let plain = [8, 1, 16, 0, 24, 1, 32, 1, 0x28, 1, 0x28, 2];
    assert_eq!(schema.canonical(&packed).unwrap(), plain);
    assert_eq!(
        schema.to_json(&packed).unwrap(),
        schema.to_json(&plain).unwrap()
    );
}

#[test]
fn unknown_fields_are_shown() {
    // fs_entry with field 99 = 7.
    let mut bytes = FsEntry::default().encode_to_vec();
    varint(&mut bytes, 99 << 3);
    varint(&mut bytes, 7);
    FsEntry::schema().check(&bytes).unwrap();
    assert_eq!(
        FsEntry::schema().to_json(&bytes).unwrap()["unknown_99"],
        serde_json::json!([7])
    );
}

#[test]
fn display_options() {
    let vma = VmaEntry {
        start: 0x7f00_0000,
        prot: 5,
        flags: 0x1_0022,
        status: 0x201,
        fd: -1,
        ..Default::default()
    };
    let json = serde_json::to_value(&vma).unwrap();
    assert_eq!(json["start"], "0x7f000000");
    assert_eq!(json["prot"], "PROT_READ | PROT_EXEC");
    assert_eq!(json["flags"], "MAP_PRIVATE | MAP_ANON | 0x10000");
    assert_eq!(json["status"], "VMA_AREA_REGULAR | VMA_ANON_PRIVATE");
    assert_eq!(json["fd"], -1);

    let socket = InetSkEntry {
        family: 2,
        r#type: 1,
        proto: 6,
        state: 10,
        src_addr: vec![16_777_343],
        dst_addr: vec![0, 0, 0, 0x0100_0000],
        ..Default::default()
    };
    let json = serde_json::to_value(&socket).unwrap();
    assert_eq!(json["family"], "INET");
    assert_eq!(json["state"], "LISTEN");
    assert_eq!(json["src_addr"], "127.0.0.1");
    assert_eq!(json["dst_addr"], "::1");

    let unix = UnixSkEntry {
        name: b"\0chat\xff".to_vec(),
        ..Default::default()
    };
    assert_eq!(serde_json::to_value(&unix).unwrap()["name"], "@chat\\xff");
    let tty = TtyInfoEntry {
        rdev: 34817,
        ..Default::default()
    };
    assert_eq!(serde_json::to_value(&tty).unwrap()["rdev"], "136:1");
    let device = MntEntry {
        root_dev: 8 << 20 | 3,
        ..Default::default()
    };
    assert_eq!(serde_json::to_value(&device).unwrap()["root_dev"], "8:3");
}

#[test]
fn every_display_option_fits_its_type() {
    for field in messages::all_schemas().iter().flat_map(|s| s.fields()) {
        let fits = match field.show {
            Show::Plain => true,
            Show::SocketName => matches!(field.kind, Kind::Bytes),
            Show::Ip => field.label == Label::Repeated,
            _ => matches!(
                field.kind,
                Kind::Uint | Kind::Fixed64 | Kind::Int | Kind::Bytes
            ),
        };
        assert!(fits, "{}", field.name);
    }
}
