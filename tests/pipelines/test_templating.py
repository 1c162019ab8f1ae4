"""The project's file is a template that can do little."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.pipelines.problems import BadDefinition
from app.pipelines.templating import render

ENVIRON = {
    "TOKEN": "abc",
    "JSON": '{"a": {"b": 1}, "n": "x"}',
    "RUNWRIGHT_ADMIN_KEY": "hidden",
    "BIG": "x" * 70_000,
}


def rendered(source: str, warnings: list[str] | None = None) -> str:
    return render(source, "metadata.yaml", ENVIRON, (warnings if warnings is not None else []).append)


def fault(source: str) -> str:
    with pytest.raises(BadDefinition) as caught:
        rendered(source)
    return str(caught.value.error)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("a: 1\n", "a: 1\n"),
        ("a: {{ env_var('TOKEN') }}\n", "a: abc\n"),
        ("a: {{ env_var('TOKEN') | upper }}", "a: ABC"),
        ("a: {{ env_var('NONE', 'd') }}", "a: d"),
        ("a: {{ env_var('NONE') or 'd' }}", "a: d"),
        ("a: {{ env_var('NONE') | default('d') }}", "a: d"),
        ("a: {{ json_value(env_var('JSON'), 'n') }}", "a: x"),
        ("a: {{ json_value(env_var('JSON'), 'a')['b'] + 1 }}", "a: 2"),
        ("{% if env_var('TOKEN') == 'abc' %}a{% else %}b{% endif %}", "a"),
        ("{# a note #}a: {{ 'x' ~ 1 }}", "a: x1"),
        ("a: {{ 60 * 60 }}", "a: 3600"),
        ("a: {{ mage_secret_var('pw') }}", "a: <<secret pw>>"),
        ("a: {{ json_value(mage_secret_var('db'), 'user') }}", "a: <<secret db user>>"),
    ],
)
def test_what_a_template_may_do(source: str, text: str) -> None:
    assert rendered(source) == text


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("a: 1\nb: {{ nonsense }}", "metadata.yaml:2: template: 'nonsense' is undefined"),
        ("a: {{ env_var( }}", "metadata.yaml:1: not a valid template"),
        (
            "a: 1\n\nb: {{ aws_secret_var('x') }}",
            "metadata.yaml:3: template: aws_secret_var() is not supported; use env_var() or mage_secret_var()",
        ),
        ("{{ mage_secret_var('a b') }}", "'a b' is not the name of a secret"),
        ("{{ json_value(mage_secret_var('a'), 'x>>') }}", "may not hold"),
        ("{{ ''.__class__.__mro__ }}", "'getattr' is not allowed"),
        ("{{ env_var['__globals__'] }}", "is unsafe"),
        ("{{ ''['__class__'] }}", "is unsafe"),
        ("{{ 'a'.ljust(1000000000) }}", "a method cannot be called"),
        ("{{ 'a' * 1000000000 }}", "operator '*'"),
        ("{{ [0] * 1000000000 }}", "operator '*'"),
        ("{{ '%1000000000d' % 1 }}", "operator '%'"),
        ("{{ 9 ** 9 ** 9 }}", "not allowed"),
        ("{{ 'a' | center(1000000000) }}", "No filter named 'center'"),
        ("{% for i in range(100000) %}x{% endfor %}", "not allowed"),
        ("{% set x = 'a' %}", "not allowed"),
        ("{% with x = 'a' %}{% endwith %}", "not allowed"),
        ("{% macro m() %}{% endmacro %}", "not allowed"),
        ("{% include 'x' %}", "not allowed"),
        ("{{ range(5) }}", "range cannot be called"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ json_value('nonsense', 'a') }}", "JSONDecodeError"),
        ("{{ json_value('{}', 'a') }}", "KeyError"),
        ("{{ env_var() }}", "TypeError"),
        ("{{ env_var('BIG') }}", "longer than 64 KiB"),
    ],
)
def test_what_it_may_not(source: str, words: str) -> None:
    assert words in fault(source)


def test_a_variable_that_is_not_set_is_empty_and_warned_about() -> None:
    warnings: list[str] = []
    assert rendered("a: '{{ env_var('NONE') }}'", warnings) == "a: ''"
    assert warnings == ["the environment variable 'NONE' is not set; it is empty here"]


def test_the_keys_of_the_service_are_not_shown() -> None:
    assert rendered("a: '{{ env_var('RUNWRIGHT_ADMIN_KEY') }}'") == "a: ''"


@settings(max_examples=100, deadline=None)
@given(st.text("{}%#'\"()[]|.+*~ab1 _-\n", max_size=40).map(lambda text: "{{" + text))
def test_no_text_does_worse_than_being_refused(source: str) -> None:
    try:
        assert isinstance(rendered(source), str)
    except BadDefinition as bad:
        assert bad.error.message
