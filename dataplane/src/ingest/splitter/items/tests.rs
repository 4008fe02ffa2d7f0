use flutecast_contract::document::{
    API_VERSION, ChannelDocument, Codec, DeliveryDocument, DeviceDocument, FieldDocument, FieldType,
    FormatDocument, ShardDocument, TenantSettings,
};
use flutecast_contract::name::{ChannelName, FormatName, SourceName, TenantName};

use super::*;
use crate::catalog::Catalog;

fn catalog() -> Arc<TenantCatalog> {
    let format = FormatName::new("f").unwrap();
    let field = FieldDocument {
        name: "n".to_owned(),
        pointer: Some("/n".to_owned()),
        kind: Some(FieldType::Number),
        ..FieldDocument::default()
    };
    let device = |code: &str, channel: &str| {
        let channel_document = ChannelDocument { format: format.clone(), stale_after_ms: None };
        Arc::new(DeviceDocument {
            code: DeviceCode::new(code).unwrap(),
            name: String::new(),
            labels: Arc::default(),
            channels: Arc::new([(ChannelName::new(channel).unwrap(), channel_document)].into()),
        })
    };
    let document = ShardDocument {
        api_version: API_VERSION.to_owned(),
        tenant: TenantName::new("acme").unwrap(),
        shard: 0,
        shards: 1,
        revision: String::new(),
        settings: Some(TenantSettings {
            display_name: String::new(),
            stream: "IOT_acme".to_owned(),
            max_clients: None,
            sources: Vec::new(),
        }),
        formats: [(
            format.clone(),
            FormatDocument {
                codec: Codec::Json,
                timestamp: None,
                delivery: DeliveryDocument::default(),
                record: None,
                when: None,
                fields: vec![field],
            },
        )]
        .into(),
        devices: [
            (IotId::new("a").unwrap(), device("FLEX-01", "counters")),
            (IotId::new("7").unwrap(), device("DIE-01", "counters")),
            (IotId::new("b").unwrap(), device("CORR-01", "telemetry")),
        ]
        .into(),
    };
    let (catalog, problems) = Catalog::build(vec![document], None);
    assert!(problems.is_empty(), "{problems:?}");
    Arc::clone(&catalog.tenants[&TenantName::new("acme").unwrap()])
}

fn layout(items: Option<&str>, kind: IdKind) -> Layout {
    Layout::new(&PayloadSourceDocument {
        name: SourceName::new("mes").unwrap(),
        stream: "SRC_acme_mes".to_owned(),
        consumer: "split".to_owned(),
        channel: ChannelName::new("counters").unwrap(),
        id_pointer: "/deviceId".to_owned(),
        id_kind: kind,
        items: items.map(str::to_owned),
    })
    .unwrap()
}

/// Expects items, written as `index:iotId:json`, and the reasons of skipped ones.
fn check(layout: &Layout, payload: &str, expected: &[&str], reasons: &[Skipped]) {
    let mut skipped = Vec::new();
    let catalog = catalog();
    let items = layout.split(payload.as_bytes(), &catalog, |reason| skipped.push(reason));
    let items: Vec<String> =
        items.iter().map(|item| format!("{}:{}:{}", item.index, item.iot_id, item.json)).collect();
    assert_eq!(
        (items.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), &*skipped),
        (expected, reasons),
        "{payload}"
    );
}

#[test]
fn items_go_to_their_devices_and_invalid_ones_are_skipped() {
    let layout = layout(Some("/readings"), IdKind::IotId);
    check(
        &layout,
        r#"{"sentAt":1,"readings":[ {"deviceId":"a","good":1} , 5, {"deviceId":7}, {"deviceId":null},
            {"deviceId":"x"}, {"deviceId":"b"}, {"deviceId":"a","good":2}]}"#,
        &[r#"0:a:{"deviceId":"a","good":1}"#, r#"2:7:{"deviceId":7}"#, r#"6:a:{"deviceId":"a","good":2}"#],
        &[Skipped::NoId, Skipped::NoId, Skipped::UnknownDevice, Skipped::NoSuchChannel],
    );
    check(&layout, r#"{"readings":[]}"#, &[], &[]);
    for none in [r#"{"readings":{}}"#, r#"{"readings":"[]"}"#, "{}", "[]", "1"] {
        check(&layout, none, &[], &[Skipped::NoItems]);
    }
    for malformed in
        ["", "{", r#"{"readings":[{"deviceId":"a"}]"#, r#"{"readings":[{"deviceId":}]}"#, "\u{0}"]
    {
        check(&layout, malformed, &[], &[Skipped::Malformed]);
    }
}

#[test]
fn message_without_an_array_is_one_item() {
    check(
        &layout(None, IdKind::DeviceCode),
        r#"{"deviceId":"FLEX-01"}"#,
        &[r#"0:a:{"deviceId":"FLEX-01"}"#],
        &[],
    );
    check(&layout(None, IdKind::DeviceCode), r#"{"deviceId":"a"}"#, &[], &[Skipped::UnknownDevice]);
    check(&layout(None, IdKind::IotId), r#"{"deviceId":"a.b"}"#, &[], &[Skipped::UnknownDevice]);
    check(&layout(Some(""), IdKind::IotId), r#"[{"deviceId":"a"}]"#, &[r#"0:a:{"deviceId":"a"}"#], &[]);
}

#[test]
fn number_of_items_is_bounded() {
    let payload = format!("[{}]", vec![r#"{"deviceId":"a"}"#; MAX_ITEMS + 3].join(","));
    let (mut skipped, catalog) = (Vec::new(), catalog());
    let layout = layout(Some(""), IdKind::IotId);
    assert_eq!(layout.split(payload.as_bytes(), &catalog, |reason| skipped.push(reason)).len(), MAX_ITEMS);
    assert_eq!(skipped, [Skipped::TooManyItems; 3]);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_split_without_panic(
        payload in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)
    ) {
        let catalog = catalog();
        layout(Some("/readings"), IdKind::IotId).split(&payload, &catalog, |_| {});
        layout(None, IdKind::IotId).split(&payload, &catalog, |_| {});
    }
}
