//! Evaluates compiled expressions.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::function::{Function, concatenate, whole};
use super::{Operand, Values};

/// A node of a compiled expression.
#[derive(Debug)]
pub(super) enum Node {
    Literal(Operand<'static>),
    /// The value of the field with this number.
    Field(usize),
    /// `true` if the message has the field with this number.
    Has(usize),
    Not(Box<Node>),
    Negate(Box<Node>),
    Binary(Binary, Box<[Node; 2]>),
    /// Condition, then, otherwise.
    Conditional(Box<[Node; 3]>),
    In(Box<Node>, Vec<Node>),
    Call(Function, Vec<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
}

impl Node {
    /// Returns the number of levels of the tree.
    pub(super) fn depth(&self) -> usize {
        let deepest = |nodes: &[Self]| nodes.iter().map(Self::depth).max().unwrap_or(0);
        1 + match self {
            Self::Literal(_) | Self::Field(_) | Self::Has(_) => 0,
            Self::Not(node) | Self::Negate(node) => node.depth(),
            Self::Binary(_, nodes) => deepest(&**nodes),
            Self::Conditional(nodes) => deepest(&**nodes),
            Self::In(item, list) => item.depth().max(deepest(list)),
            Self::Call(_, args) => deepest(args),
        }
    }

    /// Appends the numbers of the fields that it refers to.
    pub(super) fn collect_fields(&self, fields: &mut Vec<usize>) {
        let mut all = |nodes: &[Self]| nodes.iter().for_each(|node| node.collect_fields(fields));
        match self {
            Self::Literal(_) => {}
            Self::Field(field) | Self::Has(field) => fields.push(*field),
            Self::Not(node) | Self::Negate(node) => node.collect_fields(fields),
            Self::Binary(_, nodes) => all(&**nodes),
            Self::Conditional(nodes) => all(&**nodes),
            Self::In(item, list) => {
                all(list);
                item.collect_fields(fields);
            }
            Self::Call(_, args) => all(args),
        }
    }

    /// Returns the result; `None` if the expression can't be evaluated.
    pub(super) fn evaluate<'v>(&'v self, values: &'v dyn Values) -> Option<Operand<'v>> {
        match self {
            Self::Literal(Operand::Text(text)) => Some(Operand::Text(Cow::Borrowed(text))),
            Self::Literal(literal) => Some(literal.clone()),
            Self::Field(field) => values.value(*field),
            Self::Has(field) => Some(Operand::Bool(values.has(*field))),
            Self::Not(node) => Some(Operand::Bool(!node.condition(values)?)),
            Self::Negate(node) => match node.evaluate(values)? {
                Operand::Number(number) => Some(Operand::Number(-number)),
                _ => None,
            },
            Self::Binary(Binary::And, nodes) => decide(nodes, false, values),
            Self::Binary(Binary::Or, nodes) => decide(nodes, true, values),
            Self::Binary(binary, nodes) => {
                binary.compute(&nodes[0].evaluate(values)?, &nodes[1].evaluate(values)?)
            }
            Self::Conditional(nodes) => {
                let [condition, then, otherwise] = &**nodes;
                if condition.condition(values)? { then.evaluate(values) } else { otherwise.evaluate(values) }
            }
            Self::In(item, list) => {
                let item = item.evaluate(values)?;
                // As in CEL, all elements are evaluated, and an error in one of them is one of the whole.
                let mut found = false;
                for element in list {
                    found |= element.evaluate(values)? == item;
                }
                Some(Operand::Bool(found))
            }
            Self::Call(function, args) => {
                function.call(&args.iter().map(|arg| arg.evaluate(values)).collect::<Option<Vec<_>>>()?)
            }
        }
    }

    fn condition(&self, values: &dyn Values) -> Option<bool> {
        match self.evaluate(values)? {
            Operand::Bool(bool) => Some(bool),
            _ => None,
        }
    }
}

/// Evaluates `&&` and `||`: if one side is `decisive`, the other one need not be evaluable.
fn decide<'v>(nodes: &[Node; 2], decisive: bool, values: &dyn Values) -> Option<Operand<'v>> {
    let left = nodes[0].condition(values);
    if left == Some(decisive) {
        return Some(Operand::Bool(decisive));
    }
    let right = nodes[1].condition(values)?;
    (right == decisive || left.is_some()).then_some(Operand::Bool(right))
}

impl Binary {
    fn compute<'v>(self, left: &Operand<'v>, right: &Operand<'v>) -> Option<Operand<'v>> {
        let ordered =
            |accept: fn(Ordering) -> bool| order(left, right).map(|order| Operand::Bool(accept(order)));
        match self {
            Self::Equal => return Some(Operand::Bool(left == right)),
            Self::NotEqual => return Some(Operand::Bool(left != right)),
            Self::Less => return ordered(Ordering::is_lt),
            Self::LessOrEqual => return ordered(Ordering::is_le),
            Self::Greater => return ordered(Ordering::is_gt),
            Self::GreaterOrEqual => return ordered(Ordering::is_ge),
            _ => {}
        }
        match (self, left, right) {
            (Self::Add, Operand::Text(left), Operand::Text(right)) => concatenate(left, right),
            (_, Operand::Number(left), Operand::Number(right)) => Some(Operand::Number(match self {
                Self::Add => left + right,
                Self::Subtract => left - right,
                Self::Multiply => left * right,
                Self::Divide => left / right,
                // As in CEL, a remainder is that of ints, and an error for a divisor of zero.
                Self::Remainder => Some(whole(*left)? % whole(*right)?).filter(|rest| !rest.is_nan())?,
                _ => return None,
            })),
            _ => None,
        }
    }
}

/// `None` for values of different types, and for NaN.
fn order(left: &Operand<'_>, right: &Operand<'_>) -> Option<Ordering> {
    match (left, right) {
        (Operand::Number(left), Operand::Number(right)) => left.partial_cmp(right),
        (Operand::Text(left), Operand::Text(right)) => Some(left.cmp(right)),
        (Operand::Bool(left), Operand::Bool(right)) => Some(left.cmp(right)),
        _ => None,
    }
}
