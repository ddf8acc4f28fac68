-- Every statement of the store. `-- name:` begins one; the line below it says what it is for.

-- name: find_idempotent
-- The request that an idempotency key belongs to.
SELECT id, body_hash FROM requests
WHERE idempotency_key = :key AND app = :app AND endpoint = :endpoint AND coalesce(owner, '') = coalesce(:owner, '');

-- name: queue_length
-- How many requests of an app are queued.
SELECT length FROM queues WHERE app = ?;

-- name: submit
-- Queue a request, unless it is there.
INSERT INTO requests (
    id, app, endpoint, view, owner, headers, priority, may_retry, runner_hint, webhook, idempotency_key, body_hash,
    state, created_at, start_deadline, base_url
) VALUES (
    :id, :app, :endpoint, :view, :owner, :headers, :priority, :may_retry, :runner_hint, :webhook, :idempotency_key,
    :body_hash, 'queued', :created_at, :start_deadline, :base_url
) ON CONFLICT DO NOTHING;

-- name: keep_body
-- The body of a request that was just queued.
INSERT INTO bodies (request, body) VALUES (?, ?);

-- name: look
-- What decides whether something may happen to a request.
SELECT number, state, attempt, webhook, events_end, events_bytes, logs_end, logs_bytes FROM requests WHERE id = ?;

-- name: start
-- Begin the next attempt of a queued request.
UPDATE requests
SET state = 'running', attempt = attempt + 1, node = :node, lease_until = :lease_until, started_at = :at,
    not_before = NULL, events_end = 0, events_bytes = 0
WHERE number = :number;

-- name: forget_events
-- Those of an earlier attempt.
DELETE FROM events WHERE request = ?;

-- name: renew
-- Prolong the leases a node holds.
UPDATE requests SET lease_until = :lease_until
WHERE id IN (SELECT value FROM json_each(:ids)) AND node = :node AND state IN ('running', 'cancelling');

-- name: held
-- Which of these a node holds.
SELECT id FROM requests
WHERE id IN (SELECT value FROM json_each(:ids)) AND node = :node AND state IN ('running', 'cancelling');

-- name: keep_result
-- What a request answers from its end on.
INSERT INTO results (request, headers, body) VALUES (?, ?, ?);

-- name: note_outcome
-- How a request ends, beside its result.
UPDATE requests SET status = :status, error = :error, error_type = :error_type, result_bytes = :bytes,
    is_large = :is_large
WHERE number = :number;

-- name: ask_to_stop
-- A running request is cancelled; its attempt has yet to stop.
UPDATE requests SET state = 'cancelling' WHERE number = ?;

-- name: end
-- The last move of a request. With a webhook to deliver it stays until that is done.
UPDATE requests SET state = :state, finished_at = :at, node = NULL, lease_until = NULL, not_before = NULL,
    spare_since = CASE WHEN webhook IS NULL THEN :at END
WHERE number = :number;

-- name: drop_body
-- Nothing needs the body of a request that has ended.
DELETE FROM bodies WHERE request = ?;

-- name: put_in_outbox
-- In the transaction that ends the request: a webhook is owed if and only if it ended.
INSERT INTO outbox (request, next_at) VALUES (?, ?);

-- name: requeue
-- Back to its old place: its number stays.
UPDATE requests SET state = 'queued', node = NULL, lease_until = NULL, not_before = :not_before
WHERE number = :number;

-- name: abandoned
-- Attempts whose node is dead.
SELECT number, state, webhook FROM requests
WHERE finished_at IS NULL AND state IN ('running', 'cancelling') AND (node = :node OR lease_until <= :at)
ORDER BY number;

-- name: append_events
-- One group of events.
INSERT INTO events (request, first, length, bytes, texts) VALUES (?, ?, ?, ?, ?);

-- name: count_events
-- How far a request's events are, and what they hold.
UPDATE requests SET events_end = :end, events_bytes = :bytes WHERE number = :number;

-- name: event_groups
-- All groups of a request, oldest first, without their texts.
SELECT number, bytes FROM events WHERE request = ? ORDER BY first;

-- name: drop_event_groups
-- The oldest of them, when they are too much.
DELETE FROM events WHERE number IN (SELECT value FROM json_each(?));

-- name: read_events
-- Groups from the one that holds a number on.
SELECT first, texts, length FROM events
WHERE request = :request
    AND first >= coalesce((SELECT max(first) FROM events WHERE request = :request AND first <= :first), 0)
ORDER BY first LIMIT :limit;

-- name: append_logs
-- One group of log lines.
INSERT INTO logs (request, first, length, bytes, texts) VALUES (?, ?, ?, ?, ?);

-- name: count_logs
-- How far a request's log is, and what it holds.
UPDATE requests SET logs_end = :end, logs_bytes = :bytes WHERE number = :number;

-- name: log_groups
-- All groups of a request, oldest first, without their lines.
SELECT number, bytes FROM logs WHERE request = ? ORDER BY first;

-- name: drop_log_groups
-- The oldest of them, when they are too much.
DELETE FROM logs WHERE number IN (SELECT value FROM json_each(?));

-- name: read_logs
-- Groups from the one that holds a number on.
SELECT first, texts, length FROM logs
WHERE request = :request
    AND first >= coalesce((SELECT max(first) FROM logs WHERE request = :request AND first <= :first), 0)
ORDER BY first LIMIT :limit;

-- name: get
-- One record.
SELECT number, id, app, endpoint, view, owner, headers, priority, may_retry, runner_hint, webhook, state, attempt,
    node, lease_until, created_at, start_deadline, not_before, started_at, finished_at, status, error, error_type,
    events_end, logs_end, base_url
FROM requests WHERE id = ?;

-- name: open_requests
-- A page of what has not ended, oldest first.
SELECT number, id, app, endpoint, view, owner, headers, priority, may_retry, runner_hint, webhook, state, attempt,
    node, lease_until, created_at, start_deadline, not_before, started_at, finished_at, status, error, error_type,
    events_end, logs_end, base_url
FROM requests WHERE finished_at IS NULL AND number > :after ORDER BY number LIMIT :limit;

-- name: body
-- What came with a request.
SELECT body FROM bodies JOIN requests ON request = requests.number WHERE id = ?;

-- name: position
-- How many are before a queued request: two counts over the index `queued` alone.
SELECT (
    SELECT count(*) FROM requests AS better
    WHERE better.state = 'queued' AND better.app = mine.app AND better.priority < mine.priority
) + (
    SELECT count(*) FROM requests AS older
    WHERE older.state = 'queued' AND older.app = mine.app AND older.priority = mine.priority
        AND older.number < mine.number
) FROM requests AS mine WHERE id = ? AND state = 'queued';

-- name: result
-- How a request ended. One statement, so never half of it.
SELECT state, status, results.headers, body, finished_at, error, error_type
FROM requests JOIN results ON request = requests.number WHERE id = ? AND finished_at IS NOT NULL;

-- name: due_deliveries
-- Webhooks whose time has come.
SELECT id, webhook, tries, next_at, outbox.error, buried_at
FROM outbox JOIN requests ON request = requests.number
WHERE buried_at IS NULL AND next_at <= :now ORDER BY next_at LIMIT :limit;

-- name: dead_deliveries
-- Webhooks given up.
SELECT id, webhook, tries, next_at, outbox.error, buried_at
FROM outbox JOIN requests ON request = requests.number
WHERE buried_at IS NOT NULL ORDER BY buried_at DESC LIMIT ?;

-- name: release_delivered
-- A request whose webhook was delivered is no longer kept for it.
UPDATE requests SET spare_since = finished_at WHERE number = ?;

-- name: take_from_outbox
-- It was delivered.
DELETE FROM outbox WHERE request = ?;

-- name: retry_delivery
-- A try failed.
UPDATE outbox SET tries = tries + 1, next_at = :next_at, error = :error WHERE request = :number AND buried_at IS NULL;

-- name: bury_delivery
-- The last try failed.
UPDATE outbox SET tries = tries + 1, buried_at = :at, error = :error WHERE request = :number AND buried_at IS NULL;

-- name: revive_delivery
-- Somebody wants a dead letter sent after all.
UPDATE outbox SET tries = 0, next_at = :at, buried_at = NULL WHERE request = :number AND buried_at IS NOT NULL;

-- name: old_letters
-- Dead letters nobody came for.
SELECT request FROM outbox WHERE buried_at <= :before ORDER BY buried_at LIMIT :limit;

-- name: release_letters
-- Their requests are no longer kept for them.
UPDATE requests SET spare_since = finished_at WHERE number IN (SELECT value FROM json_each(?));

-- name: drop_letters
-- And they are gone.
DELETE FROM outbox WHERE request IN (SELECT value FROM json_each(?));

-- name: aged
-- Ended requests past their age: the large ones sooner.
SELECT number, result_bytes + events_bytes + logs_bytes FROM requests
WHERE is_large = 1 AND spare_since IS NOT NULL AND spare_since <= :large_before
UNION ALL
SELECT number, result_bytes + events_bytes + logs_bytes FROM requests
WHERE is_large = 0 AND spare_since IS NOT NULL AND spare_since <= :before
LIMIT :limit;

-- name: oldest
-- The ended requests that go first when all of them are too much.
SELECT number, bytes FROM (
    SELECT * FROM (
        SELECT number, result_bytes + events_bytes + logs_bytes AS bytes, spare_since FROM requests
        WHERE is_large = 1 AND spare_since IS NOT NULL ORDER BY spare_since LIMIT :limit)
    UNION ALL
    SELECT * FROM (
        SELECT number, result_bytes + events_bytes + logs_bytes AS bytes, spare_since FROM requests
        WHERE is_large = 0 AND spare_since IS NOT NULL ORDER BY spare_since LIMIT :limit)
) ORDER BY spare_since LIMIT :limit;

-- name: expire_results
-- Of requests that expire.
DELETE FROM results WHERE request IN (SELECT value FROM json_each(?));

-- name: expire_events
-- Of requests that expire.
DELETE FROM events WHERE request IN (SELECT value FROM json_each(?));

-- name: expire_logs
-- Of requests that expire.
DELETE FROM logs WHERE request IN (SELECT value FROM json_each(?));

-- name: expire_requests
-- The requests themselves, and their idempotency keys with them.
DELETE FROM requests WHERE number IN (SELECT value FROM json_each(?));
