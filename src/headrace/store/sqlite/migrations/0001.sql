-- The first tables. What was released is never edited: a change is one more file here, with the next number.

-- One narrow row a request; everything large lies elsewhere, so that looking through requests stays cheap.
-- Times are seconds since 1970.
CREATE TABLE requests (
    number          INTEGER PRIMARY KEY,    -- rises with age
    id              TEXT NOT NULL UNIQUE,
    app             TEXT NOT NULL,
    endpoint        TEXT NOT NULL,
    view            TEXT NOT NULL,
    owner           TEXT,
    headers         TEXT NOT NULL,          -- JSON: name to value
    priority        INTEGER NOT NULL,       -- 0 before 1
    may_retry       INTEGER NOT NULL,
    runner_hint     TEXT,
    webhook         TEXT,
    idempotency_key TEXT,
    body_hash       BLOB,                   -- SHA-256, beside an idempotency key
    state           TEXT NOT NULL
        CHECK (state IN ('queued', 'running', 'cancelling', 'completed', 'failed', 'cancelled')),
    attempt         INTEGER NOT NULL DEFAULT 0,
    node            TEXT,
    lease_until     REAL,
    created_at      REAL NOT NULL,
    start_deadline  REAL,
    not_before      REAL,
    started_at      REAL,
    finished_at     REAL,
    status          INTEGER,                -- the outcome's, with the two below
    error           TEXT,
    error_type      TEXT,
    result_bytes    INTEGER NOT NULL DEFAULT 0,
    events_end      INTEGER NOT NULL DEFAULT 0,
    events_bytes    INTEGER NOT NULL DEFAULT 0,
    logs_end        INTEGER NOT NULL DEFAULT 0,
    logs_bytes      INTEGER NOT NULL DEFAULT 0,
    is_large        INTEGER NOT NULL DEFAULT 0, -- its result is one of those that go sooner
    spare_since     REAL                    -- ended then, and no webhook waits: retention may take it
);

-- The queue of an app in its order. With the state in it a request's position is a count over this index alone.
CREATE INDEX queued ON requests (app, priority, number, state) WHERE state = 'queued';

-- What a node looks at when it starts: not a row of what has ended.
CREATE INDEX unfinished ON requests (number) WHERE finished_at IS NULL;

-- What retention looks at, oldest first.
CREATE INDEX spare ON requests (is_large, spare_since) WHERE spare_since IS NOT NULL;

CREATE UNIQUE INDEX idempotent ON requests (idempotency_key, app, endpoint, coalesce(owner, ''))
    WHERE idempotency_key IS NOT NULL;

-- How many requests of each app are queued, kept by the triggers below: a submit must not count them.
CREATE TABLE queues (
    app    TEXT PRIMARY KEY,
    length INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TRIGGER request_is_queued AFTER INSERT ON requests WHEN new.state = 'queued'
BEGIN
    INSERT INTO queues (app, length) VALUES (new.app, 1)
        ON CONFLICT (app) DO UPDATE SET length = length + 1;
END;

CREATE TRIGGER request_leaves_queue AFTER UPDATE OF state ON requests
    WHEN old.state = 'queued' AND new.state <> 'queued'
BEGIN
    UPDATE queues SET length = length - 1 WHERE app = new.app;
END;

CREATE TRIGGER request_returns_to_queue AFTER UPDATE OF state ON requests
    WHEN old.state <> 'queued' AND new.state = 'queued'
BEGIN
    UPDATE queues SET length = length + 1 WHERE app = new.app;
END;

-- What came with a request. Gone once it has ended: nothing needs it then.
CREATE TABLE bodies (
    request INTEGER PRIMARY KEY,
    body    BLOB NOT NULL
);

-- What a request answers once it has ended. Of a 'cancelling' one it is there already, and not yet shown.
CREATE TABLE results (
    request INTEGER PRIMARY KEY,
    headers TEXT NOT NULL,                  -- JSON: name to value
    body    BLOB NOT NULL
);

-- Events of the current attempt, many to a row.
CREATE TABLE events (
    number  INTEGER PRIMARY KEY,
    request INTEGER NOT NULL,
    first   INTEGER NOT NULL,               -- the number of the first of them
    length  INTEGER NOT NULL,               -- how many
    bytes   INTEGER NOT NULL,               -- what they count against the request's bound
    texts   BLOB NOT NULL                   -- the length of each (32 bits, little-endian), then their bytes
);
CREATE INDEX events_of_request ON events (request, first);

-- Log lines of all attempts, many to a row.
CREATE TABLE logs (
    number  INTEGER PRIMARY KEY,
    request INTEGER NOT NULL,
    first   INTEGER NOT NULL,
    length  INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    texts   BLOB NOT NULL                   -- as in events; each a JSON list: message, level, source, time
);
CREATE INDEX logs_of_request ON logs (request, first);

-- Webhooks that are still to be delivered, and those given up.
CREATE TABLE outbox (
    request   INTEGER PRIMARY KEY,
    tries     INTEGER NOT NULL DEFAULT 0,
    next_at   REAL NOT NULL,
    error     TEXT,
    buried_at REAL
);
CREATE INDEX due ON outbox (next_at) WHERE buried_at IS NULL;
CREATE INDEX buried ON outbox (buried_at) WHERE buried_at IS NOT NULL;
