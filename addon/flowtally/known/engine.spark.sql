-- What Spark (4.0 and newer) needs beside views.sql: `records` from the lines of logs, and the one
-- function for which it has other words than DuckDB. `lines` is a view of the logs as JSON, with the
-- columns of record.schema.json. A record that stands in several files counts once.

CREATE OR REPLACE TEMPORARY VIEW records AS
SELECT *
FROM (SELECT *, row_number() OVER (PARTITION BY session, seq ORDER BY time) AS copy FROM lines)
WHERE
    copy = 1
    AND seq > 0
    AND session IS NOT NULL
    AND time RLIKE '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{3}Z$'
    AND type IN ('session_start', 'flow', 'event', 'gap', 'stats');

-- A URL with the ids in its path folded, as `endpoint` in tally.py does it.
CREATE OR REPLACE TEMPORARY FUNCTION folded(url STRING) RETURNS STRING RETURN
regexp_replace(
    url,
    '/(?<![:/]/)([0-9]++|(?=[^/]{16})(?=[^/]*[0-9])([0-9a-fA-F-]{16,}+|[0-9A-Za-z_]{20,}+))(?![^/])',
    '/{id}'
);
