"""What a block returned comes back as it was, whatever it was."""

import collections
import datetime
import decimal
import enum
import math
import resource
from pathlib import Path
from typing import Any

import pytest

from app.executors.child import faults, outputs, packs

np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    pass


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


EXACT = [
    None,
    True,
    0,
    -(2**63),
    2**63 - 1,
    1.0,
    -0.0,
    1e308,
    5e-324,
    0.1 + 0.2,
    "",
    "ü 🐍 \x1b \u2028",
    [],
    {},
    [1, [2.0, None, {"a": []}]],
    {"b": 1, "a": {"": False}},
    deep(50),
    "x" * 60_000,
]
INEXACT = [
    (1, 2),
    {1: "a"},
    {None: 1},
    {"a": (1,)},
    [float("nan")],
    float("inf"),
    2**63,
    -(2**63) - 1,
    "nul \0",
    "lone \ud800",
    {"\ud800": 1},
    b"bytes",
    {1, 2},
    frozenset(),
    Colour.RED,
    Text("a"),
    collections.OrderedDict(a=1),
    collections.defaultdict(int),
    datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    decimal.Decimal("1.10"),
    np.float64(1.0),
    np.arange(3),
    deep(150),
    "x" * 70_000,
    ["ü" * 40_000],
    list(range(100_000)),
    complex(1, 2),
]


def round_trip(value: Any, root: Path) -> tuple[dict[str, Any], Any]:
    ref = outputs.store(value, 0, "1/block/1.1", str(root))
    return ref, outputs.open_input([ref], str(root), "block")


@pytest.mark.parametrize("value", EXACT, ids=lambda value: repr(value)[:20])
def test_what_json_keeps_exactly_is_json(value: Any, tmp_path: Path) -> None:
    ref, back = round_trip(value, tmp_path)
    assert ref["kind"] == "json"
    assert (type(back), repr(back)) == (type(value), repr(value))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", INEXACT, ids=lambda value: repr(value)[:20])
def test_what_json_would_change_is_pickled(value: Any, tmp_path: Path) -> None:
    ref, back = round_trip(value, tmp_path)
    assert ref["kind"] == "pickle"
    assert (type(back), repr(back)) == (type(value), repr(value))
    assert ref["path"] == "1/block/1.1/output_0.pkl"
    assert ref["size"] == (tmp_path / ref["path"]).stat().st_size
    assert [path.name for path in (tmp_path / "1/block/1.1").iterdir()] == ["output_0.pkl"]


def test_a_value_that_holds_itself_comes_back(tmp_path: Path) -> None:
    value: list[Any] = [1]
    value.append(value)
    ref, back = round_trip(value, tmp_path)
    assert ref["kind"] == "pickle"
    assert back[1] is back


def test_a_reference_holds_its_own_copy(tmp_path: Path) -> None:
    value = [1]
    ref = outputs.store(value, 0, "x", str(tmp_path))
    value.append(2)
    assert ref["value"] == [1]


def test_several_outputs_have_a_reference_each(tmp_path: Path) -> None:
    refs = outputs.store_all([1, b"2", {3}], "1/b/1.1", str(tmp_path))
    assert [ref["kind"] for ref in refs] == ["json", "pickle", "pickle"]
    assert outputs.open_input(refs, str(tmp_path), "b") == [1, b"2", {3}]


def test_very_many_outputs_have_one(tmp_path: Path) -> None:
    values = [{n} for n in range(10_000)]
    (ref,) = outputs.store_all(values, "1/b/1.1", str(tmp_path))
    assert (ref["spread"], len(list((tmp_path / "1/b/1.1").iterdir()))) == (10_000, 1)
    assert outputs.open_input([ref], str(tmp_path), "b") == values


def test_the_outputs_of_one_of_many_take_little_room_in_all(tmp_path: Path) -> None:
    small, large = ["x" * 500] * 3, ["x" * 500] * 50
    kept = outputs.store_all(small, "1/b:0/1.1", str(tmp_path), of_many=True)
    assert [ref["kind"] for ref in kept] == ["json"] * 3
    refs = outputs.store_all(large, "1/b:1/1.1", str(tmp_path), of_many=True)
    assert [(ref["kind"], ref["spread"]) for ref in refs] == [("pickle", 50)]
    assert outputs.open_input(refs, str(tmp_path), "b:1") == large


def test_an_output_that_is_no_longer_kept_says_so() -> None:
    with pytest.raises(faults.InputMissing, match="the output of block 'b' is no longer kept"):
        outputs.open_input([{"kind": "gone"}], "", "b")


def test_all_items_at_once_bring_no_kwargs(tmp_path: Path) -> None:
    ref = packs.store([["x", "y"], [{"greeting": "hi"}, {}]], "1/b/1.1", str(tmp_path))
    assert ref["meta"], "they are small enough to lie in the reference"
    assert outputs.open_input([ref], str(tmp_path), "b") == ["x", "y"]
    assert list(packs.metas_of([("b", [ref])], str(tmp_path))) == []


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(faults.OutputNotStorable, match=r"output 3 \(generator\) cannot be stored"):
        outputs.store((n for n in range(3)), 3, "a", str(tmp_path))
    assert list((tmp_path / "a").iterdir()) == []


def test_a_full_disk_is_told_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    (tmp_path / "a").mkdir()
    with pytest.raises(faults.OutputNotStorable, match="No space left"):
        outputs.store({1}, 0, "a", str(tmp_path))
    assert list((tmp_path / "a").iterdir()) == []


def frame(**columns: Any) -> Any:
    return pd.DataFrame(columns)


PARQUET = {
    "numbers": frame(a=[1, 2], b=[0.5, math.nan]),
    "strings": frame(a=pd.Series(["x", None], dtype="str" if pd.__version__ >= "3" else "string")),
    "dates": frame(
        a=pd.to_datetime(["2026-01-01", None]), b=pd.to_datetime(["2026-01-01", "2026-06-01"], utc=True)
    ),
    "categories": frame(a=pd.Categorical(["x", "y"], categories=["y", "x"], ordered=True)),
    "missing integers": frame(a=pd.array([1, None], dtype="Int64")),
    "empty": frame(a=pd.Series([], dtype="int32")),
    "named index": frame(a=[1, 2]).set_index(pd.Index([5, 3], name="id")),
    "odd range": pd.DataFrame({"a": [1, 2]}, index=pd.RangeIndex(4, 8, 2)),
    "levels in the columns": pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])),
    "two levels": frame(a=[1, 2], b=[3, 4], c=[5, 6]).set_index(["a", "b"]),
}
PICKLED = {
    "objects": frame(a=[{"x": 1}, [2]]),
    "true and one": frame(a=pd.Series([True, 1], dtype=object)),
    "number as name": pd.DataFrame({0: [1], 1: [2]}).rename(columns={1: "one"}),
    "same name twice": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "index with a frequency": pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2026-01-01", periods=2)),
    "complex": frame(a=[1j]),
}


@pytest.mark.parametrize("name", PARQUET)
def test_a_frame_that_parquet_keeps_is_parquet(name: str, tmp_path: Path) -> None:
    before = PARQUET[name]
    ref, back = round_trip(before, tmp_path)
    assert ref["kind"] == "parquet"
    pd.testing.assert_frame_equal(back, before, check_exact=True, check_index_type="exact", check_freq=True)
    assert (ref["rows"], ref["columns"]) == before.shape
    assert ref["column_names"] == [str(name) for name in before.columns]
    assert ref["type"] == "pandas.DataFrame"


@pytest.mark.parametrize("name", PICKLED)
def test_a_frame_that_parquet_would_change_is_pickled(name: str, tmp_path: Path) -> None:
    before = PICKLED[name]
    ref, back = round_trip(before, tmp_path)
    assert ref["kind"] == "pickle"
    pd.testing.assert_frame_equal(back, before, check_exact=True, check_index_type="exact", check_freq=True)
    assert [type(v) for v in back.iloc[:, 0]] == [type(v) for v in before.iloc[:, 0]]
    assert [path.name for path in (tmp_path / "1/block/1.1").iterdir()] == ["output_0.pkl"]
    assert (ref["rows"], ref["columns"]) == before.shape


def test_a_series_is_pickled(tmp_path: Path) -> None:
    ref, back = round_trip(pd.Series([1, 2], name="n"), tmp_path)
    assert (ref["kind"], ref["type"]) == ("pickle", "pandas.Series")
    pd.testing.assert_series_equal(back, pd.Series([1, 2], name="n"))


def test_an_output_that_finds_no_room_says_where_and_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))  # as a full disk, but only for us
    try:
        with pytest.raises(
            faults.OutputNotStorable, match=f"output 0 .* cannot be written to {tmp_path}: File too"
        ):
            outputs.store(b"x" * 200_000, 0, "1/a/1", str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    ref = outputs.store(b"x" * 200_000, 0, "1/a/1", str(tmp_path))
    assert outputs.open_input([ref], str(tmp_path), "a") == b"x" * 200_000
