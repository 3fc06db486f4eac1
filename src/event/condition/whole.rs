//! Macros over lists of whole numbers, which may be nested and so take many steps. They are
//! compiled to a form that takes a hundredth of the time of general evaluation, and stopped when
//! they have taken their share. Only conditions that would else have no answer come here, and a
//! condition that is not of this simple form has no answer here either.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, LiteralValue, operators};

/// The most steps that may be taken: some seconds.
pub(super) const MOST_STEPS: u64 = 500_000_000;

/// A whole number: a literal, a macro's variable, or an expression of these.
enum Number {
    Literal(i64),
    /// How many macros stand around the one that binds it.
    Variable(usize),
    Made(fn(i64, i64) -> Option<i64>, Box<(Number, Number)>),
}

/// An expression whose answer is a boolean.
enum Test {
    Literal(bool),
    Compared(fn(&i64, &i64) -> bool, Box<(Number, Number)>),
    Not(Box<Test>),
    And(Box<(Test, Test)>),
    Or(Box<(Test, Test)>),
    /// `all`: what it is for every element, until one is not so; `exists`, the other way round.
    Every {
        list: Vec<i64>,
        depth: usize,
        until: bool,
        body: Box<Test>,
    },
}

/// The answer, if the expression is of this form for this data, takes no more than its share of
/// steps, and no number overflows.
pub(super) fn answer(expression: &IdedExpr, data: &serde_json::Value, most_steps: u64) -> Option<bool> {
    let test = Compiler { data, variables: Vec::new() }.test(&expression.expr)?;
    let mut run = TestRun { variables: Vec::new(), left: most_steps };
    run.test(&test)
}

struct Compiler<'a> {
    data: &'a serde_json::Value,
    /// The variables of the macros around, the outermost first.
    variables: Vec<&'a str>,
}

impl<'a> Compiler<'a> {
    fn test(&mut self, expression: &'a Expr) -> Option<Test> {
        match expression {
            Expr::Literal(LiteralValue::Boolean(holds)) => Some(Test::Literal(*holds.inner())),
            Expr::Comprehension(comprehension) => self.every(comprehension),
            Expr::Call(call) => self.call(call),
            _ => None,
        }
    }

    fn call(&mut self, call: &'a CallExpr) -> Option<Test> {
        let compare: fn(&i64, &i64) -> bool = match (call.func_name.as_str(), &call.args[..]) {
            (operators::LOGICAL_NOT, [of]) => return Some(Test::Not(Box::new(self.test(&of.expr)?))),
            (operators::LOGICAL_AND, [a, b]) => {
                return Some(Test::And(Box::new((self.test(&a.expr)?, self.test(&b.expr)?))));
            }
            (operators::LOGICAL_OR, [a, b]) => {
                return Some(Test::Or(Box::new((self.test(&a.expr)?, self.test(&b.expr)?))));
            }
            (operators::EQUALS, [_, _]) => i64::eq,
            (operators::NOT_EQUALS, [_, _]) => i64::ne,
            (operators::LESS, [_, _]) => i64::lt,
            (operators::LESS_EQUALS, [_, _]) => i64::le,
            (operators::GREATER, [_, _]) => i64::gt,
            (operators::GREATER_EQUALS, [_, _]) => i64::ge,
            _ => return None,
        };
        let [a, b] = &call.args[..] else { return None };
        Some(Test::Compared(compare, Box::new((self.number(&a.expr)?, self.number(&b.expr)?))))
    }

    /// `list.all(x, …)` and `list.exists(x, …)`, as the parser writes them out.
    fn every(&mut self, macro_: &'a ComprehensionExpr) -> Option<Test> {
        let Expr::Literal(LiteralValue::Boolean(begins)) = &macro_.accu_init.expr else { return None };
        let Expr::Call(step) = &macro_.loop_step.expr else { return None };
        let until = match (*begins.inner(), step.func_name.as_str()) {
            (true, operators::LOGICAL_AND) => false,
            (false, operators::LOGICAL_OR) => true,
            _ => return None,
        };
        let is_accumulator = |expression: &Expr| matches!(expression, Expr::Ident(name) if *name == macro_.accu_var);
        let [so_far, body] = &step.args[..] else { return None };
        if !is_accumulator(&so_far.expr) || !is_accumulator(&macro_.result.expr) || macro_.iter_var2.is_some() {
            return None;
        }
        let list = self.list(&macro_.iter_range.expr)?;
        let depth = self.variables.len();
        self.variables.push(&macro_.iter_var);
        let body = self.test(&body.expr);
        self.variables.pop();
        Some(Test::Every { list, depth, until, body: Box::new(body?) })
    }

    fn number(&self, expression: &Expr) -> Option<Number> {
        match expression {
            Expr::Literal(LiteralValue::Int(number)) => Some(Number::Literal(*number.inner())),
            Expr::Ident(name) => self.variables.iter().rposition(|variable| variable == name).map(Number::Variable),
            Expr::Select(_) => self.member(expression)?.as_i64().map(Number::Literal),
            Expr::Call(call) => {
                let made: fn(i64, i64) -> Option<i64> = match call.func_name.as_str() {
                    operators::ADD => i64::checked_add,
                    operators::SUBSTRACT => i64::checked_sub,
                    operators::MULTIPLY => i64::checked_mul,
                    operators::DIVIDE => i64::checked_div,
                    operators::MODULO => i64::checked_rem,
                    _ => return None,
                };
                let [a, b] = &call.args[..] else { return None };
                Some(Number::Made(made, Box::new((self.number(&a.expr)?, self.number(&b.expr)?))))
            }
            _ => None,
        }
    }

    fn list(&self, expression: &Expr) -> Option<Vec<i64>> {
        self.member(expression)?.as_array()?.iter().map(serde_json::Value::as_i64).collect()
    }

    /// `data.a.b`, where no variable hides it.
    fn member(&self, expression: &Expr) -> Option<&'a serde_json::Value> {
        match expression {
            Expr::Ident(name) if name == "data" && !self.variables.contains(&"data") => Some(self.data),
            Expr::Select(select) if !select.test => self.member(&select.operand.expr)?.get(&select.field),
            _ => None,
        }
    }
}

struct TestRun {
    variables: Vec<i64>,
    left: u64,
}

impl TestRun {
    fn test(&mut self, test: &Test) -> Option<bool> {
        match test {
            Test::Literal(holds) => Some(*holds),
            Test::Compared(compare, numbers) => Some(compare(&self.number(&numbers.0)?, &self.number(&numbers.1)?)),
            Test::Not(test) => self.test(test).map(|holds| !holds),
            Test::And(tests) => Some(self.test(&tests.0)? && self.test(&tests.1)?),
            Test::Or(tests) => Some(self.test(&tests.0)? || self.test(&tests.1)?),
            Test::Every { list, depth, until, body } => {
                self.left = self.left.checked_sub(list.len() as u64)?;
                for number in list {
                    self.variables.truncate(*depth);
                    self.variables.push(*number);
                    if self.test(body)? == *until {
                        return Some(*until);
                    }
                }
                Some(!*until)
            }
        }
    }

    fn number(&self, number: &Number) -> Option<i64> {
        match number {
            Number::Literal(number) => Some(*number),
            Number::Variable(at) => self.variables.get(*at).copied(),
            Number::Made(made, numbers) => made(self.number(&numbers.0)?, self.number(&numbers.1)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use cel::{Context, Program, Value};
    use proptest::prelude::*;

    use super::*;

    fn numbers() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("x".to_owned()),
            Just("y".to_owned()),
            Just("data.n".to_owned()),
            (-3i64..4).prop_map(|n| format!("({n})"))
        ];
        leaf.prop_recursive(3, 8, 2, |of| {
            (of.clone(), prop::sample::select(&["+", "-", "*", "/", "%"][..]), of)
                .prop_map(|(a, op, b)| format!("({a} {op} {b})"))
        })
    }

    fn tests() -> impl Strategy<Value = String> {
        let compares = (numbers(), prop::sample::select(&["==", "!=", "<", "<=", ">", ">="][..]), numbers());
        let leaf = compares.prop_map(|(a, op, b)| format!("({a} {op} {b})"));
        leaf.prop_recursive(2, 4, 2, |of| {
            prop_oneof![
                (of.clone(), prop::sample::select(&["&&", "||"][..]), of.clone())
                    .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
                of.prop_map(|of| format!("!{of}")),
            ]
        })
    }

    proptest! {
        /// Where it has an answer, it is the one that the library gives.
        #[test]
        fn answers_equal_those_of_the_library(
            body in tests(),
            outer in prop::sample::select(&["all", "exists"][..]),
            inner in prop::sample::select(&["all", "exists"][..]),
            list in prop::collection::vec(-3i64..4, 0..4),
        ) {
            let text = format!("data.l.{outer}(x, data.l.{inner}(y, {body}))");
            let program = Program::compile(&text).unwrap();
            let data = serde_json::json!({"l": list, "n": 2});
            if let Some(answer) = answer(program.expression(), &data, 1_000) {
                let mut context = Context::default();
                context.add_variable_from_value("data", super::super::value_of(&data));
                prop_assert_eq!(program.execute(&context).ok(), Some(Value::Bool(answer)), "{}", text);
            }
        }
    }

    #[test]
    fn other_expressions_have_no_answer() {
        let data = serde_json::json!({"l": [1, 2], "s": ["a"], "f": [1.5]});
        let ask = |text: &str| answer(Program::compile(text).unwrap().expression(), &data, 6);
        assert_eq!(ask("data.l.all(x, data.l.exists(y, x + y == 3))"), Some(true));
        assert_eq!(ask("data.l.all(x, data.l.all(y, data.l.all(z, x > 0)))"), None, "it has taken its share");
        for text in [
            "data.l.map(x, x)",
            "data.s.all(x, x == 'a')",
            "data.f.all(x, x > 1)",
            "data.none.all(x, x > 1)",
            "data.l.all(x, x / 0 == 1)",
            "data.l.exists_one(x, x == 1)",
        ] {
            assert_eq!(ask(text), None, "{text}");
        }
    }
}
