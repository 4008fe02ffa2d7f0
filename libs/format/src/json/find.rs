//! Scans a payload once and finds what each pointer refers to.

use super::pointer::Pointer;
use super::scan::{InvalidJson, MAX_DEPTH, Scanner};
use super::text::RawString;

/// The node of a value that is on the path of no pointer.
const NOWHERE: u32 = u32::MAX;

/// The node of the whole payload.
const ROOT: u32 = 0;

/// A set of pointers, as a tree of their tokens.
#[derive(Debug)]
pub struct Pointers {
    /// Parents come before their children.
    nodes: Vec<PointerNode>,
    /// The node of each pointer, in the order of [`Self::new`].
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
    /// The key as an array index; `None` for other keys, `01` among them.
    index: Option<usize>,
    node: u32,
}

/// The values that the pointers refer to in one payload. Holds the scan's buffers, so reuse it for the next
/// payload.
#[derive(Debug, Default)]
pub struct Matches {
    slots: Vec<Slot>,
    stack: Vec<OpenContainer>,
    key: String,
    tick: u64,
}

/// The last value of a node.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    kind: JsonKind,
    start: usize,
    end: usize,
    /// The tick at which the scan entered the value.
    entered: u64,
    /// The tick at which the scan entered the enclosing value. It differs from the parent's `entered` if a
    /// repeated key has replaced the enclosing value.
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
    NotFinite,
    Plain,
    Escaped,
    Container,
}

#[derive(Debug, Clone, Copy)]
struct OpenContainer {
    object: bool,
    node: u32,
    /// In an array, the index of the next element; in an object, the child that is expected next, since
    /// devices send their keys in the same order each time.
    next: usize,
}

/// The value that a pointer refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawValue<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as written.
    Number(&'a str),
    /// `NaN`, `-Infinity` or one of the other words that programs write for numbers which JSON can't express.
    NotFinite(&'a str),
    /// A string.
    String(RawString<'a>),
    /// An array or an object as written.
    Container(&'a str),
}

impl Matches {
    /// Returns what the payload's text was within when it turned out not to be JSON: `an object`.
    #[must_use]
    pub fn open_container(&self) -> Option<&'static str> {
        self.stack.last().map(|container| if container.object { "an object" } else { "an array" })
    }
}

impl Pointers {
    /// Creates a set of pointers. Their order defines the numbers of [`Self::value_at`].
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

    /// Scans `payload` and returns it as text, to be passed to [`Self::value_at`].
    ///
    /// # Errors
    /// [`InvalidJson`] unless all of `payload` is one JSON text.
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

    /// Consumes a value; of an array or an object, only the opening bracket.
    fn value(&self, scanner: &mut Scanner<'_>, node: u32, found: &mut Matches) -> Result<(), InvalidJson> {
        let Some(first) = scanner.peek() else { return scanner.malformed() };
        let start = scanner.position();
        let kind = match first {
            b'{' | b'[' => {
                if found.stack.len() == MAX_DEPTH {
                    return scanner.malformed();
                }
                scanner.advance();
                // `usize::MAX` tells `next` that no comma precedes the first key or element.
                found.stack.push(OpenContainer { object: first == b'{', node, next: usize::MAX });
                JsonKind::Container
            }
            b'"' if scanner.string()? => JsonKind::Escaped,
            b'"' => JsonKind::Plain,
            b't' => scanner.literal("true").map(|()| JsonKind::True)?,
            b'f' => scanner.literal("false").map(|()| JsonKind::False)?,
            b'n' if scanner.literal("null").is_ok() => JsonKind::Null,
            _ if scanner.number().is_ok() => JsonKind::Number,
            _ => scanner.not_finite(start).map(|()| JsonKind::NotFinite)?,
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

    /// Proceeds to the start of the next value and returns its node, leaving arrays and objects that end
    /// here. `None` at the end of the text.
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
        // No pointer has a key that is not Unicode.
        let Some(key) = (RawString { raw, escaped }).resolve(buffer) else { return Ok(NOWHERE) };
        let (before, after) = node.children.split_at(frame.next.min(node.children.len()));
        let found = after.iter().chain(before).position(|child| &*child.key == key);
        Ok(found.map_or(NOWHERE, |distance| {
            let at = (frame.next + distance) % node.children.len();
            frame.next = at + 1;
            node.children[at].node
        }))
    }

    /// Drops the values inside values that a repeated key has replaced.
    fn forget_replaced(&self, found: &mut Matches) {
        for at in 1..self.nodes.len() {
            let parent = found.slots[self.nodes[at].parent as usize];
            let slot = &mut found.slots[at];
            if parent.kind != JsonKind::Container || slot.inside != parent.entered {
                slot.kind = JsonKind::Missing;
            }
        }
    }

    /// Returns the value to which the pointer with this number refers in `text`, the result of
    /// [`Self::find`]. `None` if there is no such value.
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
            JsonKind::NotFinite => written(slot.start, slot.end).map(RawValue::NotFinite),
            JsonKind::Plain => string(false),
            JsonKind::Escaped => string(true),
            JsonKind::Container => written(slot.start, slot.end).map(RawValue::Container),
        }
    }
}
