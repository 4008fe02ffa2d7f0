//! CEL expressions over a message's values: `when`, and computed fields.
//!
//! The crate `cel` parses them. What they may say is a part of CEL that suits a plant and can't be made to
//! work for long, and it is evaluated here:
//!
//! * Operators, `? :`, `in` with a list, `has`, and the functions in [`function::Function`]. There are no
//!   lists or maps, no macros over them (`map`, `all`, …), whose cost can multiply, and no regular
//!   expressions.
//! * `values.x` and `values["x"]` are looked up when an expression is compiled: an unknown name is an error
//!   then, and no map of the values is built for a message.
//! * There is one kind of number, the double, as in JSON: `values.total * 2` and `values.count % 10` work,
//!   which strict CEL refuses, since `2` is an int there.
//!
//! Everything else means what it means in CEL; so `&&` and `||` need only the side that decides.

mod evaluate;
mod function;
mod lower;

use std::borrow::Cow;

use evaluate::Node;
use lower::Lowering;

/// Longer expressions are refused, in bytes.
const MAX_LENGTH: usize = 1024;

/// Deeper nesting of brackets and of `? :` is refused: the parser recurses about a dozen functions a level.
const MAX_NESTING: usize = 24;

/// Deeper trees are refused: evaluation recurses once a level, on the stack of whoever applies the program. A
/// sum of 64 values is this deep.
const MAX_DEPTH: usize = 64;

/// The stack on which an expression is compiled, in bytes. Unoptimised, the parser needs some 6 MiB for what
/// the limits above let through, more than a thread usually has.
const COMPILE_STACK: usize = 32 << 20;

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expression {
    root: Node,
}

/// What is wrong with an expression, and what would be right.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidExpression {
    pub(super) problem: String,
    pub(super) expected: String,
}

/// The values of one message, as an expression sees them.
pub(super) trait Values {
    /// The value of the field with this number; none if the message doesn't have it.
    fn value(&self, field: usize) -> Option<Operand<'_>>;
}

/// A value that goes into an expression, or comes out of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand<'a> {
    Null,
    Bool(bool),
    Number(f64),
    Text(Cow<'a, str>),
}

impl Operand<'_> {
    /// The same, borrowing nothing.
    pub(super) fn into_owned(self) -> Operand<'static> {
        match self {
            Self::Null => Operand::Null,
            Self::Bool(bool) => Operand::Bool(bool),
            Self::Number(number) => Operand::Number(number),
            Self::Text(text) => Operand::Text(Cow::Owned(text.into_owned())),
        }
    }
}

impl Expression {
    /// Compiles `source`, which may refer to `fields`.
    pub(super) fn compile(source: &str, fields: &[&str]) -> Result<Self, InvalidExpression> {
        if source.trim().is_empty() {
            return Err(invalid("is empty", "write a CEL expression such as values.good / values.total"));
        }
        if source.len() > MAX_LENGTH {
            let problem = format!("is {} bytes long", source.len());
            return Err(invalid(problem, format!("an expression has at most {MAX_LENGTH}")));
        }
        if nesting(source) > MAX_NESTING {
            let problem = format!("{:?} is nested deeper than {MAX_NESTING} brackets", shorten(source));
            return Err(invalid(problem, "split it into several computed fields"));
        }
        // On a thread of its own for its stack, and because a generated parser of a foreign language stands
        // behind this: should it panic, it is this one expression that is wrong.
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("compile-cel".into()).stack_size(COMPILE_STACK);
            match thread
                .spawn_scoped(scope, || parse(source, fields))
                .map(std::thread::ScopedJoinHandle::join)
            {
                Ok(Ok(compiled)) => compiled,
                Ok(Err(_)) => Err(unreadable(source, "")),
                Err(error) => Err(invalid(format!("can't be compiled now: {error}"), "try again")),
            }
        })
    }

    /// What it comes to for these values; none if it can't be evaluated for them (a field that the message
    /// doesn't have, text where a number is needed, a division by zero), or comes to something that can't be
    /// shown.
    pub(super) fn evaluate<'v>(&'v self, values: &'v dyn Values) -> Option<Operand<'v>> {
        self.root
            .evaluate(values)
            .filter(|result| !matches!(result, Operand::Number(number) if !number.is_finite()))
    }
}

fn parse(source: &str, fields: &[&str]) -> Result<Expression, InvalidExpression> {
    let parser = cel::parser::Parser::new().error_recovery_limit(1);
    let ast = parser.parse(source).map_err(|errors| {
        let message = errors.errors.first().map_or_else(String::new, |error| {
            let place = if error.pos.1 > 0 { format!(" at column {}", error.pos.1) } else { String::new() };
            format!("{place} ({})", shorten(&error.msg))
        });
        unreadable(source, &message)
    })?;
    let root = Lowering { fields }.lower(ast)?;
    if root.depth() > MAX_DEPTH {
        let problem = format!("{:?} has more than {MAX_DEPTH} operations in a row", shorten(source));
        return Err(invalid(problem, "split it into several computed fields"));
    }
    Ok(Expression { root })
}

fn unreadable(source: &str, message: &str) -> InvalidExpression {
    let problem = format!("{:?} can't be read as CEL{message}", shorten(source));
    invalid(problem, "write a CEL expression such as values.good / values.total")
}

fn invalid(problem: impl Into<String>, expected: impl Into<String>) -> InvalidExpression {
    InvalidExpression { problem: problem.into(), expected: expected.into() }
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// How deep brackets and `? :` are nested, at most; what stands in strings is counted too, which errs on the
/// safe side.
fn nesting(source: &str) -> usize {
    let (mut depth, mut deepest, mut conditionals) = (0_usize, 0, 0);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'?' => conditionals += 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest + conditionals
}
