//! How long a condition may take, and how much memory: bounds on its text, and on the steps that
//! one event can make it take.
//!
//! CEL has no loops but its macros (`all`, `exists`, `map`, …), each of which goes once through a
//! list. So the greatest possible number of steps is known before the first is taken, from the
//! sizes of the values: the expression's own steps, plus those of a macro's body for each element.
//! Comparing, copying or making a value counts by its size, so that the steps bound the memory as
//! well. An element of a list counts as large as the elements are on average, which is right for
//! their sum.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};
use serde_json::Value as Json;

/// The longest text of a condition, in bytes.
pub(super) const MOST_BYTES: usize = 16 << 10;

/// The most characters, outside of strings, that may lead one level deeper: what is nested more
/// deeply has no room on a thread's stack.
pub(super) const MOST_NESTING: usize = 300;

/// A condition that could take more steps than this has no answer. A step is some hundred nanoseconds.
pub(super) const MOST_STEPS: u64 = 10_000_000;

/// How many bytes are compared, copied or made in one step.
const BYTES_A_STEP: u64 = 16;

/// What a value takes in memory in addition to the bytes of its text.
const VALUE_BYTES: u64 = 64;

/// The properties of an event that decide how long a condition takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventSize<'a> {
    /// The size of its data as text, in bytes.
    pub data_bytes: u64,
    /// The size of its attributes, in bytes.
    pub attribute_bytes: u64,
    /// Its data, where it was read: then each part of it counts by its own size.
    pub data: Option<&'a Json>,
}

/// How many characters of a text may lead one level deeper.
pub(super) fn nesting(text: &str) -> usize {
    let (mut quoted, mut escaped, mut count) = (None, false, 0);
    for character in text.chars() {
        match quoted {
            Some(_) if escaped => escaped = false,
            Some(_) if character == '\\' => escaped = true,
            Some(quote) if character == quote => quoted = None,
            Some(_) => {}
            None if matches!(character, '"' | '\'') => quoted = Some(character),
            None => count += usize::from("+-*/%&|<>=!?:.([{".contains(character)),
        }
    }
    // An `in` is an operator of letters.
    count + text.matches(" in ").count()
}

/// What a value takes in memory, in bytes.
fn bytes_of(value: &Json) -> u64 {
    let parts = match value {
        Json::Array(items) => items.iter().map(bytes_of).sum(),
        Json::Object(members) => members.iter().map(|(name, value)| name.len() as u64 + bytes_of(value)).sum(),
        Json::String(text) => text.len() as u64,
        Json::Null | Json::Bool(_) | Json::Number(_) => 0,
    };
    VALUE_BYTES + parts
}

/// The most steps that an expression takes on an event of this size.
pub(super) fn steps(expression: &IdedExpr, size: EventSize<'_>) -> u64 {
    let data_bytes = match size.data {
        Some(data) => bytes_of(data),
        // Two characters make a value at most.
        None => size.data_bytes.saturating_mul(1 + VALUE_BYTES / 2).saturating_add(VALUE_BYTES),
    };
    Estimate { size, data_bytes, variables: Vec::new() }.of(expression).steps
}

/// What an expression takes at most.
#[derive(Debug, Clone, Copy)]
struct Cost {
    steps: u64,
    /// The size of its value, in bytes.
    bytes: u64,
}

impl Cost {
    const fn of_value(bytes: u64) -> Self {
        Self { steps: 1, bytes }
    }

    /// Both, one after the other; the sizes of their values add up.
    const fn and(self, other: Self) -> Self {
        Self { steps: self.steps.saturating_add(other.steps), bytes: self.bytes.saturating_add(other.bytes) }
    }

    /// The same, and `bytes` more that are compared, copied or made.
    const fn touching(self, bytes: u64) -> Self {
        Self { steps: self.steps.saturating_add(bytes / BYTES_A_STEP), ..self }
    }

    const fn with_bytes(self, bytes: u64) -> Self {
        Self { bytes, ..self }
    }
}

struct Estimate<'a> {
    size: EventSize<'a>,
    data_bytes: u64,
    /// The variables of the macros around, and how large each is.
    variables: Vec<(&'a str, u64)>,
}

impl<'a> Estimate<'a> {
    fn of(&mut self, expression: &'a IdedExpr) -> Cost {
        match &expression.expr {
            Expr::Literal(LiteralValue::String(text)) => Cost::of_value(VALUE_BYTES + text.inner().len() as u64),
            Expr::Literal(_) | Expr::Unspecified => Cost::of_value(VALUE_BYTES),
            Expr::Ident(name) => Cost::of_value(self.variable(name)),
            Expr::Select(select) => {
                let operand = self.of(&select.operand);
                let bytes = self.part(expression).map_or(operand.bytes, bytes_of);
                Cost { steps: operand.steps.saturating_add(1), bytes }
            }
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::List(list) => {
                let all = list.elements.iter().fold(Cost::of_value(VALUE_BYTES), |sum, part| sum.and(self.of(part)));
                let own = VALUE_BYTES.saturating_mul(list.elements.len() as u64);
                all.with_bytes(all.bytes.saturating_add(own)).touching(all.bytes)
            }
            Expr::Map(map) => self.entries(&map.entries),
            Expr::Struct(message) => self.entries(&message.entries),
        }
    }

    fn variable(&self, name: &str) -> u64 {
        let of_macro = self.variables.iter().rev().find(|(variable, _)| *variable == name);
        match (of_macro, name) {
            (Some((_, bytes)), _) => *bytes,
            (None, "data") => self.data_bytes,
            (None, "event") => self.data_bytes.saturating_add(self.size.attribute_bytes),
            (None, _) => VALUE_BYTES + self.size.attribute_bytes,
        }
    }

    /// The part of the data that is selected by names alone, where it was read.
    fn part(&self, expression: &IdedExpr) -> Option<&'a Json> {
        match &expression.expr {
            Expr::Ident(name) if name == "data" && !self.variables.iter().any(|(variable, _)| *variable == "data") => {
                self.size.data
            }
            Expr::Select(select) => self.part(&select.operand)?.get(&select.field),
            _ => None,
        }
    }

    fn call(&mut self, call: &'a CallExpr) -> Cost {
        let parts: Vec<Cost> = call.target.as_deref().into_iter().chain(&call.args).map(|part| self.of(part)).collect();
        let all = parts.iter().fold(Cost { steps: 1, bytes: 0 }, |sum, part| sum.and(*part));
        let answer = all.with_bytes(VALUE_BYTES);
        let bytes = |at: usize| parts.get(at).map_or(0, |part| part.bytes);
        match call.func_name.as_str() {
            operators::EQUALS
            | operators::NOT_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS => answer.touching(bytes(0).min(bytes(1))),
            operators::IN => {
                let len = bytes(1) / VALUE_BYTES;
                answer.and(Cost { steps: len / 4, bytes: 0 }).touching(len.saturating_mul(bytes(0)).min(bytes(1)))
            }
            operators::CONDITIONAL => all.with_bytes(bytes(1).max(bytes(2))),
            operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT => all.with_bytes(bytes(0)),
            operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::NOT_STRICTLY_FALSE
            | operators::SUBSTRACT
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO
            | operators::NEGATE
            | "size" => answer,
            // A regular expression looks at each character several times.
            "matches" => answer.touching(bytes(0) / 4),
            "contains" | "startsWith" | "endsWith" => answer.touching(bytes(0) / 64),
            // A call that makes a value of its arguments, `+` above all.
            _ => all.touching(all.bytes),
        }
    }

    /// A macro, as the parser expands it: what it gathers grows with each step.
    fn comprehension(&mut self, macro_: &'a ComprehensionExpr) -> Cost {
        let range = self.of(&macro_.iter_range);
        let init = self.of(&macro_.accu_init);
        // No element is smaller than this.
        let turns = (range.bytes / VALUE_BYTES).saturating_add(1);
        let variables = self.variables.len();
        self.variables.push((&macro_.iter_var, VALUE_BYTES + range.bytes / turns));
        self.variables.extend(macro_.iter_var2.as_deref().map(|name| (name, VALUE_BYTES + range.bytes / turns)));
        self.variables.push((&macro_.accu_var, 0));
        let body = self.of(&macro_.loop_cond).with_bytes(0).and(self.of(&macro_.loop_step));
        self.variables.truncate(variables);
        let gathered = init.bytes.saturating_add(turns.saturating_mul(body.bytes));
        self.variables.push((&macro_.accu_var, gathered));
        let result = self.of(&macro_.result);
        self.variables.truncate(variables);
        let around = range.and(init).and(result);
        let steps = turns.saturating_mul(body.steps).saturating_add(around.steps);
        Cost { steps, bytes: result.bytes }
    }

    fn entries(&mut self, entries: &'a [cel::common::ast::IdedEntryExpr]) -> Cost {
        let mut all = Cost::of_value(VALUE_BYTES);
        for entry in entries {
            all = match &entry.expr {
                EntryExpr::StructField(field) => all.and(self.of(&field.value)),
                EntryExpr::MapEntry(entry) => all.and(self.of(&entry.key)).and(self.of(&entry.value)),
            };
        }
        all.touching(all.bytes)
    }
}
