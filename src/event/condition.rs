//! A condition over one event, in the Common Expression Language (<https://cel.dev>): `data.width > 256`.
//!
//! The event's attributes and `data` are variables by their own names, and members of `event`, so that `has(event.subject)`
//! can be asked. JSON's whole numbers are `int`; those beyond its range are `uint`.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use cel::{Context, Program, Value};

use super::{CORE_ATTRIBUTES, Data, Event, TypeFilter};

mod effort;
mod functions;
mod whole;

use effort::EventSize;

/// From this many steps on a condition is best answered on a thread of its own.
const QUICK: u64 = 20_000;

/// A condition, compiled. Two conditions of the same text are equal.
#[derive(Clone)]
pub struct Condition {
    text: String,
    program: Arc<Program>,
}

/// A group's filter: the types it wants, and its condition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Wanted types.
    pub types: TypeFilter,
    /// Optional CEL condition on the content.
    pub condition: Option<Condition>,
}

/// What a group says of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterResult {
    /// It is wanted.
    Wanted,
    /// Its type is not wanted.
    OtherType,
    /// The condition does not hold.
    DoesNotHold,
    /// The condition has no answer, which counts as no; why.
    NoAnswer(String),
    /// The condition cannot be evaluated: the event's data cannot be read as it needs it, or the
    /// answer would take too long; why.
    CannotEvaluate(String),
}

impl Filter {
    /// Judges an event by its type, and if that is wanted, by its content.
    pub fn evaluate(&self, event: &Event) -> FilterResult {
        if !self.types.matches(event.type_()) {
            return FilterResult::OtherType;
        }
        match self.condition.as_ref().map(|condition| condition.holds(event)) {
            None | Some(Ok(true)) => FilterResult::Wanted,
            Some(Ok(false)) => FilterResult::DoesNotHold,
            Some(Err(Unanswered::No(why))) => FilterResult::NoAnswer(why),
            Some(Err(Unanswered::Unknown(why))) => FilterResult::CannotEvaluate(why),
        }
    }

    /// Whether [`Filter::evaluate`] may take so long that others would wait for it.
    pub fn is_slow(&self, event: &Event) -> bool {
        self.condition.as_ref().is_some_and(|condition| condition.is_slow(event))
    }
}

/// Why a condition has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswered {
    /// Something that the condition asks for is missing, or of another type: then it does not hold.
    No(String),
    /// The condition could not be evaluated at all.
    Unknown(String),
}

/// Why a text is not a condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("where '{}' cannot be read at column {column}: {problem}", .text.escape_debug())]
pub struct ConditionError {
    /// The text.
    pub text: String,
    /// Where, in characters from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: String,
}

impl Condition {
    /// Whether it has regular expressions.
    pub fn has_patterns(&self) -> bool {
        self.text.contains("matches")
    }

    /// Compiles a condition.
    ///
    /// # Errors
    /// Where it is no expression.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        let refused = |problem: String| ConditionError { text: shortened(text), column: 1, problem };
        if text.len() > effort::MOST_BYTES {
            return Err(refused(format!("it has {} bytes, more than {}", text.len(), effort::MOST_BYTES)));
        }
        let nesting = effort::nesting(text);
        if nesting > effort::MOST_NESTING {
            return Err(refused(format!(
                "it has {nesting} operators and brackets, more than {}",
                effort::MOST_NESTING
            )));
        }
        let program = Program::compile(text).map_err(|errors| {
            let first = errors.errors.first();
            let column = first.map_or(1, |error| usize::try_from(error.pos.1).unwrap_or(1).max(1));
            let problem = first.map_or_else(String::new, |error| problem_text(&error.msg));
            ConditionError { text: text.to_owned(), column, problem }
        })?;
        if let Some(name) = functions::unknown(program.expression()) {
            let column = text.find(&name).map_or(1, |at| text[..at].chars().count() + 1);
            let problem = format!("there is no function '{name}'");
            return Err(ConditionError { text: text.to_owned(), column, problem });
        }
        Ok(Self { text: text.to_owned(), program: Arc::new(program) })
    }

    /// The condition as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether an answer may take so long that others would wait for it.
    pub fn is_slow(&self, event: &Event) -> bool {
        self.steps(event) > QUICK
    }

    /// The most steps that an answer for this event takes.
    fn steps(&self, event: &Event) -> u64 {
        let (raw, bytes) = match event.data() {
            Data::Json(raw) => (Some(raw), raw.get().len()),
            Data::Base64(text) => (None, text.len()),
            Data::Absent => (None, 0),
        };
        let core = CORE_ATTRIBUTES.into_iter().filter_map(|name| event.attribute(name)).map(|value| value.len());
        let extensions = event.extensions().iter().map(|(name, value)| name.len() + value.to_string().len());
        let size = EventSize {
            data_bytes: bytes as u64,
            attribute_bytes: core.chain(extensions).map(|len| len as u64 + 64).sum(),
            data: None,
        };
        let steps = |size: EventSize<'_>| effort::steps(self.program.expression(), size);
        // Most conditions and most events are small, and need no counting.
        let bound = steps(size);
        match raw.filter(|_| bound > QUICK).map(|raw| data_of(raw)) {
            Some(Ok(data)) => steps(EventSize { data: Some(&data), ..size }),
            // It cannot be evaluated, and so takes no time.
            Some(Err(_)) => 0,
            None => bound,
        }
    }

    /// Whether the condition holds for an event.
    ///
    /// # Errors
    /// Why there is no answer: something is missing, of another type, or the answer is no boolean;
    /// or the condition could not be evaluated at all.
    pub fn holds(&self, event: &Event) -> Result<bool, Unanswered> {
        let steps = self.steps(event);
        if steps > effort::MOST_STEPS {
            if let Data::Json(raw) = event.data()
                && let Some(holds) = data_of(raw)
                    .ok()
                    .and_then(|data| whole::answer(self.program.expression(), &data, whole::MOST_STEPS))
            {
                return Ok(holds);
            }
            let what = format!("'{}' would take up to {steps} steps on it", shortened(&self.text));
            return Err(Unanswered::Unknown(what));
        }
        match self.evaluate(event)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(Unanswered::No(format!("the answer is {}, not true or false", other.type_of()))),
        }
    }

    /// The answer as text, where it is a string, a number, a boolean, or a list of these; none where there is no answer.
    pub fn text(&self, event: &Event) -> Option<String> {
        if self.steps(event) > effort::MOST_STEPS {
            return None;
        }
        text_of(&self.evaluate(event).ok()?)
    }

    fn evaluate(&self, event: &Event) -> Result<Value, Unanswered> {
        let mut context = Context::default();
        let references = self.program.references();
        let whole = references.has_variable("event");
        let members = members(event, whole || references.has_variable("data"))?;
        for name in members.keys().filter(|name| references.has_variable(name.as_str())) {
            context.add_variable_from_value(name.clone(), members[name].clone());
        }
        if whole {
            context.add_variable_from_value("event", members);
        }
        self.program.execute(&context).map_err(|error| Unanswered::No(one_line(&error.to_string())))
    }
}

/// A value as text, from which it can be told from any other.
fn text_of(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => format!("{text:?}"),
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(is_true) => is_true.to_string(),
        Value::List(items) => format!("[{}]", items.iter().map(text_of).collect::<Option<Vec<_>>>()?.join(",")),
        _ => return None,
    })
}

impl Eq for Condition {}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// The start of a text, which may be long.
fn shortened(text: &str) -> String {
    let start: String = text.chars().take(100).collect();
    if start.len() < text.len() { start + "…" } else { start }
}

/// An event's data as conditions see it.
///
/// # Errors
/// Data that a condition cannot hold: a number beyond a double, half of a surrogate pair, more than
/// 127 levels.
fn data_of(raw: &serde_json::value::RawValue) -> Result<serde_json::Value, serde_json::Error> {
    serde_json::from_str(raw.get())
}

/// All attributes of an event, by name; its data only where the condition asks for it.
fn members(event: &Event, with_data: bool) -> Result<HashMap<String, Value>, Unanswered> {
    let core = CORE_ATTRIBUTES
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), Value::from(event.attribute(name)?.as_ref()))));
    let extensions = event.extensions().iter().map(|(name, value)| (name.clone(), value_of(value)));
    let mut members: HashMap<String, Value> = core.chain(extensions).collect();
    match event.data() {
        Data::Absent => {}
        Data::Json(_) if !with_data => {}
        Data::Json(raw) => {
            let data =
                data_of(raw).map_err(|error| Unanswered::Unknown(format!("its data cannot be read: {error}")))?;
            members.insert("data".to_owned(), value_of(&data));
        }
        Data::Base64(text) => {
            members.insert("data_base64".to_owned(), Value::from(text.as_str()));
        }
    }
    Ok(members)
}

fn value_of(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Value::Int(int),
            (None, Some(uint)) => Value::UInt(uint),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(value_of).collect::<Vec<_>>()),
        Json::Object(object) => {
            let members: HashMap<String, Value> =
                object.iter().map(|(name, value)| (name.clone(), value_of(value))).collect();
            Value::from(members)
        }
    }
}

/// The parser's message without its list of everything that it would have accepted.
fn problem_text(message: &str) -> String {
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    let message = message.split(" expecting ").next().unwrap_or(message);
    one_line(&message.replace("mismatched input '<EOF>'", "it ends too early"))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        let data = r#"{"width": 300, "ratio": 1.5, "big": 18446744073709551615, "tags": ["x", "y"], "none": null}"#;
        let document = format!(
            r#"{{"specversion": "1.0", "id": "1", "source": "/s", "type": "image.uploaded", "partitionkey": "k", "data": {data}}}"#
        );
        Event::parse(document.as_bytes(), 10_000).unwrap()
    }

    fn holds(text: &str) -> Result<bool, Unanswered> {
        Condition::parse(text).unwrap().holds(&event())
    }

    #[test]
    fn conditions_read_attributes_and_data() {
        for text in [
            "data.width > 256",
            "data.width % 2 == 0 && data.width + 1 == 301",
            "data.ratio < 2 && data.big > 1",
            "type == 'image.uploaded' && partitionkey == 'k'",
            "event.type.startsWith('image.') && !has(event.subject)",
            "'y' in data.tags && data.tags.exists(tag, tag == 'x') && size(data.tags) == 2",
            "data.none == null && !has(data.missing)",
            "source.matches('^/s$')",
        ] {
            assert_eq!(holds(text), Ok(true), "{text}");
        }
        assert_eq!(holds("data.width < 256"), Ok(false));
    }

    #[test]
    fn a_condition_that_cannot_be_evaluated_has_no_answer() {
        for (text, why) in [
            ("data.missing == 1", "No such key: missing"),
            ("subject == 'a'", "subject"),
            ("data.width > 'a'", "overload"),
            ("data.width", "not true or false"),
            ("1 / 0 == 1", "Division by zero"),
        ] {
            let Err(Unanswered::No(said)) = holds(text) else { panic!("{text}") };
            assert!(said.contains(why) && !said.contains('\n'), "{text}: {said}");
        }
    }

    /// On a thread with as little room as any that runs conditions.
    #[test]
    fn oversized_conditions_are_refused_and_others_fit_the_stack() {
        let deepest = |open: &str, middle: &str, close: &str, levels: usize| {
            format!("{}{middle}{}", open.repeat(levels), close.repeat(levels))
        };
        let most = effort::MOST_NESTING;
        let chains = [" + 1", " || true", ".x", " ? 1 : 1", " in [1]", "[0]"];
        let mut taken: Vec<String> = chains
            .iter()
            .map(|link| format!("data.width{}", link.repeat((most - 1) / effort::nesting(link).max(1))))
            .collect();
        taken.extend([deepest("(", "true", ")", most), deepest("!", "true", "", most), deepest("[", "1", "]", most)]);
        taken.push(deepest("[1].all(x, ", "true", ")", most / 3));
        let small = std::thread::Builder::new().stack_size(2 << 20);
        let answers = small.spawn(move || taken.iter().map(|text| holds_or_not(text)).collect::<Vec<_>>()).unwrap();
        assert_eq!(answers.join().unwrap().len(), chains.len() + 4);
        for text in [" + 1".repeat(most + 1), format!(" == '{}'", "x".repeat(effort::MOST_BYTES))] {
            let refused = Condition::parse(&format!("1{text}")).unwrap_err().to_string();
            assert!(refused.contains("more than") && refused.len() < 250, "{refused}");
        }
        // What stands in a string leads nowhere.
        assert!(Condition::parse(&format!("type == '{}'", "((((".repeat(most))).is_ok());
    }

    fn holds_or_not(text: &str) -> Option<bool> {
        Condition::parse(text).ok().and_then(|condition| condition.holds(&event()).ok())
    }

    #[test]
    fn a_condition_over_the_step_limit_is_not_evaluated() {
        let list = format!("[{}]", vec!["1"; 20_000].join(","));
        let document = format!(
            r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{{"l":{list},"s":"{}"}}}}"#,
            "a".repeat(100_000)
        );
        let event = Event::parse(document.as_bytes(), 1 << 20).unwrap();
        for text in [
            "data.l.all(x, data.l.all(y, x + y >= 0 && data.s != 'b'))",
            "data.l.exists(x, data.l.filter(y, y == x).size() > 3)",
            "data.l.exists(x, x + 1 in data.l)",
            "data.l.all(x, data.s.matches('(a*)*b'))",
            // What is compared, copied or made counts by its size, or it would fill the memory.
            "data.l.all(x, data.l == data.l)",
            "data.l.map(x, data.s + data.s).size() > 0",
            "data.l.map(x, data.l).map(x, x + x).map(x, x + x).size() > 0",
            "data.l.all(x, data.s + data.s + data.s != '')",
            "data.l.map(x, [data.l, data.l]).size() > 0",
        ] {
            let answer = Condition::parse(text).unwrap().holds(&event);
            assert!(matches!(&answer, Err(Unanswered::Unknown(why)) if why.contains("steps")), "{text}: {answer:?}");
        }
        for text in [
            "data.l.all(x, x == 1)",
            "data.l.map(x, x + 1).size() == 20000",
            "data.l.filter(x, x == 1).map(x, [x, x]).size() == 20000",
            "data.s + data.s != data.s && data.l == data.l",
        ] {
            assert_eq!(Condition::parse(text).unwrap().holds(&event), Ok(true), "{text}");
        }
        // Whole numbers are quick enough for a nested macro.
        assert_eq!(Condition::parse("data.l.all(x, data.l.exists(y, x + y == 2))").unwrap().holds(&event), Ok(true));
    }

    #[test]
    fn unreadable_data_is_unknown_rather_than_false() {
        let deep = format!("{}{}", "[".repeat(140), "]".repeat(140));
        for note in ["1e999", "\"\\ud800\"", &deep] {
            let document = format!(
                r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{{"width":300,"note":{note}}}}}"#
            );
            let event = Event::parse(document.as_bytes(), 1 << 20).unwrap();
            let of = |text: &str| Condition::parse(text).unwrap().holds(&event);
            assert!(matches!(of("data.width > 256"), Err(Unanswered::Unknown(_))), "{note}");
            assert!(matches!(of("event.data.width > 256"), Err(Unanswered::Unknown(_))), "{note}");
            assert_eq!(of("type == 't'"), Ok(true), "what does not ask for the data has its answer");
        }
    }

    #[test]
    fn an_unknown_function_is_refused() {
        for (text, name, column) in [
            ("startswith(subject, 'a')", "startswith", 1),
            ("data.n > 1 && nofunc(1)", "nofunc", 15),
            ("subject.beginsWith('a')", "beginsWith", 9),
            ("data.l.all(x, lower(x) == 'a')", "lower", 15),
        ] {
            let refused = Condition::parse(text).unwrap_err();
            assert_eq!((refused.column, refused.problem), (column, format!("there is no function '{name}'")));
        }
        for text in [
            "size(data.l) > 0 && data.l.size() > 0",
            "subject.startsWith('a') || subject.endsWith('b') || subject.contains('c') || subject.matches('d')",
            "string(data.n) == '1' && int(subject) == 1 && double(subject) > 0.5 && uint(subject) == 1u",
            "has(data.n) && data.l.exists_one(x, x == 1) && data.l.filter(x, x > 1).map(x, x + 1).size() == 2",
            "(data.n in [1, 2]) ? data.m['a'] : type(data.n) == int && dyn(data.n) == 1 && -data.n < 0",
        ] {
            assert!(Condition::parse(text).is_ok(), "{text}: {:?}", Condition::parse(text));
        }
    }

    #[test]
    fn a_syntax_error_is_refused_with_its_column() {
        let refused = |text: &str| Condition::parse(text).unwrap_err().to_string();
        assert_eq!(refused("data.width >"), "where 'data.width >' cannot be read at column 13: it ends too early");
        assert_eq!(
            refused("data.width === 2"),
            "where 'data.width === 2' cannot be read at column 14: token recognition error at: '= '"
        );
        assert!(refused("").contains("at column 1: it ends too early"));
    }
}
