//! CEL expressions over a message's values: `when`, and computed fields.
//!
//! The crate `cel` parses them; this module evaluates a subset of CEL whose cost is bounded:
//!
//! * Operators, `? :`, `in` with a list, `has`, and the functions in [`function::Function`]. There are no
//!   lists or maps, no macros over them (`map`, `all`, …), whose cost can multiply, and no regular
//!   expressions.
//! * `values.x` and `values["x"]` are resolved when an expression is compiled: an unknown name is an error
//!   then, and no map of the values is built for a message.
//! * All numbers are doubles, as in JSON: `values.total * 2` and `values.count % 10` work, which strict CEL
//!   refuses, since `2` is an int there.
//!
//! Everything else means what it means in CEL; `&&` and `||`, for example, need only the side that decides.

mod evaluate;
mod function;
mod lower;

use std::borrow::Cow;

use evaluate::Node;
use lower::Lowering;

/// The longest expression, in bytes.
const MAX_LENGTH: usize = 1024;

/// The deepest nesting of brackets and of `? :`. The parser recurses about a dozen functions for each level.
const MAX_NESTING: usize = 24;

/// The deepest tree, such as a sum of 64 values. Evaluation recurses once for each level, on the caller's
/// stack.
const MAX_DEPTH: usize = 64;

/// The stack on which an expression is compiled, in bytes. Without optimization the parser needs about 6 MiB
/// within the limits above, more than a thread usually has.
const COMPILE_STACK: usize = 32 << 20;

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expression {
    root: Node,
    /// The numbers of the fields that it refers to.
    fields: Vec<usize>,
}

/// Why an expression is invalid, and how to correct it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidExpression {
    pub(super) problem: String,
    pub(super) expected: String,
}

/// The values of a message, for expressions.
pub(super) trait Values {
    /// Returns whether the message has the field with this number.
    fn has(&self, field: usize) -> bool;
    /// Returns the value of the field with this number; `None` if the message doesn't have it, or it can't be
    /// read.
    fn value(&self, field: usize) -> Option<Operand<'_>>;
}

/// An argument or a result of an operation.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand<'a> {
    Null,
    Bool(bool),
    Number(f64),
    Text(Cow<'a, str>),
}

impl Operand<'_> {
    /// Returns the same value without borrowed parts.
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
        // A thread of its own has the stack, and turns a panic of the generated parser into an error of this
        // expression.
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

    /// Returns the numbers of the fields that it refers to.
    pub(super) fn fields(&self) -> &[usize] {
        &self.fields
    }

    /// Returns the result for these values; `None` if the expression can't be evaluated for them (a field is
    /// missing, a text stands where a number is needed, a divisor is zero), or if the result is not finite.
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
    let mut fields = Vec::new();
    root.collect_fields(&mut fields);
    Ok(Expression { root, fields })
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

/// Returns an upper bound of the nesting of brackets and `? :`; those in strings are counted too.
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
