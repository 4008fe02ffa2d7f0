//! CEL expressions over a message's values: `when`, and computed fields.
//!
//! The crate `cel` parses and evaluates. Between the two, an expression is checked and lowered, so that it suits a plant and
//! can't be made to work for long:
//!
//! * It is short, flat, and calls only the functions in [`FUNCTIONS`] and the operators. There are no comprehensions (`map`,
//!   `all`, …), whose cost can multiply, and no regular expressions.
//! * `values.x` and `values["x"]` are looked up when it is compiled: an unknown name is an error then, and no map of the values
//!   is built for a message.
//! * There is one kind of number, the double, as in JSON: `values.total * 2` and `values.count % 10` work, which strict CEL
//!   refuses, since `2` is an int there.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, Expr, ListExpr, LiteralValue, operators};
use cel::common::types::{CelBool, CelDouble, CelNull, CelString};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::parser::Expression as Ast;
use cel::{Context, Env, Value};

/// Longer expressions are refused, in bytes.
pub(super) const MAX_LENGTH: usize = 1024;

/// Deeper nesting of brackets and of `? :` is refused. The parser recurses about a dozen functions a level.
const MAX_NESTING: usize = 24;

/// What an expression may call, besides the operators: `size(x)` as well as `x.size()`.
const FUNCTIONS: [&str; 8] =
    ["size", "int", "double", "string", "bool", "contains", "startsWith", "endsWith"];

/// What it may call of `math`. (`math.greatest` and `math.least` are macros, which expand to the last two.)
const MATH_FUNCTIONS: [&str; 9] = [
    "math.abs",
    "math.ceil",
    "math.floor",
    "math.round",
    "math.sign",
    "math.sqrt",
    "math.trunc",
    "math.@max",
    "math.@min",
];

const OPERATORS: [&str; 14] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
];

/// Functions whose result is a CEL int, to be made a double.
const GIVES_INT: [&str; 2] = ["size", "int"];

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    // Nothing else is registered, so nothing can be registered twice; a test calls each function.
    let _ = environment.add_extension(cel::extensions::math);
    Arc::new(environment)
});

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expression {
    ast: Ast,
}

/// What is wrong with an expression, and what would be right.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidExpression {
    pub(super) problem: String,
    pub(super) expected: String,
}

/// The values of one message, as an expression sees them.
pub(super) trait Values: Send + Sync {
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
        let ast = parse(source)?;
        let mut lowering = Lowering { fields };
        Ok(Self { ast: lowering.lower(ast)? })
    }

    /// What it comes to for these values; none if it can't be evaluated for them (a field that the message doesn't have, text
    /// where a number is needed, a division by zero), or comes to something that can't be shown.
    pub(super) fn evaluate(&self, values: &dyn Values) -> Option<Operand<'static>> {
        let resolver = Resolver { values };
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.set_variable_resolver(&resolver);
        let value = Value::resolve_val(&self.ast, &context).ok()?;
        if let Some(number) = value.downcast_ref::<CelDouble>() {
            return number.is_finite().then_some(Operand::Number(*number.inner()));
        }
        if let Some(bool) = value.downcast_ref::<CelBool>() {
            return Some(Operand::Bool(*bool.inner()));
        }
        if let Some(text) = value.downcast_ref::<CelString<'_>>() {
            return Some(Operand::Text(Cow::Owned(text.inner().to_owned())));
        }
        value.downcast_ref::<CelNull>().map(|_| Operand::Null)
    }
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

/// How deep brackets and `? :` are nested, at most; what stands in strings is counted too, which errs on the safe side.
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

fn parse(source: &str) -> Result<Ast, InvalidExpression> {
    let parser = ENVIRONMENT.parser().enable_optional_syntax(false).error_recovery_limit(1);
    // A generated parser of a foreign language stands behind this; should it panic, it is this one format that is wrong.
    let parsed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| parser.parse(source)));
    let message = match parsed {
        Ok(Ok(ast)) => return Ok(ast),
        Ok(Err(errors)) => errors.errors.first().map_or_else(String::new, |error| {
            let place = if error.pos.1 > 0 { format!(" at column {}", error.pos.1) } else { String::new() };
            format!("{place} ({})", error.msg)
        }),
        Err(_) => String::new(),
    };
    let problem = format!("{:?} can't be read as CEL{message}", shorten(source));
    Err(invalid(problem, "write a CEL expression such as values.good / values.total"))
}

/// Checks a tree and rewrites it for evaluation.
struct Lowering<'a> {
    fields: &'a [&'a str],
}

impl Lowering<'_> {
    fn lower(&mut self, ast: Ast) -> Result<Ast, InvalidExpression> {
        let Ast { id, expr } = ast;
        let expr = match expr {
            #[expect(clippy::cast_precision_loss, reason = "numbers are doubles here, as in JSON")]
            Expr::Literal(LiteralValue::Int(int)) => double(*int.inner() as f64),
            #[expect(clippy::cast_precision_loss, reason = "numbers are doubles here, as in JSON")]
            Expr::Literal(LiteralValue::UInt(int)) => double(*int.inner() as f64),
            Expr::Literal(LiteralValue::Bytes(_)) => {
                return Err(invalid("has a bytes literal", "values are numbers, strings and booleans"));
            }
            Expr::Literal(literal) => Expr::Literal(literal),
            Expr::Select(select) if is_values(&select.operand) => {
                let field = self.field(&select.field)?;
                Expr::Ident(if select.test { format!("?{field}") } else { format!("#{field}") })
            }
            Expr::Call(call) => self.lower_call(call, id)?,
            Expr::Ident(name) if name == "values" => {
                return Err(invalid("uses `values` as a whole", "name a field of it, as in values.speed"));
            }
            Expr::Ident(name) => {
                let problem = format!("refers to {:?}, which is not known", shorten(&name));
                return Err(invalid(problem, self.known_fields()));
            }
            Expr::Select(select) => {
                let problem = format!("takes {:?} of something that has no fields", shorten(&select.field));
                return Err(invalid(problem, self.known_fields()));
            }
            Expr::Comprehension(_) => {
                return Err(invalid("uses a macro over lists", "there are no lists in `values`; write it out"));
            }
            Expr::List(_) => return Err(invalid("has a list", "a list may stand only after `in`")),
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
                return Err(invalid("has a map or a message", "values are numbers, strings and booleans"));
            }
        };
        Ok(Ast { id, expr })
    }

    fn lower_call(&mut self, call: CallExpr, id: u64) -> Result<Expr, InvalidExpression> {
        let CallExpr { func_name, target, mut args } = call;
        if func_name == operators::INDEX && args.first().is_some_and(is_values) {
            let Some(Expr::Literal(LiteralValue::String(name))) = args.get(1).map(|arg| &arg.expr) else {
                return Err(invalid("takes a computed field of `values`", "write the name: values[\"speed\"]"));
            };
            return Ok(Expr::Ident(format!("#{}", self.field(name.inner())?)));
        }
        // `math.abs(x)` is a call of `abs` on `math`, which isn't a value.
        let in_math = target.as_ref().is_some_and(|target| matches!(&target.expr, Expr::Ident(name) if name == "math"));
        let full_name = if in_math { format!("math.{func_name}") } else { func_name.clone() };
        let known = if in_math || full_name.starts_with("math.") {
            MATH_FUNCTIONS.contains(&full_name.as_str())
        } else {
            FUNCTIONS.contains(&func_name.as_str())
                || target.is_none() && OPERATORS.contains(&func_name.as_str())
        };
        match func_name.as_str() {
            // Strict CEL has no remainder of doubles.
            operators::MODULO => {
                let args = self.lower_all(args)?.into_iter().map(|arg| call_of("int", vec![arg], id));
                return Ok(call_of("double", vec![call_of(operators::MODULO, args.collect(), id)], id).expr);
            }
            operators::NEGATE => {
                let args = self.lower_all(args)?;
                return Ok(Expr::Call(CallExpr { func_name, target: None, args }));
            }
            operators::IN => {
                let list = args.pop().map(|list| list.expr);
                let Some(Expr::List(ListExpr { elements, .. })) = list else {
                    return Err(invalid("uses `in` without a list", "write it as in values.state in [\"a\", \"b\"]"));
                };
                let elements = self.lower_all(elements)?;
                let mut args = self.lower_all(args)?;
                args.push(Ast { id, expr: Expr::List(ListExpr::new(elements)) });
                return Ok(Expr::Call(CallExpr { func_name, target: None, args }));
            }
            // With more than two arguments, the macro has put them into a list.
            "math.@max" | "math.@min" => {
                let mut lowered = Vec::with_capacity(args.len());
                for arg in args {
                    lowered.push(match arg.expr {
                        Expr::List(list) => {
                            Ast { id, expr: Expr::List(ListExpr::new(self.lower_all(list.elements)?)) }
                        }
                        expr => self.lower(Ast { id, expr })?,
                    });
                }
                return Ok(Expr::Call(CallExpr { func_name, target: None, args: lowered }));
            }
            _ if known => {}
            _ => {
                let problem = format!("calls {:?}, which is not there", shorten(&full_name));
                return Err(invalid(problem, format!("there are {}", known_functions())));
            }
        }
        let target = match target {
            Some(target) if in_math => Some(target),
            Some(target) => Some(Box::new(self.lower(*target)?)),
            None => None,
        };
        let gives_int = GIVES_INT.contains(&func_name.as_str());
        let call = Expr::Call(CallExpr { func_name, target, args: self.lower_all(args)? });
        Ok(if gives_int { call_of("double", vec![Ast { id, expr: call }], id).expr } else { call })
    }

    fn lower_all(&mut self, args: Vec<Ast>) -> Result<Vec<Ast>, InvalidExpression> {
        args.into_iter().map(|arg| self.lower(arg)).collect()
    }

    fn field(&self, name: &str) -> Result<usize, InvalidExpression> {
        self.fields.iter().position(|field| *field == name).ok_or_else(|| {
            let problem = format!("refers to values.{}, which is no field before it", shorten(name));
            invalid(problem, self.known_fields())
        })
    }

    fn known_fields(&self) -> String {
        if self.fields.is_empty() {
            return "there is no field before it; put the fields that it uses before it".into();
        }
        let shown: Vec<String> = self.fields.iter().take(12).map(|field| format!("values.{field}")).collect();
        let more = if self.fields.len() > shown.len() { ", …" } else { "" };
        format!("there are {}{more}", shown.join(", "))
    }
}

fn known_functions() -> String {
    let mut names: Vec<&str> = FUNCTIONS.to_vec();
    names.extend(MATH_FUNCTIONS.iter().filter(|name| !name.contains('@')));
    names.extend(["math.greatest", "math.least", "has"]);
    names.join(", ")
}

fn is_values(ast: &Ast) -> bool {
    matches!(&ast.expr, Expr::Ident(name) if name == "values")
}

fn double(value: f64) -> Expr {
    Expr::Literal(LiteralValue::Double(CelDouble::from(value)))
}

fn call_of(function: &str, args: Vec<Ast>, id: u64) -> Ast {
    Ast { id, expr: Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args }) }
}

/// Gives the evaluation the fields, by the names that [`Lowering`] gave them: `#3` the value, `?3` whether there is one.
struct Resolver<'a> {
    values: &'a dyn Values,
}

impl VariableResolver for Resolver<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let (kind, number) = variable.split_at_checked(1)?;
        let value = self.values.value(number.parse().ok()?);
        if kind == "?" {
            return Some(CowVal::owned(CelBool::from(value.is_some())));
        }
        Some(match value? {
            Operand::Null => CowVal::owned(CelNull),
            Operand::Bool(bool) => CowVal::owned(CelBool::from(bool)),
            Operand::Number(number) => CowVal::owned(CelDouble::from(number)),
            Operand::Text(Cow::Borrowed(text)) => CowVal::owned(CelString::from(text)),
            Operand::Text(Cow::Owned(text)) => CowVal::owned(CelString::from(text)),
        })
    }
}
