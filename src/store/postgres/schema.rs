//! The tables of a bus in a PostgreSQL database, and what the statements on them have in common.

/// The release of the tables' form. A database with a later one is refused.
pub const FORMAT: i32 = 1;

pub use crate::store::quoted_name as quoted;

/// What a token begins with that a standby gives.
pub(super) const STANDBY: &str = "standby";

/// A text as SQL.
pub fn literal(text: &str) -> String {
    // Backslashes mean nothing with standard_conforming_strings, and something without: in the second form always.
    match text.contains('\\') {
        true => format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
        false => format!("'{}'", text.replace('\'', "''")),
    }
}

/// The expression whose value changes when the server may have lost its latest commits: the server's start, which a
/// failover and a recovery of a backup change, and the file of the registers' table within its database's folder, which a
/// restored dump or a copy of the database changes.
pub(super) fn token(schema: &str) -> String {
    let table = literal(&format!("{}.register", quoted(schema)));
    format!(
        "CASE WHEN pg_is_in_recovery() THEN '{STANDBY}' ELSE to_hex((extract(epoch FROM pg_postmaster_start_time()) \
         * 1000000)::bigint) || '-' || pg_relation_filepath({table}::regclass) END"
    )
}

/// The statements that make the schema; each is harmless where it was run before.
pub fn definition(schema: &str) -> String {
    let s = quoted(schema);
    format!(
        "CREATE SCHEMA IF NOT EXISTS {s};

-- The form of these tables.
CREATE TABLE IF NOT EXISTS {s}.meta (
    one bool PRIMARY KEY DEFAULT true CHECK (one),
    format int NOT NULL
);
INSERT INTO {s}.meta (format) VALUES ({FORMAT}) ON CONFLICT DO NOTHING;

-- Events and everything else that is written once.
CREATE TABLE IF NOT EXISTS {s}.object (
    key text COLLATE \"C\" PRIMARY KEY,
    body bytea NOT NULL
);

-- What is replaced: the row of a key with the greatest number counts.
CREATE TABLE IF NOT EXISTS {s}.register (
    key text COLLATE \"C\" NOT NULL,
    n bigint NOT NULL,
    ver uuid NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (key, n)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- Events that an application emits within its own transactions; `evbus relay` moves them.
CREATE TABLE IF NOT EXISTS {s}.outbox (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL DEFAULT gen_random_uuid()::text,
    type text NOT NULL,
    source text,
    subject text,
    key text,
    data json,
    attr json,
    \"time\" timestamptz NOT NULL DEFAULT clock_timestamp()
);

{}
-- The events, for reading: one row each, also where many lie in one object.
CREATE OR REPLACE VIEW {s}.events AS
SELECT o.key, l.line,
    l.safe ->> 'id' AS id, l.safe ->> 'type' AS type, l.safe ->> 'source' AS source,
    l.safe ->> 'subject' AS subject, l.safe ->> 'time' AS \"time\", l.event -> 'data' AS data, l.event
FROM {s}.object o
CROSS JOIN LATERAL (
    -- A text cannot hold the character of number 0, which JSON can.
    SELECT ordinality AS line, text::json AS event,
        regexp_replace(text, E'(?<!\\\\\\\\)((?:\\\\\\\\\\\\\\\\)*)\\\\\\\\u0000', E'\\\\1\\\\\\\\ufffd', 'g')::json AS safe
    FROM regexp_split_to_table(convert_from(o.body, 'UTF8'), E'\\n') WITH ORDINALITY AS t (text, ordinality)
    WHERE text <> ''
) l
WHERE o.key >= 'events/' AND o.key < 'events0';
",
        parked(&s)
    )
}

/// The statement that makes the table of rows of outboxes that are no events; `schema` is quoted.
pub fn parked(schema: &str) -> String {
    format!(
        "-- Rows of outboxes that are no events, with the reason.
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TABLE IF NOT EXISTS {schema}.outbox_parked (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    of text NOT NULL,
    row_ json NOT NULL,
    reason text NOT NULL,
    parked timestamptz NOT NULL DEFAULT clock_timestamp()
);
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
    }
}
