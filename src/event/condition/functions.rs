//! Whether the functions that a condition calls exist. The library finds out only when it evaluates
//! the condition, and a missing function would leave every event without an answer.

use cel::common::ast::{EntryExpr, Expr};
use cel::{Context, ExecutionError, IdedExpr, Program};

/// The first function that an expression calls and that does not exist.
pub(super) fn unknown(expression: &IdedExpr) -> Option<String> {
    match &expression.expr {
        Expr::Call(call) => {
            let name = &call.func_name;
            // Operators have names that no function can have.
            let is_operator = !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') || name.starts_with('_');
            let of = match call.target.as_deref().map(|target| &target.expr) {
                // What looks like a variable may be the first part of the function's name.
                Some(Expr::Ident(part)) => format!("{part}.{name}()"),
                _ => format!("{name}()"),
            };
            if !is_operator && [of, format!("{name}()"), format!("''.{name}()")].iter().all(|text| is_undeclared(text))
            {
                return Some(name.clone());
            }
            call.target.as_deref().into_iter().chain(&call.args).find_map(unknown)
        }
        Expr::Comprehension(macro_) => {
            [&macro_.iter_range, &macro_.accu_init, &macro_.loop_cond, &macro_.loop_step, &macro_.result]
                .into_iter()
                .find_map(unknown)
        }
        Expr::List(list) => list.elements.iter().find_map(unknown),
        Expr::Map(map) => map.entries.iter().find_map(|entry| unknown_in(&entry.expr)),
        Expr::Struct(message) => message.entries.iter().find_map(|entry| unknown_in(&entry.expr)),
        Expr::Select(select) => unknown(&select.operand),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => None,
    }
}

fn unknown_in(entry: &EntryExpr) -> Option<String> {
    match entry {
        EntryExpr::StructField(field) => unknown(&field.value),
        EntryExpr::MapEntry(entry) => unknown(&entry.key).or_else(|| unknown(&entry.value)),
    }
}

/// Whether a call fails because there is no such function, and not because of its arguments.
fn is_undeclared(call: &str) -> bool {
    let answer = Program::compile(call).map(|program| program.execute(&Context::default()).map(|_| ()));
    matches!(answer, Ok(Err(ExecutionError::UndeclaredReference(_))))
}
