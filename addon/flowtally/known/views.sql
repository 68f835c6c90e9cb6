-- The views of the session log, in SQL that DuckDB and Spark both run. They stand on `records`, one
-- row a record with the columns of record.schema.json, and on `folded`, see engine.duckdb.sql and
-- engine.spark.sql. They count what is in the log, record by record, as tally.py does: background
-- traffic apart, answered challenges where the challenge was. No table overflows into (other).
--
-- Neither engine has all functions of the other: no backslash in a text (Spark reads escapes), no
-- lambda, regexp_extract with its group, count of what is not null where a sum would get another
-- type. Statements end with a semicolon at the end of a line.
--
-- Columns that several views have stand here once; a view has their name in braces.

-- {counts}: what all tables count.
    count(n_flow) AS flows,
    count(n_failure) AS failures,
    count(n_unsuccessful) AS unsuccessful,
    count(n_cancelled) AS cancelled,
    count(n_event) AS events,
    count(n_challenge) AS challenges,
    count(n_collateral) AS collateral,
    greatest(0, count(n_failure) + count(n_unsuccessful) + count(n_event)
        - count(n_challenge) - count(n_collateral)) AS problems;

-- {bytes}: bodies, in bytes.
    CAST(sum(request_bytes) AS BIGINT) AS request_bytes,
    CAST(sum(response_bytes) AS BIGINT) AS response_bytes;

-- {durations}: in ms.
    percentile_disc(0.5) WITHIN GROUP (ORDER BY duration_ms) AS p50_ms,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95_ms,
    percentile_disc(0.99) WITHIN GROUP (ORDER BY duration_ms) AS p99_ms,
    max(duration_ms) AS max_ms;

-- {waits}: in ms.
    percentile_disc(0.5) WITHIN GROUP (ORDER BY wait_ms) AS wait_p50_ms,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY wait_ms) AS wait_p95_ms,
    percentile_disc(0.99) WITHIN GROUP (ORDER BY wait_ms) AS wait_p99_ms,
    max(wait_ms) AS wait_max_ms;

CREATE OR REPLACE TEMPORARY VIEW flows AS
SELECT
    session, seq, time, substr(time, 1, 10) AS day, flow, kind, client, client_port, method, url,
    host, port, place,
    concat(
        CASE
            WHEN url IS NOT NULL THEN coalesce(method, '')
            WHEN method <> '' THEN method
            ELSE upper(kind)
        END,
        ' ',
        CASE WHEN length(target) > 200 THEN concat(substr(target, 1, 199), '…') ELSE target END
    ) AS endpoint,
    http_version, outcome, status, band, description,
    CASE WHEN outcome = 'status' THEN band ELSE outcome END AS series,
    error_code, error_name, cause, reason, side, detail,
    CASE WHEN error_code IS NOT NULL THEN
        substr(md5(concat_ws('|', coalesce(cause, CAST(status AS STRING)), coalesce(reason, ''),
            coalesce(side, ''), place)), 1, 8)
    END AS incident,
    answered_by, replay, request_bytes, response_bytes, media_type, connect_ms, tls_ms, reused,
    wait_ms, duration_ms, stream, background, grpc_status, test, answers, challenge, close_code,
    close_reason
FROM (
    SELECT
        *,
        CASE
            WHEN port IS NULL OR port IN (80, 443) THEN coalesce(host, '')
            ELSE concat(coalesce(host, ''), ':', CAST(port AS STRING))
        END AS place,
        CASE
            WHEN url IS NOT NULL THEN folded(split_part(url, '?', 1))
            WHEN port IS NULL THEN coalesce(host, '')
            ELSE concat(coalesce(host, ''), ':', CAST(port AS STRING))
        END AS target
    FROM records
    WHERE type = 'flow'
) AS found;

CREATE OR REPLACE TEMPORARY VIEW events AS
SELECT
    session, seq, time, substr(time, 1, 10) AS day, client, client_port, host, port, place,
    error_code, error_name, cause, reason, side, detail,
    substr(md5(concat_ws('|', cause, coalesce(reason, ''), coalesce(side, ''), place)), 1, 8)
        AS incident,
    background, test
FROM (
    SELECT
        *,
        CASE
            WHEN port IS NULL OR port IN (80, 443) THEN coalesce(host, '')
            ELSE concat(coalesce(host, ''), ':', CAST(port AS STRING))
        END AS place
    FROM records
    WHERE type = 'event'
) AS found;

-- The challenges (401, 407) that a later request answered, at the time of the answer; see
-- counted_challenges.py.
CREATE OR REPLACE TEMPORARY VIEW challenges AS
SELECT
    flows.session, answer.time, substr(answer.time, 1, 10) AS day, status, place, client, kind,
    method, endpoint, description
FROM flows
JOIN (
    SELECT session, answers, min(time) AS time
    FROM flows
    WHERE answers IS NOT NULL AND background IS NULL
    GROUP BY session, answers
) AS answer ON answer.session = flows.session AND answer.answers = flows.flow
WHERE status IN (401, 407) AND background IS NULL;

-- What the statistics count: a row for each flow, each failure without one, and each answered
-- challenge. A column with n_ is 1 or null. The times are those that say how fast something is.
CREATE OR REPLACE TEMPORARY VIEW counted AS
SELECT
    session, time, day, kind, method, place, endpoint, series, status, band, description,
    error_code, error_name,
    CASE
        WHEN cause IS NOT NULL THEN cause
        WHEN error_code IS NOT NULL THEN CAST(status AS STRING)
        WHEN outcome = 'unfinished' THEN 'unfinished'
    END AS cause,
    coalesce(reason, '') AS reason, coalesce(side, '') AS side, incident, client, media_type,
    close_code,
    1 AS n_flow,
    CASE WHEN outcome = 'error' THEN 1 END AS n_failure,
    CASE WHEN outcome NOT IN ('error', 'cancelled') AND error_code IS NOT NULL THEN 1 END
        AS n_unsuccessful,
    CASE WHEN outcome = 'cancelled' THEN 1 END AS n_cancelled,
    CAST(NULL AS INT) AS n_event,
    CAST(NULL AS INT) AS n_challenge,
    CASE WHEN outcome = 'error' AND reason = 'collateral' THEN 1 END AS n_collateral,
    coalesce(request_bytes, 0) AS request_bytes,
    coalesce(response_bytes, 0) AS response_bytes,
    CASE WHEN kind <> 'websocket' AND outcome <> 'cancelled' AND stream IS NULL THEN wait_ms END
        AS wait_ms,
    CASE WHEN kind <> 'websocket' AND outcome <> 'cancelled' AND stream IS NULL THEN duration_ms END
        AS duration_ms
FROM flows
WHERE background IS NULL
UNION ALL
SELECT
    session, time, day, NULL, NULL, place, NULL, 'event', NULL, NULL, NULL, error_code, error_name,
    cause, coalesce(reason, ''), coalesce(side, ''), incident, client, NULL, NULL,
    NULL, NULL, NULL, NULL, 1, NULL, NULL, 0, 0, NULL, NULL
FROM events
WHERE background IS NULL
UNION ALL
SELECT
    session, time, day, kind, method, place, endpoint, 'Client error', status, 'Client error',
    description, -3, 'HTTPError', CAST(status AS STRING), '', '',
    substr(md5(concat_ws('|', CAST(status AS STRING), '', '', place)), 1, 8), client, NULL, NULL,
    NULL, NULL, NULL, NULL, NULL, 1, NULL, 0, 0, NULL, NULL
FROM challenges;

CREATE OR REPLACE TEMPORARY VIEW totals AS
SELECT
    {counts},
    count(CASE WHEN series = 'ok' THEN 1 END) AS ok,
    count(CASE WHEN series = 'unfinished' THEN 1 END) AS unfinished,
    (SELECT count(background) FROM records WHERE type IN ('flow', 'event')) AS background,
    CAST(coalesce(sum(request_bytes), 0) AS BIGINT) AS request_bytes,
    CAST(coalesce(sum(response_bytes), 0) AS BIGINT) AS response_bytes,
    (SELECT CAST(coalesce(sum(dropped), 0) AS BIGINT) FROM records WHERE type = 'gap') AS dropped,
    min(CASE WHEN n_challenge IS NULL THEN time END) AS first,
    max(CASE WHEN n_challenge IS NULL THEN time END) AS last
FROM counted;

-- Complete responses, by band and by code. Times are in ms.
CREATE OR REPLACE TEMPORARY VIEW bands AS
SELECT
    band,
    {counts},
    {bytes},
    {durations},
    {waits}
FROM counted
WHERE band IS NOT NULL AND series = band
GROUP BY band;

CREATE OR REPLACE TEMPORARY VIEW codes AS
SELECT
    band,
    status AS code,
    coalesce(min(CASE WHEN n_flow = 1 THEN description END), min(description)) AS description,
    {counts},
    {bytes},
    {durations},
    {waits}
FROM counted
WHERE band IS NOT NULL AND series = band
GROUP BY band, status;

-- All that went wrong, by error code; by cause, where what was cancelled or unfinished is too.
CREATE OR REPLACE TEMPORARY VIEW errors AS
SELECT
    error_code,
    min(error_name) AS error_name,
    {counts},
    {bytes}
FROM counted
WHERE error_code IS NOT NULL
GROUP BY error_code;

CREATE OR REPLACE TEMPORARY VIEW causes AS
SELECT
    error_code,
    min(error_name) AS error_name,
    cause,
    reason,
    {counts},
    {bytes}
FROM counted
WHERE cause IS NOT NULL
GROUP BY error_code, cause, reason;

-- Where to look; a status code alone does not tell.
CREATE OR REPLACE TEMPORARY VIEW sides AS
SELECT
    side,
    {counts},
    {bytes}
FROM counted
WHERE error_code IS NOT NULL
GROUP BY side;

-- Problems that belong together, with the id that all reports use (`incident_id` in tally.py).
CREATE OR REPLACE TEMPORARY VIEW incidents AS
SELECT
    CASE WHEN error_code IS NOT NULL THEN
        substr(md5(concat_ws('|', cause, reason, side, place)), 1, 8)
    END AS id,
    error_code,
    min(error_name) AS error_name,
    cause,
    reason,
    side,
    place AS host,
    {counts},
    {bytes},
    min(CASE WHEN n_challenge IS NULL THEN time END) AS first,
    max(CASE WHEN n_challenge IS NULL THEN time END) AS last
FROM counted
WHERE cause IS NOT NULL
GROUP BY error_code, cause, reason, side, place;

CREATE OR REPLACE TEMPORARY VIEW hosts AS
SELECT
    place AS host,
    {counts},
    {bytes},
    {durations},
    {waits}
FROM counted
GROUP BY place;

CREATE OR REPLACE TEMPORARY VIEW endpoints AS
SELECT
    endpoint,
    {counts},
    {bytes},
    {durations}
FROM counted
WHERE endpoint IS NOT NULL
GROUP BY endpoint;

CREATE OR REPLACE TEMPORARY VIEW media_types AS
SELECT
    media_type,
    {counts},
    {bytes},
    {durations}
FROM counted
WHERE media_type IS NOT NULL
GROUP BY media_type;

CREATE OR REPLACE TEMPORARY VIEW methods AS
SELECT
    kind,
    coalesce(method, '') AS method,
    {counts},
    {bytes}
FROM counted
WHERE kind IS NOT NULL
GROUP BY kind, coalesce(method, '');

CREATE OR REPLACE TEMPORARY VIEW protocols AS
SELECT
    kind,
    close_code,
    {counts},
    {bytes},
    {durations}
FROM counted
WHERE kind <> 'http'
GROUP BY kind, close_code;

-- Whose: what browsers and systems ask for on their own, which no other view counts.
CREATE OR REPLACE TEMPORARY VIEW background AS
SELECT
    background,
    count(CASE WHEN type = 'flow' THEN 1 END) AS flows,
    count(CASE WHEN outcome = 'error' THEN 1 END) AS failures,
    count(CASE WHEN outcome NOT IN ('error', 'cancelled') AND error_code IS NOT NULL THEN 1 END)
        AS unsuccessful,
    count(CASE WHEN outcome = 'cancelled' THEN 1 END) AS cancelled,
    count(CASE WHEN type = 'event' THEN 1 END) AS events,
    count(CASE WHEN outcome = 'error' AND reason = 'collateral' THEN 1 END) AS collateral,
    CAST(coalesce(sum(request_bytes), 0) AS BIGINT) AS request_bytes,
    CAST(coalesce(sum(response_bytes), 0) AS BIGINT) AS response_bytes
FROM records
WHERE background IS NOT NULL AND type IN ('flow', 'event')
GROUP BY background;

-- What became of flows, point by point of time: as narrow as 240 points allow. `start` is Unix time.
CREATE OR REPLACE TEMPORARY VIEW timeline AS
WITH moments AS (
    SELECT
        series,
        -- Days since 1970, of which both engines know those of a year only.
        ((year - 1970) * 365 + CAST(floor((year - 1969) / 4) AS BIGINT)
            - CAST(floor((year - 1901) / 100) AS BIGINT)
            + CAST(floor((year - 1601) / 400) AS BIGINT) + day_of_year - 1) * 86400
            + CAST(substr(moment, 12, 2) AS BIGINT) * 3600
            + CAST(substr(moment, 15, 2) AS BIGINT) * 60
            + CAST(substr(moment, 18, 2) AS BIGINT) AS second,
        flows, failures, unsuccessful, cancelled, events, challenges, collateral,
        request_bytes, response_bytes
    FROM (
        SELECT
            series,
            substr(time, 1, 19) AS moment,
            CAST(substr(min(time), 1, 4) AS BIGINT) AS year,
            CAST(extract(DOY FROM CAST(substr(min(time), 1, 10) AS DATE)) AS BIGINT) AS day_of_year,
            {counts},
            {bytes}
        FROM counted
        GROUP BY series, substr(time, 1, 19)
    ) AS by_second
),
width AS (
    SELECT min(seconds) AS seconds
    FROM (
        SELECT widths.seconds
        FROM (SELECT DISTINCT second FROM moments) AS seen
        CROSS JOIN (
            VALUES (1), (2), (10), (30), (60), (300), (900), (3600), (10800), (43200), (86400),
                (604800), (6048000), (604800000)
        ) AS widths(seconds)
        GROUP BY widths.seconds
        HAVING
            count(DISTINCT floor(seen.second / widths.seconds)) <= 240
            OR widths.seconds = 604800000
    ) AS fitting
)
SELECT
    width.seconds AS seconds,
    CAST(floor(moments.second / width.seconds) AS BIGINT) * width.seconds AS start,
    series,
    CAST(sum(flows) AS BIGINT) AS flows,
    CAST(sum(failures) AS BIGINT) AS failures,
    CAST(sum(unsuccessful) AS BIGINT) AS unsuccessful,
    CAST(sum(cancelled) AS BIGINT) AS cancelled,
    CAST(sum(events) AS BIGINT) AS events,
    CAST(sum(challenges) AS BIGINT) AS challenges,
    CAST(sum(collateral) AS BIGINT) AS collateral,
    {bytes}
FROM moments
CROSS JOIN width
GROUP BY
    width.seconds, CAST(floor(moments.second / width.seconds) AS BIGINT) * width.seconds, series;

CREATE OR REPLACE TEMPORARY VIEW sessions AS
SELECT
    session,
    substr(coalesce(
        min(CASE WHEN type = 'session_start' THEN time END),
        min(CASE WHEN type <> 'stats' THEN time END),
        min(time)
    ), 1, 10) AS day,
    coalesce(
        min(CASE WHEN type = 'session_start' THEN time END),
        min(CASE WHEN type <> 'stats' THEN time END),
        ''
    ) AS begun,
    min(CASE WHEN type IN ('flow', 'event') AND background IS NULL THEN time END) AS first,
    max(CASE WHEN type IN ('flow', 'event') AND background IS NULL THEN time END) AS last,
    count(CASE WHEN final AND parts > 0 THEN 1 END) > 0 AS ended_cleanly,
    count(CASE WHEN type = 'flow' AND background IS NULL THEN 1 END) AS flows,
    count(CASE WHEN outcome = 'error' AND background IS NULL THEN 1 END) AS failures,
    count(CASE WHEN type = 'event' AND background IS NULL THEN 1 END) AS events,
    count(background) AS background,
    -- Records that are in no log, and of which no gap tells.
    greatest(0, max(seq) - count(*)
        - CAST(coalesce(sum(CASE WHEN type = 'gap' THEN dropped END), 0) AS BIGINT)) AS missing,
    CAST(coalesce(sum(CASE WHEN type = 'gap' THEN dropped END), 0) AS BIGINT) AS dropped,
    max(flowtally) AS flowtally,
    max(mitmproxy) AS mitmproxy,
    max(python) AS python,
    max(platform) AS platform
FROM records
GROUP BY session;

-- Exchanges in the names of OpenTelemetry's semantic conventions for HTTP (client spans):
-- https://opentelemetry.io/docs/specs/semconv/http/http-spans/ (stable), with client.* of
-- https://opentelemetry.io/docs/specs/semconv/registry/attributes/client/ and session.id of
-- https://opentelemetry.io/docs/specs/semconv/registry/attributes/session/. error.type is the cause,
-- or the status code where that alone is the error. A method that is not registered is _OTHER in
-- both. The body sizes and session.id are in development there.
CREATE OR REPLACE TEMPORARY VIEW otel AS
SELECT
    session AS `session.id`,
    flow,
    time AS end_time,
    duration_ms / 1000 AS `http.client.request.duration`,
    method AS `http.request.method`,
    status AS `http.response.status_code`,
    coalesce(cause, CASE WHEN error_code IS NOT NULL THEN CAST(status AS STRING) END)
        AS `error.type`,
    host AS `server.address`,
    port AS `server.port`,
    CASE WHEN kind <> 'connect' THEN url END AS `url.full`,
    nullif(regexp_extract(url, '^([A-Za-z][A-Za-z0-9+.-]*)://', 1), '') AS `url.scheme`,
    nullif(regexp_extract(url, '^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*([^?#]*)', 1), '') AS `url.path`,
    nullif(regexp_extract(url, '[?]([^#]*)', 1), '') AS `url.query`,
    CASE WHEN http_version LIKE 'HTTP/%' THEN 'http' END AS `network.protocol.name`,
    CASE
        WHEN http_version LIKE 'HTTP/%' THEN replace(substr(http_version, 6), '2.0', '2')
    END AS `network.protocol.version`,
    client AS `client.address`,
    client_port AS `client.port`,
    request_bytes AS `http.request.body.size`,
    response_bytes AS `http.response.body.size`
FROM flows
WHERE kind IN ('http', 'websocket', 'connect');
