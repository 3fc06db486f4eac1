//! How long a condition may take: bounds on its text, and on the steps that one event can make it take.
//!
//! CEL has no loops but its macros (`all`, `exists`, `map`, …), each of which goes once through a list. So the steps are
//! at most the nodes of the expression, those of a macro's body times the longest list there is, and that can be told
//! before the first is taken.

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr};

/// The longest text of a condition, in bytes.
pub(super) const MOST_BYTES: usize = 16 << 10;

/// So many characters that may lead one level deeper may stand in it, outside of strings: what is nested more deeply has
/// no room on a thread's stack.
pub(super) const MOST_NESTING: usize = 300;

/// A condition that could take more steps than this has no answer. A step is some hundred nanoseconds.
pub(super) const MOST_STEPS: u64 = 10_000_000;

/// What of an event decides how long a condition takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bulk {
    /// The members of its longest list or object.
    pub longest: u64,
    /// Its size, in bytes.
    pub bytes: u64,
}

/// So many characters of a text may lead one level deeper.
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

/// The length of the longest list or map in a value.
pub(super) fn longest(value: &serde_json::Value) -> usize {
    use serde_json::Value as Json;
    match value {
        Json::Array(items) => items.iter().map(longest).max().unwrap_or(0).max(items.len()),
        Json::Object(members) => members.values().map(longest).max().unwrap_or(0).max(members.len()),
        _ => 0,
    }
}

/// The most steps that an expression takes on an event of this bulk.
pub(super) fn steps(expression: &IdedExpr, bulk: Bulk) -> u64 {
    let each = |parts: &mut dyn Iterator<Item = &IdedExpr>| {
        parts.fold(1u64, |sum, part| sum.saturating_add(steps(part, bulk)))
    };
    match &expression.expr {
        Expr::Call(call) => {
            let parts = each(&mut call.target.as_deref().into_iter().chain(&call.args));
            parts.saturating_add(weight(&call.func_name, bulk))
        }
        Expr::Comprehension(macro_) => {
            let turns = bulk.longest.max(literal_len(&macro_.iter_range)).saturating_add(1);
            let body = each(&mut [&macro_.loop_cond, &macro_.loop_step].into_iter());
            let rest = each(&mut [&macro_.iter_range, &macro_.accu_init, &macro_.result].into_iter());
            turns.saturating_mul(body).saturating_add(rest)
        }
        Expr::List(list) => each(&mut list.elements.iter()),
        Expr::Map(map) => entries(&map.entries, bulk),
        Expr::Struct(message) => entries(&message.entries, bulk),
        Expr::Select(select) => 1u64.saturating_add(steps(&select.operand, bulk)),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => 1,
    }
}

fn entries(entries: &[cel::common::ast::IdedEntryExpr], bulk: Bulk) -> u64 {
    let of = |entry: &EntryExpr| match entry {
        EntryExpr::StructField(field) => steps(&field.value, bulk),
        EntryExpr::MapEntry(entry) => steps(&entry.key, bulk).saturating_add(steps(&entry.value, bulk)),
    };
    entries.iter().fold(1u64, |sum, entry| sum.saturating_add(of(&entry.expr)))
}

/// What a function may do besides: go through a list, or through a text.
fn weight(function: &str, bulk: Bulk) -> u64 {
    match function {
        "@in" => bulk.longest / 4,
        "matches" => bulk.bytes / 64,
        "contains" | "startsWith" | "endsWith" => bulk.bytes / 4_096,
        _ => 0,
    }
}

fn literal_len(range: &IdedExpr) -> u64 {
    match &range.expr {
        Expr::List(list) => list.elements.len() as u64,
        Expr::Map(map) => map.entries.len() as u64,
        // Two lists put together.
        Expr::Call(call) => call.args.iter().map(literal_len).fold(0, u64::saturating_add),
        _ => 0,
    }
}
