//! A condition over one event, in the Common Expression Language (<https://cel.dev>): `data.width > 256`.
//!
//! The event's attributes and `data` are variables by their own names, and members of `event`, so that `has(event.subject)`
//! can be asked. JSON's whole numbers are `int`; those beyond its range are `uint`.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use cel::{Context, Program, Value};

use super::{Data, Event, TypeFilter};

/// The attributes that every event may have (CloudEvents 1.0.2 § Context Attributes); its extensions come besides.
const ATTRIBUTES: [&str; 8] =
    ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"];

/// A condition, compiled. Equal to another of the same text.
#[derive(Clone)]
pub struct Condition {
    text: String,
    program: Rc<Program>,
}

/// All that a group wants of an event: its type, and what must hold besides.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wants {
    /// Wanted types.
    pub types: TypeFilter,
    /// What must hold besides; none: nothing.
    pub condition: Option<Condition>,
}

/// What a group says of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It is wanted.
    Wanted,
    /// Its type is not.
    OtherType,
    /// The condition does not hold.
    DoesNotHold,
    /// The condition has no answer, which counts as no; why.
    NoAnswer(String),
}

impl Wants {
    /// Judges an event by its type, and if that is wanted, by its content.
    pub fn judge(&self, event: &Event) -> Judgement {
        if !self.types.matches(event.type_()) {
            return Judgement::OtherType;
        }
        match self.condition.as_ref().map(|condition| condition.holds(event)) {
            None | Some(Ok(true)) => Judgement::Wanted,
            Some(Ok(false)) => Judgement::DoesNotHold,
            Some(Err(why)) => Judgement::NoAnswer(why),
        }
    }
}

/// Why a text is no condition.
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
    /// Compiles a condition.
    ///
    /// # Errors
    /// Where it is no expression.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        let program = Program::compile(text).map_err(|errors| {
            let first = errors.errors.first();
            let column = first.map_or(1, |error| usize::try_from(error.pos.1).unwrap_or(1).max(1));
            let problem = first.map_or_else(String::new, |error| in_words(&error.msg));
            ConditionError { text: text.to_owned(), column, problem }
        })?;
        Ok(Self { text: text.to_owned(), program: Rc::new(program) })
    }

    /// The condition as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it holds for an event.
    ///
    /// # Errors
    /// Why that cannot be said: something is missing, of another type, or the answer is no boolean.
    pub fn holds(&self, event: &Event) -> Result<bool, String> {
        let mut context = Context::default();
        let members = members(event);
        let references = self.program.references();
        for name in members.keys().filter(|name| references.has_variable(name.as_str())) {
            context.add_variable_from_value(name.clone(), members[name].clone());
        }
        if references.has_variable("event") {
            context.add_variable_from_value("event", members);
        }
        match self.program.execute(&context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("the answer is {}, not true or false", other.type_of())),
            Err(error) => Err(one_line(&error.to_string())),
        }
    }
}

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

/// All that an event has, by name.
fn members(event: &Event) -> HashMap<String, Value> {
    let core =
        ATTRIBUTES.into_iter().filter_map(|name| Some((name.to_owned(), Value::from(event.attribute(name)?.as_ref()))));
    let extensions = event.extensions().iter().map(|(name, value)| (name.clone(), value_of(value)));
    let mut members: HashMap<String, Value> = core.chain(extensions).collect();
    match event.data() {
        Data::Absent => {}
        Data::Json(raw) => {
            let data = serde_json::from_str(raw.get()).unwrap_or_default();
            members.insert("data".to_owned(), value_of(&data));
        }
        Data::Base64(text) => {
            members.insert("data_base64".to_owned(), Value::from(text.as_str()));
        }
    }
    members
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

/// The parser's words without the list of all that it would have taken.
fn in_words(message: &str) -> String {
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

    fn holds(text: &str) -> Result<bool, String> {
        Condition::parse(text).unwrap().holds(&event())
    }

    #[test]
    fn attributes_and_data_can_be_asked() {
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
    fn what_cannot_be_said_is_no_answer() {
        for (text, why) in [
            ("data.missing == 1", "No such key: missing"),
            ("subject == 'a'", "subject"),
            ("data.width > 'a'", "overload"),
            ("data.width", "not true or false"),
            ("1 / 0 == 1", "Division by zero"),
        ] {
            let said = holds(text).unwrap_err();
            assert!(said.contains(why) && !said.contains('\n'), "{text}: {said}");
        }
    }

    #[test]
    fn a_text_that_is_no_condition_is_refused_with_the_place() {
        let refused = |text: &str| Condition::parse(text).unwrap_err().to_string();
        assert_eq!(refused("data.width >"), "where 'data.width >' cannot be read at column 13: it ends too early");
        assert_eq!(
            refused("data.width === 2"),
            "where 'data.width === 2' cannot be read at column 14: token recognition error at: '= '"
        );
        assert!(refused("").contains("at column 1: it ends too early"));
    }
}
