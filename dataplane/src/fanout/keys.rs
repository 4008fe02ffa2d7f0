//! The keys of what a hub holds. A key does not outlive its item, although places are used again.

slotmap::new_key_type! {
    /// Names one connected client of a hub.
    pub(crate) struct ClientKey;
    /// Names one watched channel of a hub.
    pub(crate) struct WatchKey;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_does_not_outlive_its_item() {
        let mut items = slotmap::SlotMap::<WatchKey, &str>::default();
        let first = items.insert("a");
        assert_eq!(items.remove(first), Some("a"));
        assert_eq!(items.remove(first), None);
        let second = items.insert("b");
        assert_eq!(items.get(first), None);
        assert_eq!(items.get(second), Some(&"b"));
        assert_eq!((items.len(), items.keys().collect::<Vec<_>>()), (1, vec![second]));
    }
}
