//! Which fields a message lacks. This is a slow path.

use super::{FieldSource, Program};
use crate::json::Matches;

impl Program {
    /// Returns the names of the fields whose pointer matches nothing in a payload that has others. Empty if it
    /// has none at all, or can't be read: [`Program::apply`] says that.
    #[must_use]
    pub fn lacking_fields(&self, payload: &[u8]) -> Vec<&str> {
        let mut found = Matches::default();
        let Ok(text) = self.pointers.find(payload, &mut found) else { return Vec::new() };
        let (mut lacking, mut has_others) = (Vec::new(), false);
        for (field, info) in self.fields.iter().zip(&self.infos) {
            let FieldSource::Raw(raw) = &field.source else { continue };
            if self.pointers.value_at(raw.pointer, text, &found).is_some() {
                has_others = true;
            } else {
                lacking.push(info.name.as_str());
            }
        }
        if has_others { lacking } else { Vec::new() }
    }
}
