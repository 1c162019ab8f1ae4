"""What is hidden of a secret that a run has asked for."""

import pytest

from app.scheduler.redaction import Redactor


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        ("hunter22", "password=hunter22!", "password=***!"),
        ("first line\nsecond line", "it said: second line", "it said: ***"),
        ('{"user": "etl@corp", "password": "hunter22"}', "etl@corp:hunter22", "***:***"),
        ('{"password": "hunter22"}', 'all of it: {"password": "hunter22"}', "all of it: ***"),
        ('{"a": {"b": ["hunter22", 123456789]}}', "hunter22 123456789", "*** ***"),
        ('{"key": "BEGIN KEY\\nsecond line"}', "second line", "***"),
        ('{"on": true, "n": 1, "x": "short"}', "True 1 short password", "True 1 short password"),
        ("{no json at all", "hunter22", "hunter22"),
        ('{"a":' * 5000, "hunter22", "hunter22"),
    ],
)
def test_what_json_value_gives_out_is_hidden_too(secret: str, text: str, shown: str) -> None:
    redactor = Redactor()
    redactor.learn(secret)
    assert redactor.text(text) == shown
