//! Translates the syntax tree of CEL to [`Node`]s and refuses everything that is not supported.

use cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use cel::parser::Expression as Ast;

use super::evaluate::{Binary, Node};
use super::function::Function;
use super::{InvalidExpression, Operand, invalid, shorten};

pub(super) struct Lowering<'a> {
    /// The names that the expression may use, in the order of their numbers.
    pub(super) fields: &'a [&'a str],
}

impl Lowering<'_> {
    pub(super) fn lower(&self, ast: Ast) -> Result<Node, InvalidExpression> {
        match ast.expr {
            Expr::Literal(literal) => lower_literal(&literal),
            Expr::Select(select) if is_values(&select.operand) => {
                let field = self.field(&select.field)?;
                Ok(if select.test { Node::Has(field) } else { Node::Field(field) })
            }
            Expr::Call(call) => self.lower_call(call),
            Expr::Ident(name) if name == "values" => {
                Err(invalid("uses `values` as a whole", "name a field of it, as in values.speed"))
            }
            Expr::Ident(name) => {
                let problem = format!("refers to {:?}, which is not known", shorten(&name));
                Err(invalid(problem, self.known_fields()))
            }
            Expr::Select(select) => {
                let problem = format!("takes {:?} of something that has no fields", shorten(&select.field));
                Err(invalid(problem, self.known_fields()))
            }
            Expr::Comprehension(_) => {
                Err(invalid("uses a macro over lists", "there are no lists in `values`; write it out"))
            }
            Expr::List(_) => Err(invalid("has a list", "a list may stand only after `in`")),
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
                Err(invalid("has a map or a message", "values are numbers, strings and booleans"))
            }
        }
    }

    fn lower_call(&self, call: CallExpr) -> Result<Node, InvalidExpression> {
        let CallExpr { func_name, target, args } = call;
        if target.is_none() && !func_name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return self.lower_operator(&func_name, args);
        }
        // `math.abs(x)` is parsed as a call of `abs` on `math`, which is not a value.
        let in_math =
            target.as_ref().is_some_and(|target| matches!(&target.expr, Expr::Ident(name) if name == "math"));
        let name = if in_math { format!("math.{func_name}") } else { func_name };
        let Some(function) = Function::named(&name) else {
            let problem = format!("calls {:?}, which is not there", shorten(&name));
            return Err(invalid(problem, format!("there are has, {}", Function::names())));
        };
        let method = target.is_some() && !in_math;
        let receiver = target.filter(|_| !in_math).map(|target| *target);
        let args =
            receiver.into_iter().chain(args).map(|arg| self.lower(arg)).collect::<Result<Vec<_>, _>>()?;
        if !function.takes(args.len(), method) {
            let problem = format!("calls {name:?} in a way that is not there");
            return Err(invalid(problem, format!("write {}", function.usage())));
        }
        Ok(Node::Call(function, args))
    }

    fn lower_operator(&self, operator: &str, args: Vec<Ast>) -> Result<Node, InvalidExpression> {
        let binary = match operator {
            operators::ADD => Binary::Add,
            operators::SUBSTRACT => Binary::Subtract,
            operators::MULTIPLY => Binary::Multiply,
            operators::DIVIDE => Binary::Divide,
            operators::MODULO => Binary::Remainder,
            operators::EQUALS => Binary::Equal,
            operators::NOT_EQUALS => Binary::NotEqual,
            operators::LESS => Binary::Less,
            operators::LESS_EQUALS => Binary::LessOrEqual,
            operators::GREATER => Binary::Greater,
            operators::GREATER_EQUALS => Binary::GreaterOrEqual,
            operators::LOGICAL_AND => Binary::And,
            operators::LOGICAL_OR => Binary::Or,
            _ => return self.lower_other_operator(operator, args),
        };
        match <[Ast; 2]>::try_from(args) {
            Ok([left, right]) => Ok(Node::Binary(binary, Box::new([self.lower(left)?, self.lower(right)?]))),
            Err(_) => Err(unknown_operator(operator)),
        }
    }

    fn lower_other_operator(&self, operator: &str, args: Vec<Ast>) -> Result<Node, InvalidExpression> {
        let mut args = args.into_iter();
        match (operator, args.next(), args.next(), args.next()) {
            (operators::LOGICAL_NOT, Some(arg), None, None) => Ok(Node::Not(Box::new(self.lower(arg)?))),
            (operators::NEGATE, Some(arg), None, None) => Ok(Node::Negate(Box::new(self.lower(arg)?))),
            (operators::CONDITIONAL, Some(condition), Some(then), Some(otherwise)) => {
                let parts = [self.lower(condition)?, self.lower(then)?, self.lower(otherwise)?];
                Ok(Node::Conditional(Box::new(parts)))
            }
            (operators::IN, Some(item), Some(list), None) => {
                let Expr::List(list) = list.expr else {
                    let expected = "write it as in values.state in [\"a\", \"b\"]";
                    return Err(invalid("uses `in` without a list", expected));
                };
                let elements = list.elements.into_iter().map(|element| self.lower(element));
                Ok(Node::In(Box::new(self.lower(item)?), elements.collect::<Result<_, _>>()?))
            }
            (operators::INDEX, Some(values), Some(name), None) if is_values(&values) => {
                let Expr::Literal(LiteralValue::String(name)) = name.expr else {
                    let expected = "write the name: values[\"speed\"]";
                    return Err(invalid("takes a computed field of `values`", expected));
                };
                Ok(Node::Field(self.field(name.inner())?))
            }
            _ => Err(unknown_operator(operator)),
        }
    }

    fn field(&self, name: &str) -> Result<usize, InvalidExpression> {
        self.fields.iter().position(|field| *field == name).ok_or_else(|| {
            let problem = format!("refers to values.{}, which it can't see", shorten(name));
            invalid(problem, self.known_fields())
        })
    }

    fn known_fields(&self) -> String {
        if self.fields.is_empty() {
            return "there is no field before it; put the fields that it uses before it".into();
        }
        let shown: Vec<String> =
            self.fields.iter().take(12).map(|field| format!("values.{}", shorten(field))).collect();
        let more = if self.fields.len() > shown.len() { ", …" } else { "" };
        format!("there are {}{more}", shown.join(", "))
    }
}

fn lower_literal(literal: &LiteralValue) -> Result<Node, InvalidExpression> {
    #[expect(clippy::cast_precision_loss, reason = "numbers are doubles here, as in JSON")]
    let operand = match literal {
        LiteralValue::Int(int) => Operand::Number(*int.inner() as f64),
        LiteralValue::UInt(int) => Operand::Number(*int.inner() as f64),
        LiteralValue::Double(double) => Operand::Number(*double.inner()),
        LiteralValue::Boolean(bool) => Operand::Bool(*bool.inner()),
        LiteralValue::String(text) => Operand::Text(text.inner().to_owned().into()),
        LiteralValue::Null => Operand::Null,
        LiteralValue::Bytes(_) => {
            return Err(invalid("has a bytes literal", "values are numbers, strings and booleans"));
        }
    };
    Ok(Node::Literal(operand))
}

fn unknown_operator(operator: &str) -> InvalidExpression {
    let problem = format!("uses {:?}, which is not there", shorten(&operator.replace('_', "")));
    invalid(
        problem,
        "values are numbers, strings and booleans; there are + - * / % == != < <= > >= && || ! ?: in",
    )
}

fn is_values(ast: &Ast) -> bool {
    matches!(&ast.expr, Expr::Ident(name) if name == "values")
}
