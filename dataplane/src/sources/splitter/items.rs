//! From a message of a source to the items in it: pure, without I/O.

use std::sync::Arc;

use flutecast_contract::document::{IdKind, PayloadSourceDocument};
use flutecast_contract::name::{DeviceCode, IotId};
use flutecast_format::json::{Found, InvalidPointer, Pointer, Pointers, Value, elements};

use crate::catalog::{Device, TenantCatalog};

/// How many items of one message are taken; the rest is counted and skipped.
pub(super) const MAX_ITEMS: usize = 10_000;

/// How the messages of a source are split.
#[derive(Debug)]
pub(super) struct Layout {
    id: Pointers,
    items: Option<Pointers>,
    kind: IdKind,
    channel: flutecast_contract::name::ChannelName,
}

/// One item that is to be stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item<'a> {
    /// Its number in the message, from 0.
    pub(super) index: usize,
    /// Whose it is.
    pub(super) iot_id: IotId,
    /// The item as it is written in the message.
    pub(super) json: &'a str,
}

/// Why a message, or an item of it, is skipped. A closed set, used as a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Skipped {
    /// The message is not JSON.
    Malformed,
    /// There is no array where the source says.
    NoItems,
    /// The message has more items than are taken.
    TooManyItems,
    /// The item names no device.
    NoId,
    /// The item names a device that the mapping doesn't have.
    UnknownDevice,
    /// The device has no such channel.
    NoSuchChannel,
}

impl Skipped {
    /// All reasons.
    pub(super) const ALL: [Self; 6] = [
        Self::Malformed,
        Self::NoItems,
        Self::TooManyItems,
        Self::NoId,
        Self::UnknownDevice,
        Self::NoSuchChannel,
    ];

    /// The reason as a label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "Malformed",
            Self::NoItems => "NoItems",
            Self::TooManyItems => "TooManyItems",
            Self::NoId => "NoId",
            Self::UnknownDevice => "UnknownDevice",
            Self::NoSuchChannel => "NoSuchChannel",
        }
    }
}

impl Layout {
    pub(super) fn new(source: &PayloadSourceDocument) -> Result<Self, InvalidPointer> {
        let id: Pointer = source.id_pointer.parse()?;
        let items = source.items.as_deref().map(str::parse::<Pointer>).transpose()?;
        Ok(Self {
            id: Pointers::new([&id]),
            items: items.map(|items| Pointers::new([&items])),
            kind: source.id_kind,
            channel: source.channel.clone(),
        })
    }

    /// The items of a message, in order. `skipped` is told of everything that is not taken.
    pub(super) fn split<'a>(
        &self,
        payload: &'a [u8],
        catalog: &TenantCatalog,
        mut skipped: impl FnMut(Skipped),
    ) -> Vec<Item<'a>> {
        let mut found = Found::default();
        let whole = self.items.as_ref().unwrap_or(&self.id).find(payload, &mut found);
        let Ok(whole) = whole else {
            skipped(Skipped::Malformed);
            return Vec::new();
        };
        let Some(items) = &self.items else {
            return self.item(0, whole, catalog, &mut found).map_err(skipped).into_iter().collect();
        };
        let Some(Value::Container(array)) = items.value_at(0, whole, &found).filter(is_array) else {
            skipped(Skipped::NoItems);
            return Vec::new();
        };
        let mut taken = Vec::new();
        for (index, json) in elements(array).enumerate() {
            if index >= MAX_ITEMS {
                skipped(Skipped::TooManyItems);
                continue;
            }
            match self.item(index, json, catalog, &mut found) {
                Ok(item) => taken.push(item),
                Err(reason) => skipped(reason),
            }
        }
        taken
    }

    fn item<'a>(
        &self,
        index: usize,
        json: &'a str,
        catalog: &TenantCatalog,
        found: &mut Found,
    ) -> Result<Item<'a>, Skipped> {
        self.id.find(json.as_bytes(), found).map_err(|_| Skipped::Malformed)?;
        let mut buffer = String::new();
        let id = match self.id.value_at(0, json, found) {
            Some(Value::Text(text)) => text.resolve(&mut buffer).ok_or(Skipped::NoId)?,
            // Some systems number their machines.
            Some(Value::Number(number)) => number,
            _ => return Err(Skipped::NoId),
        };
        let device = self.device(id, catalog).ok_or(Skipped::UnknownDevice)?;
        if !device.channels.contains_key(&self.channel) {
            return Err(Skipped::NoSuchChannel);
        }
        Ok(Item { index, iot_id: device.iot_id.clone(), json })
    }

    fn device<'c>(&self, id: &str, catalog: &'c TenantCatalog) -> Option<&'c Arc<Device>> {
        match self.kind {
            IdKind::IotId => catalog.devices.get(&IotId::new(id).ok()?),
            IdKind::DeviceCode => catalog.by_code.get(&DeviceCode::new(id).ok()?),
        }
    }
}

fn is_array(value: &Value<'_>) -> bool {
    matches!(value, Value::Container(text) if text.starts_with('['))
}

#[cfg(test)]
#[path = "items_tests.rs"]
mod tests;
