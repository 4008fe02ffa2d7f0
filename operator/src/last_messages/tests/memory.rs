//! What is purged of the kept values.

use flutecast_contract::name::{ChannelName, IotId};
use flutecast_contract::stream_position::{Epoch, Sequence};

use super::channels;
use crate::last_messages::TenantChannels;
use crate::last_messages::memory::{Kept, Purge, TenantMemory};
use crate::tests::{Folder, manifests};

const EPOCH: Epoch = Epoch(1);

/// The channels of two Devices with the fixed ids `a` and `b`, each with `power` and `status`. `formats` are
/// those that exist.
fn declared(devices: &[&str], formats: &[&str]) -> TenantChannels {
    let mut folder = Folder::default();
    let mut yaml = vec![manifests::tenant("demo", "")];
    yaml.extend(formats.iter().map(|format| manifests::format(format)));
    for device in devices {
        let spec = format!(
            "tenant: demo\n  deviceCode: {device}\n  iotId: {device}\n  channels:\n  - {{name: power, \
             format: good}}\n  - {{name: status, format: other}}\n"
        );
        yaml.push(format!(
            "apiVersion: flutecast.io/v1alpha1\nkind: Device\nmetadata: {{name: {device}}}\nspec:\n  {spec}"
        ));
    }
    folder.load(&[("a.yaml", &yaml.join("---\n"))]);
    channels(&folder)
}

fn names(iot_id: &str, channel: &str) -> (IotId, ChannelName) {
    (IotId::new(iot_id).unwrap(), ChannelName::new(channel).unwrap())
}

fn memory(kept: &[(&str, &str)]) -> TenantMemory {
    let mut memory = TenantMemory::of(Epoch(9));
    for (iot_id, channel) in kept {
        let (iot_id, channel) = names(iot_id, channel);
        memory.entry(&iot_id, &channel).kept = Some(Kept { epoch: EPOCH, sequence: Sequence(5) });
    }
    memory
}

fn channel(iot_id: &str, channel: &str) -> Purge {
    let (iot_id, channel) = names(iot_id, channel);
    Purge::Channel(iot_id, channel)
}

#[test]
fn what_nobody_declares_is_purged() {
    let both = ["good", "other"];
    let memory = memory(&[("a", "power"), ("a", "status"), ("b", "power"), ("b", "gone")]);
    let all = declared(&["a", "b"], &both);
    assert_eq!(memory.undeclared(&all, &[], &[]), [channel("b", "gone")]);
    let one = declared(&["b"], &both);
    let device = Purge::Device(IotId::new("a").unwrap());
    assert_eq!(memory.undeclared(&one, &[], &[]), [device, channel("b", "gone")]);
    assert_eq!(one.gone_since(&all), [names("a", "power"), names("a", "status")]);
    // What may come back yet waits.
    let waiting = [names("a", "power"), names("a", "status"), names("b", "gone")];
    assert_eq!(memory.undeclared(&one, &[], &waiting), []);
    // It went and came again.
    assert_eq!(memory.undeclared(&all, &[names("b", "power")], &waiting), [channel("b", "power")]);
}

#[test]
fn a_channel_whose_format_is_missing_keeps_its_value() {
    let memory = memory(&[("a", "power"), ("a", "status")]);
    let all = declared(&["a"], &["good", "other"]);
    for formats in [&["good"][..], &[]] {
        let less = declared(&["a"], formats);
        assert_eq!(memory.undeclared(&less, &[], &[]), []);
        assert_eq!(less.gone_since(&all), []);
    }
}

#[test]
fn what_another_stream_had_is_purged() {
    let mut memory = memory(&[("a", "power"), ("a", "status"), ("b", "power")]);
    assert_eq!(memory.of_other_stream(EPOCH, Sequence(5)), []);
    assert_eq!(memory.of_other_stream(Epoch(2), Sequence(5)), [Purge::All]);
    assert_eq!(memory.of_other_stream(EPOCH, Sequence(4)), [Purge::All], "it was set back");
    let (iot_id, power) = names("b", "power");
    memory.entry(&iot_id, &power).kept = Some(Kept { epoch: Epoch(2), sequence: Sequence(1) });
    assert_eq!(memory.of_other_stream(EPOCH, Sequence(5)), [channel("b", "power")]);
    memory.purged(&channel("b", "power"));
    assert_eq!(memory.of_other_stream(EPOCH, Sequence(5)), []);
}
