//! From a message of a source to its items: pure, without I/O.

use std::sync::Arc;

use flutecast_contract::document::{IdKind, PayloadSourceDocument};
use flutecast_contract::name::{ChannelName, DeviceCode, IotId};
use flutecast_format::json::{InvalidPointer, Matches, Pointer, Pointers, RawValue, elements};
use prometheus_client::encoding::EncodeLabelValue;

use crate::catalog::{Device, TenantCatalog};

/// The most items of one message that are stored; the rest is counted and skipped.
pub(super) const MAX_ITEMS: usize = 10_000;

/// The places of the items, and of the ids of their devices, in a source's messages.
#[derive(Debug)]
pub(super) struct Layout {
    id: Pointers,
    items: Option<Pointers>,
    kind: IdKind,
    channel: ChannelName,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct SourceItem<'a> {
    /// Its index in the message, from 0.
    pub(super) index: usize,
    pub(super) iot_id: IotId,
    /// The item as written in the message.
    pub(super) json: &'a str,
}

/// Why a message, or an item of it, is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Skipped {
    /// The message is not JSON.
    Malformed,
    /// The message has no array at the source's pointer.
    NoItems,
    /// The message has more than [`MAX_ITEMS`].
    TooManyItems,
    /// The item names no device.
    NoId,
    /// The item names a device that is not in the mapping.
    UnknownDevice,
    /// The device doesn't have the source's channel.
    NoSuchChannel,
}

impl Skipped {
    pub(super) const ALL: [Self; 6] = [
        Self::Malformed,
        Self::NoItems,
        Self::TooManyItems,
        Self::NoId,
        Self::UnknownDevice,
        Self::NoSuchChannel,
    ];
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

    /// Returns the items of a message in order; calls `skipped` for everything else.
    pub(super) fn split<'a>(
        &self,
        payload: &'a [u8],
        catalog: &TenantCatalog,
        mut skipped: impl FnMut(Skipped),
    ) -> Vec<SourceItem<'a>> {
        let mut found = Matches::default();
        let whole = self.items.as_ref().unwrap_or(&self.id).find(payload, &mut found);
        let Ok(whole) = whole else {
            skipped(Skipped::Malformed);
            return Vec::new();
        };
        let Some(items) = &self.items else {
            return self.item(0, whole, catalog, &mut found).map_err(skipped).into_iter().collect();
        };
        let Some(RawValue::Container(array)) = items.value_at(0, whole, &found).filter(is_array) else {
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
        found: &mut Matches,
    ) -> Result<SourceItem<'a>, Skipped> {
        self.id.find(json.as_bytes(), found).map_err(|_| Skipped::Malformed)?;
        let mut buffer = String::new();
        let id = match self.id.value_at(0, json, found) {
            Some(RawValue::String(text)) => text.resolve(&mut buffer).ok_or(Skipped::NoId)?,
            // Some systems identify their machines by numbers.
            Some(RawValue::Number(number)) => number,
            _ => return Err(Skipped::NoId),
        };
        let device = self.device(id, catalog).ok_or(Skipped::UnknownDevice)?;
        if !device.channels.contains_key(&self.channel) {
            return Err(Skipped::NoSuchChannel);
        }
        Ok(SourceItem { index, iot_id: device.iot_id.clone(), json })
    }

    fn device<'c>(&self, id: &str, catalog: &'c TenantCatalog) -> Option<&'c Arc<Device>> {
        match self.kind {
            IdKind::IotId => catalog.devices.get(&IotId::new(id).ok()?),
            IdKind::DeviceCode => catalog.by_code.get(&DeviceCode::new(id).ok()?),
        }
    }
}

fn is_array(value: &RawValue<'_>) -> bool {
    matches!(value, RawValue::Container(text) if text.starts_with('['))
}

#[cfg(test)]
mod tests;
