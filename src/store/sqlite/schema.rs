//! The tables of a bus in a SQLite file. Their names begin with `evbus_`, so that they may lie in an application's own
//! file.

/// The release of the tables' form. A file with a later one is refused.
pub const FORMAT: i64 = 1;

/// The statements that make the tables; each is harmless where it was run before.
pub const DEFINITION: &str = "
CREATE TABLE IF NOT EXISTS evbus_meta (one INTEGER PRIMARY KEY CHECK (one = 1), format INTEGER NOT NULL);
INSERT INTO evbus_meta VALUES (1, 1) ON CONFLICT DO NOTHING;

-- Events and everything else that is written once.
CREATE TABLE IF NOT EXISTS evbus_object (key TEXT NOT NULL UNIQUE, body BLOB NOT NULL);

-- What is replaced.
CREATE TABLE IF NOT EXISTS evbus_register (
    key TEXT PRIMARY KEY, n INTEGER NOT NULL, ver INTEGER NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID;

-- Events that an application emits within its own transactions; `evbus relay` moves them.
CREATE TABLE IF NOT EXISTS evbus_outbox (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),
    type TEXT NOT NULL,
    source TEXT,
    subject TEXT,
    key TEXT,
    data TEXT,
    attr TEXT,
    time TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

-- The events, for reading: one row each, also where many lie in one object.
CREATE VIEW IF NOT EXISTS evbus_events AS
SELECT o.key, e.key + 1 AS line,
    json_extract(e.value, '$.id') AS id, json_extract(e.value, '$.type') AS type,
    json_extract(e.value, '$.source') AS source, json_extract(e.value, '$.subject') AS subject,
    json_extract(e.value, '$.time') AS time, json_extract(e.value, '$.data') AS data, e.value AS event
FROM evbus_object o, json_each('[' || CASE
    WHEN o.key LIKE '%.ndjson' THEN replace(rtrim(CAST(o.body AS TEXT), char(10)), char(10), ',')
    ELSE CAST(o.body AS TEXT) END || ']') e
WHERE o.key >= 'events/' AND o.key < 'events0';
";

/// The table of rows of an outbox that are no events, with the reason.
pub const PARKED: &str = "
CREATE TABLE IF NOT EXISTS evbus_outbox_parked (
    n INTEGER PRIMARY KEY, of TEXT NOT NULL, row_ TEXT NOT NULL, reason TEXT NOT NULL,
    parked TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
";
