-- What DuckDB needs beside views.sql: `records` from the lines of logs, and the one function for
-- which it has other words than Spark. `lines` is a table with the columns of record.schema.json.

CREATE OR REPLACE TEMPORARY VIEW records AS SELECT * FROM lines;

-- A URL with the ids in its path folded, as `endpoint` in tally.py does it: RE2 cannot look ahead.
-- Slashes after which nothing is folded become chr(3), and each segment gets a mark at its end, so
-- that neighbours have no character in common; what may be an id for its length gets another.
CREATE OR REPLACE TEMPORARY MACRO folded(url) AS
replace(replace(replace(
    regexp_replace(regexp_replace(regexp_replace(regexp_replace(
        concat(replace(replace(
            replace(replace(replace(url, ':/', concat(':', chr(3))), '//', concat('/', chr(3))),
                concat(chr(3), '/'), concat(chr(3), chr(3))),
            '/', concat(chr(2), '/')), chr(3), concat(chr(2), chr(3))), chr(2)),
        '/[0-9]+\x02', concat('/{id}', chr(2)), 'g'),
        '/([0-9a-fA-F-]{16,}\x02)', concat('/', chr(4), '\1'), 'g'),
        '/([0-9A-Za-z_]{20,}\x02)', concat('/', chr(4), '\1'), 'g'),
        '/\x04[^0-9/\x02]*[0-9][^/\x02]*\x02', concat('/{id}', chr(2)), 'g'),
    chr(2), ''), chr(4), ''), chr(3), '/');
