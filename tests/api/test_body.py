"""The strict JSON parser, alone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import RunwrightError
from app.routers.body import MAX_DEPTH, parse

REFUSED = {
    "nothing": (b"", 400),
    "not JSON": (b"{", 400),
    "trailing comma": (b"[1,]", 400),
    "two values": (b"1 2", 400),
    "NaN": (b"[NaN]", 400),
    "minus Infinity": (b"[-Infinity]", 400),
    "not UTF-8": (b'"\xff"', 400),
    "surrogate as UTF-8": (b'"\xed\xa0\x80"', 400),
    "overlong NUL": (b'"\xc0\x80"', 400),
    "byte order mark": (b"\xef\xbb\xbf{}", 400),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), 400),
    "raw NUL": (b'"a\x00b"', 400),
    "escaped NUL": (b'"a\\u0000b"', 422),
    "NUL in a key": (b'{"a\\u0000": 1}', 422),
    "high surrogate": (b'["\\ud800"]', 422),
    "low surrogate": (b'{"a": {"b": "\\udc00x"}}', 422),
    "surrogate in a key": (b'{"\\ud83d": 1}', 422),
    "duplicate key": (b'{"a": 1, "b": {"c": 1, "c": 2}}', 422),
    "5,000 digits": (b"1" * 5000, 422),
    "2^63": (b"9223372036854775808", 422),
    "-2^63-1": (b"-9223372036854775809", 422),
    "1e400": (b"1e400", 422),
    "100,000 brackets": (b"[" * 100_000, 422),
    "100,000 objects": (b'{"a":' * 100_000, 422),
    "one level too deep": (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), 422),
    "deep after a string of brackets": (b'["[[[", ' + b'{"a":' * 70 + b"1" + b"}" * 70 + b"]", 422),
}


@pytest.mark.parametrize(("body", "status"), REFUSED.values(), ids=REFUSED)
def test_what_nobody_agrees_on_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(RunwrightError) as caught:
        parse(body)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "body",
    [
        b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
        b"[" + b"[],{}," * 1000 + b"[]]",
        b'"' + b'[{\\"' * 1000 + b'"',
        b"9223372036854775807",
        b"-9223372036854775808",
        b'"\\ud83d\\ude00 \\u00e9"',
        b' {"a" : null} ',
    ],
)
def test_what_is_good_json_is_read(body: bytes) -> None:
    assert parse(body) == json.loads(body)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=30,
)


@given(values, st.booleans())
def test_every_storable_value_survives(value: object, ascii_only: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=60))
def test_bytes_never_cause_another_error(body: bytes) -> None:
    try:
        parse(body)
    except RunwrightError as error:
        assert error.status in (400, 422)
