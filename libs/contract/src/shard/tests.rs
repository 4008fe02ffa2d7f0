use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::document::{
    ChannelDocument, Codec, DeliveryDocument, DeliveryPolicy, FieldDocument, FieldType, IdKind,
    InvalidDocument, PayloadSourceDocument, RecordDocument, TimestampDocument, TimestampUnit,
};
use crate::name::{ChannelName, DeviceCode, SourceName};

fn tenant() -> TenantName {
    TenantName::new("acme").unwrap()
}

fn settings() -> TenantSettings {
    TenantSettings {
        display_name: "Acme Packaging, Suzhou plant".into(),
        stream: "IOT_acme".into(),
        max_clients: Some(5000),
        sources: vec![PayloadSourceDocument {
            name: SourceName::new("mes").unwrap(),
            stream: "SRC_acme_mes".into(),
            consumer: "split".into(),
            channel: ChannelName::new("counters").unwrap(),
            id_pointer: "/deviceId".into(),
            id_kind: IdKind::IotId,
            items: Some("/readings".into()),
        }],
    }
}

/// Returns a format whose document has about this many bytes.
fn format(bytes: usize) -> FormatDocument {
    let field = FieldDocument {
        name: "speed".into(),
        pointer: Some(format!("/{}", "x".repeat(bytes))),
        kind: Some(FieldType::Number),
        scale: Some(0.1),
        ..FieldDocument::default()
    };
    FormatDocument {
        codec: Codec::Json,
        timestamp: None,
        delivery: DeliveryDocument::default(),
        record: None,
        when: None,
        fields: vec![field],
    }
}

fn formats(sizes: &[usize]) -> BTreeMap<FormatName, FormatDocument> {
    sizes.iter().enumerate().map(|(at, bytes)| (format_name(at), format(*bytes))).collect()
}

fn format_name(at: usize) -> FormatName {
    FormatName::new(&format!("format-{at}")).unwrap()
}

fn id(at: usize) -> IotId {
    IotId::new(&format!("d{at}")).unwrap()
}

fn device(at: usize, formats: &[usize]) -> Arc<DeviceDocument> {
    let channels = formats.iter().enumerate().map(|(channel, format)| {
        let name = ChannelName::new(&format!("channel{channel}")).unwrap();
        (name, ChannelDocument { format: format_name(*format), stale_after_ms: Some(10_000) })
    });
    Arc::new(DeviceDocument {
        code: DeviceCode::new(&format!("CORR-{at}")).unwrap(),
        name: format!("corrugator-{at}"),
        labels: Arc::new([("line".into(), "l1".into()), ("type".into(), "corrugator".into())].into()),
        channels: Arc::new(channels.collect()),
    })
}

const FULL: ShardLimits = ShardLimits { bytes: MAX_BYTES, shards: MAX_SHARDS };

/// Asserts the properties of every split.
fn check(
    limits: &ShardLimits,
    split: &TenantShards,
    formats: &BTreeMap<FormatName, FormatDocument>,
    devices: &BTreeMap<IotId, Arc<DeviceDocument>>,
) {
    let count = u32::try_from(split.shards.len()).unwrap();
    assert!(count.is_power_of_two() && count <= limits.shards);
    let mut found = BTreeMap::new();
    for (number, shard) in (0..).zip(&split.shards) {
        let yaml = shard.to_yaml().unwrap();
        assert!(yaml.len() <= limits.bytes, "shard {number} of {count} has {} bytes", yaml.len());
        assert_eq!(&ShardDocument::from_yaml(&yaml).unwrap(), shard);
        assert_eq!((shard.shard, shard.shards, shard.settings.is_some()), (number, count, number == 0));
        assert_eq!((shard.revision.len(), &shard.revision), (16, &revision(shard)));
        let used: BTreeSet<_> = shard
            .devices
            .values()
            .flat_map(|device| device.channels.values())
            .map(|channel| &channel.format)
            .collect();
        assert_eq!(shard.formats.keys().collect::<BTreeSet<_>>(), used);
        for (name, format) in &shard.formats {
            assert_eq!(format, &formats[name]);
        }
        for (iot_id, device) in &shard.devices {
            assert_eq!(shard_of(iot_id, count), number);
            assert!(found.insert(iot_id, device).is_none());
        }
    }
    for oversized in &split.oversized {
        assert!(oversized.bytes > limits.bytes);
        assert!(found.insert(&oversized.iot_id, &devices[&oversized.iot_id]).is_none());
    }
    assert_eq!(found, devices.iter().collect());
}

#[test]
fn a_tenant_without_devices_has_one_document() {
    let split = split(&tenant(), &settings(), &formats(&[10]), &BTreeMap::new());
    check(&FULL, &split, &BTreeMap::new(), &BTreeMap::new());
    let [shard] = split.shards.as_slice() else { panic!("{split:?}") };
    assert_eq!(
        shard.to_yaml().unwrap(),
        format!(
            "apiVersion: mapping.flutecast.io/v1
tenant: acme
shard: 0
shards: 1
revision: {}
settings:
  displayName: Acme Packaging, Suzhou plant
  stream: IOT_acme
  maxClients: 5000
  sources:
  - name: mes
    stream: SRC_acme_mes
    consumer: split
    channel: counters
    idPointer: /deviceId
    idKind: IotId
    items: /readings
",
            shard.revision
        )
    );
}

#[test]
fn ten_thousand_devices_fit() {
    let formats = formats(&[200, 400]);
    let devices: BTreeMap<_, _> = (0..10_000).map(|at| (id(at), device(at, &[at % 2, 0]))).collect();
    let first = split(&tenant(), &settings(), &formats, &devices);
    check(&FULL, &first, &formats, &devices);
    assert!(first.oversized.is_empty());
    assert!((4..=32).contains(&first.shards.len()), "{} shards", first.shards.len());

    // Adding a device changes one document.
    let mut more = devices.clone();
    more.insert(id(10_000), device(10_000, &[0]));
    let second = split(&tenant(), &settings(), &formats, &more);
    let changed =
        first.shards.iter().zip(&second.shards).filter(|(before, after)| before.revision != after.revision);
    assert_eq!((second.shards.len(), changed.count()), (first.shards.len(), 1));
}

#[test]
fn an_oversized_device_leaves_the_others_in() {
    let formats = formats(&[600_000, 300, 300_000, 300_000]);
    let mut devices: BTreeMap<_, _> = (0..100).map(|at| (id(at), device(at, &[1]))).collect();
    devices.insert(id(100), device(100, &[0]));
    devices.insert(id(101), device(101, &[2, 3]));
    let split = split(&tenant(), &settings(), &formats, &devices);
    check(&FULL, &split, &formats, &devices);
    assert_eq!(
        split.oversized.iter().map(|oversized| &oversized.iot_id).collect::<Vec<_>>(),
        [&id(100), &id(101)]
    );
    assert!(
        split.oversized[0].to_string().contains("bytes of a mapping document, which holds at most 524288")
    );
    assert_eq!(split.shards.len(), 1);
}

#[test]
fn documents_grow_in_number_until_large_formats_are_apart() {
    let formats = formats(&[300_000; 4]);
    let devices: BTreeMap<_, _> = (0..4).map(|at| (id(at), device(at, &[at]))).collect();
    let split = split(&tenant(), &settings(), &formats, &devices);
    check(&FULL, &split, &formats, &devices);
    assert!(split.oversized.is_empty() && split.shards.len() >= 4, "{}", split.shards.len());
}

#[test]
fn the_number_of_documents_is_bounded() {
    let limits = ShardLimits { bytes: 4_000, shards: 16 };
    // No two of these fit into one document.
    let formats = formats(&[2_500; 40]);
    let devices: BTreeMap<_, _> = (0..200).map(|at| (id(at), device(at, &[at % 40]))).collect();
    let split = split_within(&limits, &tenant(), &settings(), &formats, &devices);
    check(&limits, &split, &formats, &devices);
    assert_eq!(split.shards.len(), 16);
    assert!(!split.oversized.is_empty());
}

#[test]
fn the_revision_depends_on_the_content() {
    let devices: BTreeMap<_, _> = (0..3).map(|at| (id(at), device(at, &[0]))).collect();
    let revision = |settings: &TenantSettings, devices| {
        split(&tenant(), settings, &formats(&[10]), devices).shards[0].revision.clone()
    };
    let before = revision(&settings(), &devices);
    assert_eq!(before, revision(&settings(), &devices));
    assert_ne!(before, revision(&TenantSettings { max_clients: None, ..settings() }, &devices));
    assert_ne!(before, revision(&settings(), &devices.clone().into_iter().take(2).collect()));
}

#[test]
fn file_names() {
    for (name, shard, file) in
        [("acme", 0, "flutecast-acme-0.yaml"), ("plant-2", 17, "flutecast-plant-2-17.yaml")]
    {
        let tenant = TenantName::new(name).unwrap();
        assert_eq!(file_name(&tenant, shard), file);
        assert_eq!(parse_file_name(file), Some((tenant, shard)));
    }
    for other in [
        ACCESS_FILE,
        "",
        "flutecast-acme.yaml",
        "flutecast-acme-x.yaml",
        "flutecast-acme-01.yaml",
        "flutecast-acme-+1.yaml",
        "flutecast-acme--1.yaml",
        "flutecast--1.yaml",
        "flutecast-acme-4294967296.yaml",
        "flutecast-Acme-1.yaml",
        "flutecast-acme-1.yml",
        ".flutecast-acme-1.yaml",
        "flutecast-acme-1.yaml.tmp",
    ] {
        assert_eq!(parse_file_name(other), None, "{other}");
    }
}

#[test]
fn errors_say_what_is_invalid_in_a_document() {
    let good = split(&tenant(), &settings(), &BTreeMap::new(), &BTreeMap::new()).shards[0].to_yaml().unwrap();
    let without_settings: String = good.split_inclusive('\n').take(5).collect();
    for (text, expected) in [
        (
            good.replace("/v1", "/v2"),
            "apiVersion \"mapping.flutecast.io/v2\" is not known; this version reads",
        ),
        (good.replace("tenant: acme", "tenant: ACME"), "tenant name \"ACME\" is not valid"),
        (good.replace("tenant: acme\n", ""), "missing field `tenant`"),
        (good.replace("shard: 0", "shard: 1"), "there is no shard 1 of 1"),
        (good.replace("shard: 0\nshards: 1", "shard: 1\nshards: 2"), "only shard 0 has settings"),
        (without_settings, "shard 0 has no settings"),
        (good.replace("shard: 0", "shard: x"), "line 3"),
        (good.replace("shard: 0", "shard: [0"), "line"),
        (String::new(), "unexpected end of input"),
        ("x".repeat(5 << 20), "5242880 bytes long"),
    ] {
        let error = ShardDocument::from_yaml(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{}\n{error}", text.chars().take(300).collect::<String>());
    }
    // Fields of a later version are ignored.
    let later = good.replace("tenant: acme", "tenant: acme\ncolour: blue");
    assert!(ShardDocument::from_yaml(&later).is_ok());
}

mod access {
    use super::*;
    use crate::document::{AccessDocument, TenantAccess, TokenAccess, token_sha256};

    #[test]
    fn an_access_document_survives_its_text() {
        let token = TokenAccess {
            sha256: token_sha256("hunter2"),
            devices: Some(vec![DeviceCode::new("CORR-01").unwrap()]),
        };
        assert_eq!(token.sha256, "f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7");
        let acme = TenantAccess {
            anonymous: false,
            allowed_origins: vec!["https://screens.acme.example".into(), "*".into()],
            tokens: [("wall".into(), token)].into(),
        };
        let document = AccessDocument {
            api_version: API_VERSION.into(),
            tenants: [
                (tenant(), acme),
                (
                    TenantName::new("open").unwrap(),
                    TenantAccess { anonymous: true, ..TenantAccess::default() },
                ),
            ]
            .into(),
        };
        let yaml = document.to_yaml().unwrap();
        assert_eq!(AccessDocument::from_yaml(&yaml).unwrap(), document);
        assert_eq!(document.to_yaml().unwrap(), yaml);
        let later = yaml.replace("/v1", "/v2");
        assert!(matches!(AccessDocument::from_yaml(&later), Err(InvalidDocument::ApiVersion(_))));
    }

    #[test]
    fn errors_contain_no_secret() {
        for wrong in [
            "tenants: {acme: {anonymous: hunter2}}",
            "tenants: {acme: {tokens: {wall: hunter2}}}",
            "tenants: [hunter2",
            "tenants: {Hunter2: {}}",
        ] {
            let error = AccessDocument::from_yaml(&format!("apiVersion: {API_VERSION}\n{wrong}"))
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("line 2") && !error.to_lowercase().contains("hunter2"),
                "{wrong}: {error}"
            );
        }
    }
}

/// Strings that YAML could parse as another type, or that need quotes.
fn text() -> impl Strategy<Value = String> {
    const TRICKY: &[&str] = &[
        "",
        "~",
        "null",
        "true",
        "no",
        "1",
        "0x1f",
        "1e3",
        ".nan",
        "- a",
        "a: b",
        "# c",
        "'",
        "\"",
        "%",
        "@",
        "a\nb\n",
        " a ",
        "<<",
        "é\u{2028}",
        "\u{7f}\u{85}",
        "---",
        "\t",
    ];
    prop_oneof![
        prop::sample::select(TRICKY).prop_map(str::to_owned),
        "\\PC{0,12}",
        prop::collection::vec(any::<char>(), 0..6).prop_map(String::from_iter)
    ]
}

fn any_field() -> impl Strategy<Value = FieldDocument> {
    (
        text(),
        prop::option::of(text()),
        any::<[f64; 3]>(),
        any::<u8>(),
        prop::collection::btree_map(text(), text(), 0..3),
        any::<bool>(),
    )
        .prop_map(|(name, word, numbers, byte, values, flag)| {
            let finite = |value: f64| Some(value).filter(|value| value.is_finite());
            let kinds = [
                None,
                Some(FieldType::Number),
                Some(FieldType::String),
                Some(FieldType::Bool),
                Some(FieldType::Enum),
            ];
            FieldDocument {
                name,
                pointer: word.clone(),
                expression: word.clone().filter(|_| flag),
                kind: kinds[usize::from(byte) % 5],
                scale: finite(numbers[0]),
                offset: finite(numbers[1]),
                decimals: Some(byte),
                unit: word.clone(),
                deadband: finite(numbers[2]),
                values,
                otherwise: word,
                on_change: flag,
            }
        })
}

fn any_format() -> impl Strategy<Value = FormatDocument> {
    (
        prop::collection::vec(any_field(), 0..4),
        prop::option::of(text()),
        prop::option::of(any::<u64>()),
        any::<bool>(),
    )
        .prop_map(|(fields, word, number, flag)| FormatDocument {
            codec: Codec::Json,
            timestamp: word.clone().map(|pointer| TimestampDocument {
                pointer,
                unit: if flag { TimestampUnit::Rfc3339 } else { TimestampUnit::Milliseconds },
                max_age_ms: number,
                max_ahead_ms: number,
            }),
            delivery: DeliveryDocument {
                policy: if flag { DeliveryPolicy::Every } else { DeliveryPolicy::Latest },
                min_interval_ms: number,
            },
            record: flag.then_some(RecordDocument { expire_fields_ms: number }),
            when: word,
            fields,
        })
}

fn any_device() -> impl Strategy<Value = Arc<DeviceDocument>> {
    (
        "[A-Za-z0-9][A-Za-z0-9._:/-]{0,9}",
        text(),
        prop::collection::btree_map(text(), text(), 0..3),
        prop::collection::vec(0..4_usize, 0..4),
    )
        .prop_map(|(code, name, labels, formats)| {
            let code = DeviceCode::new(&code).unwrap();
            let channels = device(0, &formats).channels.clone();
            Arc::new(DeviceDocument { code, name, labels: labels.into(), channels })
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_set_survives_the_split(
        formats in prop::collection::vec(any_format(), 4),
        devices in prop::collection::btree_map("[A-Za-z0-9_-]{1,12}", any_device(), 0..12),
        display_name in text(),
        large in prop::option::of(1_000..4_000_usize),
        bytes in 2_000..8_000_usize,
    ) {
        let mut formats: BTreeMap<_, _> =
            formats.into_iter().enumerate().map(|(at, format)| (format_name(at), format)).collect();
        if let Some(bytes) = large {
            formats.insert(format_name(1), format(bytes));
            formats.insert(format_name(2), format(bytes));
        }
        let devices: BTreeMap<_, _> =
            devices.into_iter().map(|(id, device)| (IotId::new(&id).unwrap(), device)).collect();
        let settings = TenantSettings { display_name, ..settings() };
        let limits = ShardLimits { bytes, shards: 64 };
        let split = split_within(&limits, &tenant(), &settings, &formats, &devices);
        check(&limits, &split, &formats, &devices);
    }
}
