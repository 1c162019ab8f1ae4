"""`runwright limits`, typed at a real service."""

import json
import re

from app.client import Client, NotFound
from tests.cli.conftest import Invoke
from tests.client.conftest import Service


def test_limits_are_set_listed_and_lifted(invoke: Invoke, service: Service, client: Client) -> None:
    at = ("-s", service.url)
    code, out, _ = invoke("limits", "set", "key:k", "2", *at)
    assert (code, out) == (0, "key:k: 2 at once; 0 run, 0 wait\n")
    code, out, _ = invoke("limits", "ls", *at)
    assert code == 0 and re.search(r"^key:k +2 +0 +0 +api$", out, re.M)
    code, out, _ = invoke("limits", "ls", "-o", "json", *at)
    assert [limit["scope"] for limit in json.loads(out)] == ["key:k"]
    assert client.limit("key:k").cap == 2
    code, out, _ = invoke("limits", "unset", "key:k", *at)
    assert (code, out) == (0, "key:k: no limit\n")
    assert [change.cap for change in client.limit_history("key:k")] == [None, 2]
    code, _, err = invoke("limits", "unset", "key:k", *at)
    assert code == 3 and "has no limit" in err
    try:
        client.limit("key:k")
    except NotFound as error:
        assert error.code == "limit_not_found"
    else:
        raise AssertionError("there is no such limit any more")
