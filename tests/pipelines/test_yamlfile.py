"""YAML becomes plain values with lines, and nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.pipelines.problems import BadDefinition
from app.pipelines.yamlfile import MAX_DEPTH, YamlList, YamlMap, parse, plain


def fault(text: str) -> str:
    with pytest.raises(BadDefinition) as caught:
        parse(text, "f.yaml")
    return str(caught.value.error)


def test_scalars_are_those_of_a_safe_loader_but_dates_and_keys_stay_text() -> None:
    text = "a: 1\nb: 1.5\nc: yes\nd: ~\ne: '1'\nf: 2023-01-01\non: 2\n1: x\ng: !!str 5\nh: 0x1F\ni: 1e3\n"
    assert parse(text, "f") == {
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": None,
        "e": "1",
        "f": "2023-01-01",
        "on": 2,
        "1": "x",
        "g": "5",
        "h": 31,
        "i": "1e3",
    }


def test_every_key_and_item_knows_its_line() -> None:
    value = parse("# first\na:\n  b: 1\n\n  c:\n  - x\n  - y: 2\n", "f")
    assert value.at("a") == 2
    assert value["a"].at("c") == 5
    assert value["a"]["c"].lines == [6, 7]
    assert value["a"].at("absent") == value["a"].line == 3
    assert (type(value), type(value["a"]["c"])) == (YamlMap, YamlList)
    assert type(plain(value)["a"]) is dict


def test_aliases_and_merge_keys_work() -> None:
    text = "base: &b {x: 1, y: 2}\nother: &o {y: 9, z: 3}\none: {<<: *b, y: 5}\ntwo: {<<: [*b, *o]}\n"
    assert parse(text, "f")["one"] == {"x": 1, "y": 5}
    assert parse(text, "f")["two"] == {"x": 1, "y": 2, "z": 3}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n"])
def test_nothing_is_an_empty_mapping(text: str) -> None:
    assert parse(text, "f") == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "f.yaml:4: the key 'c' is already on line 3"),
        ("a: 1\nb: [\n", "f.yaml:3: not valid YAML"),
        ("a: 1\n\tb: 2\n", "f.yaml:2: not valid YAML"),
        ("a: 1\nb: * * * * *\n", "f.yaml:2: not valid YAML"),
        ("b: * * * * *\n", "(a value that begins with * must be in quotes)"),
        ("b: @daily\n", "(a value that begins with @ must be in quotes)"),
        ("a: b: c\n", "f.yaml:1: not valid YAML"),
        ("- 1\n", "f.yaml:1: must be a mapping of keys to values, not a list"),
        ("just text\n", "f.yaml:1: must be a mapping"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: holds more than one YAML document"),
        ("a: !!python/object/apply:os.system [ls]\n", "f.yaml:1: the tag"),
        ("a: !include x\n", "the tag '!include' is not allowed"),
        ("a: !!binary aGk=\n", "is not allowed"),
        ("a: !!int x\n", "'x' is not of the type int"),
        ("a: &a [*a]\n", "f.yaml:1: the alias '*a' stands for nothing before it"),
        ("? [a]\n: 1\n", "a key must be plain text"),
        ("<<: 5\n", "'<<' takes a mapping"),
        ('a: "x\\0y"\n', "cannot be stored"),
        ('"\\0": 1\n', "cannot be stored"),
        ('a: "\\ud800"\n', "f.yaml:1: "),
        ("a: .nan\n", "not a finite number"),
        ("a: -.inf\n", "not a finite number"),
        ("a: 9223372036854775808\n", "64 bits"),
        ("a: \x07\n", "not valid YAML"),
    ],
)
def test_a_fault_has_its_line(text: str, words: str) -> None:
    assert words in fault(text)


def test_depth_aliases_and_expansion_are_bounded() -> None:
    assert f"more than {MAX_DEPTH} levels" in fault("a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert "f.yaml:1: " in fault("a: " + "[" * 50_000)
    assert "more than 100 aliases" in fault("a: &a 1\nb: [" + "*a," * 101 + "]")
    bomb = "l0: &l0 [x,x,x,x,x,x,x,x,x,x]\n"
    bomb += "".join(f"l{n}: &l{n} [{','.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 9))
    assert "more than 10,000 values" in fault(bomb)
    assert len(parse("a:\n" + "- {b: 1}\n" * 20_000, "f")["a"]) == 20_000


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60) | st.text("ab:-[]{}&*!|>'\"#%@, \n\t0.~<?", max_size=60))
def test_no_text_does_worse_than_being_refused(text: str) -> None:
    try:
        value = parse(text, "f")
    except BadDefinition as bad:
        assert bad.error.message
        return
    assert isinstance(value, YamlMap)
