-- Source and id together tell an event (CloudEvents 1.0 § 3.1): the same event again is no second row.
CREATE TABLE events (
    source text NOT NULL,
    id     text NOT NULL,
    type   text NOT NULL,
    time   timestamptz,
    event  jsonb NOT NULL,
    PRIMARY KEY (source, id)
);
