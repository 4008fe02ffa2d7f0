//! The functions that an expression may call.

use super::Operand;
use crate::program::MAX_STRING;
use crate::program::number::write_double;

/// A function. `math.` stands before the names of those from [`Self::Abs`] on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Int,
    Double,
    String,
    Bool,
    Contains,
    StartsWith,
    EndsWith,
    Abs,
    Ceil,
    Floor,
    Round,
    Sign,
    Sqrt,
    Trunc,
    Greatest,
    Least,
}

/// The syntax of a function's calls.
enum CallForm {
    /// `f(x)`
    Global,
    /// `f(x)` or `x.f()`
    Either,
    /// `x.f(y)`
    Method,
    /// `f(x, …)`
    Several,
}

impl Function {
    const ALL: [Self; 17] = [
        Self::Size,
        Self::Int,
        Self::Double,
        Self::String,
        Self::Bool,
        Self::Contains,
        Self::StartsWith,
        Self::EndsWith,
        Self::Abs,
        Self::Ceil,
        Self::Floor,
        Self::Round,
        Self::Sign,
        Self::Sqrt,
        Self::Trunc,
        Self::Greatest,
        Self::Least,
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|function| function.name() == name)
    }

    pub(super) fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Int => "int",
            Self::Double => "double",
            Self::String => "string",
            Self::Bool => "bool",
            Self::Contains => "contains",
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::Abs => "math.abs",
            Self::Ceil => "math.ceil",
            Self::Floor => "math.floor",
            Self::Round => "math.round",
            Self::Sign => "math.sign",
            Self::Sqrt => "math.sqrt",
            Self::Trunc => "math.trunc",
            Self::Greatest => "math.greatest",
            Self::Least => "math.least",
        }
    }

    fn call_form(self) -> CallForm {
        match self {
            Self::Size => CallForm::Either,
            Self::Contains | Self::StartsWith | Self::EndsWith => CallForm::Method,
            Self::Greatest | Self::Least => CallForm::Several,
            _ => CallForm::Global,
        }
    }

    /// Returns whether the function can be called with `args` arguments, the receiver included.
    pub(super) fn takes(self, args: usize, method: bool) -> bool {
        match self.call_form() {
            CallForm::Global => args == 1 && !method,
            CallForm::Either => args == 1,
            CallForm::Method => args == 2 && method,
            CallForm::Several => args >= 1 && !method,
        }
    }

    pub(super) fn usage(self) -> String {
        let name = self.name();
        match self.call_form() {
            CallForm::Global | CallForm::Either => format!("{name}(values.x)"),
            CallForm::Method => format!("values.x.{name}(\"text\")"),
            CallForm::Several => format!("{name}(values.x, values.y)"),
        }
    }

    /// Returns the result of the function; `None` if it isn't defined for these arguments.
    pub(super) fn call<'v>(self, args: &[Operand<'v>]) -> Option<Operand<'v>> {
        match args {
            [Operand::Number(number)] => self.of_number(*number),
            [Operand::Text(text)] => self.of_text(text, &args[0]),
            [Operand::Bool(bool)] => match self {
                Self::Bool => Some(Operand::Bool(*bool)),
                Self::String => Some(Operand::Text(if *bool { "true" } else { "false" }.into())),
                _ => None,
            },
            [Operand::Text(text), Operand::Text(part)] => Some(Operand::Bool(match self {
                Self::Contains => text.contains(&**part),
                Self::StartsWith => text.starts_with(&**part),
                Self::EndsWith => text.ends_with(&**part),
                _ => return None,
            })),
            [Operand::Number(first), rest @ ..] => rest
                .iter()
                .try_fold(*first, |best, next| {
                    let Operand::Number(next) = next else { return None };
                    match self {
                        Self::Greatest => Some(best.max(*next)),
                        Self::Least => Some(best.min(*next)),
                        _ => None,
                    }
                })
                .map(Operand::Number),
            _ => None,
        }
    }

    fn of_number<'v>(self, number: f64) -> Option<Operand<'v>> {
        Some(Operand::Number(match self {
            Self::Double | Self::Greatest | Self::Least => number,
            Self::Int => whole(number)?,
            Self::Abs => number.abs(),
            Self::Ceil => number.ceil(),
            Self::Floor => number.floor(),
            Self::Round => number.round(),
            Self::Sign if number == 0.0 => 0.0,
            Self::Sign => number.signum(),
            Self::Sqrt => number.sqrt(),
            Self::Trunc => number.trunc(),
            Self::String => {
                let mut text = Vec::new();
                let written = write_double(number, None, &mut text);
                return String::from_utf8(text)
                    .ok()
                    .filter(|_| written)
                    .map(|text| Operand::Text(text.into()));
            }
            Self::Size | Self::Bool | Self::Contains | Self::StartsWith | Self::EndsWith => return None,
        }))
    }

    fn of_text<'v>(self, text: &str, operand: &Operand<'v>) -> Option<Operand<'v>> {
        #[expect(clippy::cast_precision_loss, reason = "a length is far below 2^53")]
        Some(match self {
            Self::Size => Operand::Number(text.chars().count() as f64),
            Self::Double => Operand::Number(text.parse().ok()?),
            Self::Int => Operand::Number(text.parse::<i64>().ok()? as f64),
            Self::String => operand.clone(),
            Self::Bool => Operand::Bool(match text {
                "true" | "True" | "TRUE" | "t" | "1" => true,
                "false" | "False" | "FALSE" | "f" | "0" => false,
                _ => return None,
            }),
            _ => return None,
        })
    }
}

/// Returns a number without its fraction; `None` if it isn't in the range of an int of CEL.
pub(super) fn whole(number: f64) -> Option<f64> {
    // 2^63.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    (number.abs() < LIMIT).then_some(number.trunc())
}

/// Concatenates two texts; `None` if the result is longer than [`MAX_STRING`].
pub(super) fn concatenate<'v>(left: &str, right: &str) -> Option<Operand<'v>> {
    (left.len() + right.len() <= MAX_STRING).then(|| Operand::Text([left, right].concat().into()))
}
