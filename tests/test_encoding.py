"""Records as lines of JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flowtally.encoding import decode
from flowtally.encoding import encode
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.text(st.sampled_from('"\\%s%d\n\x00\x1f\x7f\u2028 ü€\U0001f600')),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)
RECORDS = st.dictionaries(st.text() | st.sampled_from(["%s", '"', "100 %"]), VALUES)


@given(RECORDS)
def test_a_line_is_what_json_makes_of_the_record(record: dict[str, Any]) -> None:
    line = encode(record)
    expected = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    assert line == (expected + "\n").encode("utf-8", "replace")
    assert line.count(b"\n") == 1
    if b"?" not in line:
        assert decode(line) == record


def test_half_a_surrogate_pair() -> None:
    assert encode({"a": "x\udcffy"}) == b'{"a":"x?y"}\n'
    assert encode({"a\ud800": 1}) == b'{"a?":1}\n'


@pytest.mark.parametrize("line", [b"{} {}\n", b'{"a":1}x\n', b"\n", b"\xff\n", b"{"])
def test_what_is_no_line(line: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(line)


def test_a_line_that_is_nested_too_deeply() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        decode(b"[" * 100_000)
