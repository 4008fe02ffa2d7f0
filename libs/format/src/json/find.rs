//! Walks a payload once and notes where each pointer points.

use super::pointer::Pointer;
use super::scan::{InvalidJson, MAX_DEPTH, Scanner};
use super::text::RawString;

/// A node that leads to no pointer of interest.
const NOWHERE: u32 = u32::MAX;

/// The root of the tree: the payload as a whole.
const ROOT: u32 = 0;

/// A set of pointers, as a tree of their tokens.
#[derive(Debug)]
pub struct Pointers {
    /// Each node stands after its parent.
    nodes: Vec<PointerNode>,
    /// The node of each pointer, in the order in which they were given.
    targets: Vec<u32>,
}

#[derive(Debug, Default)]
struct PointerNode {
    parent: u32,
    children: Vec<Child>,
}

#[derive(Debug)]
struct Child {
    key: Box<str>,
    /// The key as an index of an array, if it is one (`0`, `12`, not `01`).
    index: Option<usize>,
    node: u32,
}

/// Where the pointers point in one payload. Keep it and use it again: it is the memory of the walk.
#[derive(Debug, Default)]
pub struct Matches {
    slots: Vec<Slot>,
    stack: Vec<OpenContainer>,
    key: String,
    tick: u64,
}

/// What was last seen at a node.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    kind: JsonKind,
    start: usize,
    end: usize,
    /// When the walk entered the value. A value that an object's repeated key replaces takes what is inside
    /// with it: that was seen inside an earlier value than the one that counts.
    entered: u64,
    /// When it entered the value around it.
    inside: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum JsonKind {
    #[default]
    Missing,
    Null,
    True,
    False,
    Number,
    Plain,
    Escaped,
    Container,
}

#[derive(Debug, Clone, Copy)]
struct OpenContainer {
    object: bool,
    node: u32,
    /// In an array, the index of the element; in an object, the child that is expected next, since devices
    /// send their keys in the same order each time.
    next: usize,
}

/// What a pointer points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawValue<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it is written.
    Number(&'a str),
    /// A string.
    String(RawString<'a>),
    /// An array or an object, as it is written.
    Container(&'a str),
}

impl Pointers {
    /// Builds the tree.
    #[must_use]
    pub fn new<'p>(pointers: impl IntoIterator<Item = &'p Pointer>) -> Self {
        let mut tree = Self { nodes: vec![PointerNode::default()], targets: Vec::new() };
        for pointer in pointers {
            let target = pointer.tokens().fold(ROOT, |node, token| tree.child(node, token));
            tree.targets.push(target);
        }
        tree
    }

    fn child(&mut self, parent: u32, key: &str) -> u32 {
        let children = &self.nodes[parent as usize].children;
        if let Some(child) = children.iter().find(|child| &*child.key == key) {
            return child.node;
        }
        let node = u32::try_from(self.nodes.len()).unwrap_or(NOWHERE);
        let canonical = key == "0" || !key.starts_with('0') && key.bytes().all(|b| b.is_ascii_digit());
        let index = if canonical { key.parse().ok() } else { None };
        self.nodes.push(PointerNode { parent, children: Vec::new() });
        self.nodes[parent as usize].children.push(Child { key: key.into(), index, node });
        node
    }

    /// Reads `payload` from its first byte to its last, and returns it as text.
    ///
    /// # Errors
    /// [`InvalidJson`] if the whole of it is not one JSON text.
    pub fn find<'a>(&self, payload: &'a [u8], found: &mut Matches) -> Result<&'a str, InvalidJson> {
        let text =
            std::str::from_utf8(payload).map_err(|error| InvalidJson { offset: error.valid_up_to() })?;
        found.slots.clear();
        found.slots.resize(self.nodes.len(), Slot::default());
        found.stack.clear();
        found.tick = 0;
        let mut scanner = Scanner::new(text);
        let mut node = ROOT;
        loop {
            self.value(&mut scanner, node, found)?;
            match self.next(&mut scanner, text, found)? {
                Some(next) => node = next,
                None => break,
            }
        }
        if scanner.peek().is_some() {
            return scanner.malformed();
        }
        self.forget_replaced(found);
        Ok(text)
    }

    /// Goes past the value that starts here, or into it if it is an array or an object.
    fn value(&self, scanner: &mut Scanner<'_>, node: u32, found: &mut Matches) -> Result<(), InvalidJson> {
        let Some(first) = scanner.peek() else { return scanner.malformed() };
        let start = scanner.position();
        let kind = match first {
            b'{' | b'[' => {
                if found.stack.len() == MAX_DEPTH {
                    return scanner.malformed();
                }
                scanner.advance();
                // The first key or element has nothing before it; `next` finds it by the count.
                found.stack.push(OpenContainer { object: first == b'{', node, next: usize::MAX });
                JsonKind::Container
            }
            b'"' if scanner.string()? => JsonKind::Escaped,
            b'"' => JsonKind::Plain,
            b't' => scanner.literal("true").map(|()| JsonKind::True)?,
            b'f' => scanner.literal("false").map(|()| JsonKind::False)?,
            b'n' => scanner.literal("null").map(|()| JsonKind::Null)?,
            _ => scanner.number().map(|()| JsonKind::Number)?,
        };
        if node != NOWHERE {
            found.tick += 1;
            let parent = self.nodes[node as usize].parent;
            let inside = if node == ROOT { 0 } else { found.slots[parent as usize].entered };
            let end = scanner.position();
            found.slots[node as usize] = Slot { kind, start, end, entered: found.tick, inside };
        }
        Ok(())
    }

    /// Goes on to where the next value starts, out of arrays and objects that end here; none at the end of
    /// the text. Tells the node of that value.
    fn next(
        &self,
        scanner: &mut Scanner<'_>,
        text: &str,
        found: &mut Matches,
    ) -> Result<Option<u32>, InvalidJson> {
        loop {
            let Some(frame) = found.stack.last_mut() else { return Ok(None) };
            let Some(byte) = scanner.peek() else { return scanner.malformed() };
            let first = frame.next == usize::MAX;
            if byte == if frame.object { b'}' } else { b']' } {
                scanner.advance();
                if let Some(slot) = found.slots.get_mut(frame.node as usize) {
                    slot.end = scanner.position();
                }
                found.stack.pop();
                continue;
            }
            if first {
                frame.next = 0;
            } else {
                if byte != b',' {
                    return scanner.malformed();
                }
                scanner.advance();
            }
            return if frame.object {
                self.key(scanner, text, frame, &mut found.key).map(Some)
            } else {
                let index = frame.next;
                frame.next += 1;
                Ok(Some(self.element(frame.node, index)))
            };
        }
    }

    fn element(&self, node: u32, index: usize) -> u32 {
        let children = self.nodes.get(node as usize).map_or(&[][..], |node| &node.children);
        children.iter().find(|child| child.index == Some(index)).map_or(NOWHERE, |child| child.node)
    }

    fn key(
        &self,
        scanner: &mut Scanner<'_>,
        text: &str,
        frame: &mut OpenContainer,
        buffer: &mut String,
    ) -> Result<u32, InvalidJson> {
        scanner.peek();
        let start = scanner.position() + 1;
        let escaped = scanner.string()?;
        let raw = &text[start..scanner.position() - 1];
        scanner.expect(b':')?;
        let Some(node) = self.nodes.get(frame.node as usize) else { return Ok(NOWHERE) };
        // A key that is not Unicode is nobody's key.
        let Some(key) = (RawString { raw, escaped }).resolve(buffer) else { return Ok(NOWHERE) };
        let (before, after) = node.children.split_at(frame.next.min(node.children.len()));
        let found = after.iter().chain(before).position(|child| &*child.key == key);
        Ok(found.map_or(NOWHERE, |distance| {
            let at = (frame.next + distance) % node.children.len();
            frame.next = at + 1;
            node.children[at].node
        }))
    }

    /// Drops what stood inside values that a repeated key replaced.
    fn forget_replaced(&self, found: &mut Matches) {
        for at in 1..self.nodes.len() {
            let parent = found.slots[self.nodes[at].parent as usize];
            let slot = &mut found.slots[at];
            if parent.kind != JsonKind::Container || slot.inside != parent.entered {
                slot.kind = JsonKind::Missing;
            }
        }
    }

    /// What the pointer with this number points at, in the text that [`Self::find`] returned; none if it
    /// points at nothing.
    #[must_use]
    pub fn value_at<'a>(&self, number: usize, text: &'a str, found: &Matches) -> Option<RawValue<'a>> {
        let slot = found.slots.get(*self.targets.get(number)? as usize)?;
        let written = |start, end| text.get(start..end);
        let string = |escaped| {
            let raw = written(slot.start + 1, slot.end - 1)?;
            Some(RawValue::String(RawString { raw, escaped }))
        };
        match slot.kind {
            JsonKind::Missing => None,
            JsonKind::Null => Some(RawValue::Null),
            JsonKind::True => Some(RawValue::Bool(true)),
            JsonKind::False => Some(RawValue::Bool(false)),
            JsonKind::Number => written(slot.start, slot.end).map(RawValue::Number),
            JsonKind::Plain => string(false),
            JsonKind::Escaped => string(true),
            JsonKind::Container => written(slot.start, slot.end).map(RawValue::Container),
        }
    }
}
