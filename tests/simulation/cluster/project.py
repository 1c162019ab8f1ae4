"""The project that a simulated cluster serves: one pipeline for each thing that can go wrong by itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

_RETRY: Final = {"retries": 2, "delay": 1, "exponential_backoff": False}
PIPELINES: Final[Mapping[str, Mapping[str, Any]]] = {
    "chain": {
        "a": {},
        "b": {"upstream_blocks": ["a"], "retry_config": _RETRY},
        "c": {"upstream_blocks": ["b"]},
    },
    "fan": {
        "a": {},
        "b": {"upstream_blocks": ["a"]},
        "c": {"upstream_blocks": ["a"], "retry_config": _RETRY},
        "d": {"upstream_blocks": ["a"], "timeout": 1},
        "e": {"upstream_blocks": ["b", "c", "d"], "trigger_rule": "all_done"},
    },
    "sensed": {
        "s": {"type": "sensor", "timeout": 30, "configuration": {"interval": 1}},
        "t": {"upstream_blocks": ["s"]},
    },
    "mapped": {
        "items": {"configuration": {"dynamic": True}},
        "each": {
            "upstream_blocks": ["items"],
            "configuration": {"reduce_output": True},
            "retry_config": _RETRY,
        },
        "all": {"upstream_blocks": ["each"]},
    },
    "hooked": {"a": {"retry_config": _RETRY}, "b": {"upstream_blocks": ["a"]}},
    "few": {"a": {}, "b": {"upstream_blocks": ["a"]}},
    "parent": {"calls": {"retry_config": _RETRY}, "after": {"upstream_blocks": ["calls"]}},
}
_MORE: Final[Mapping[str, Mapping[str, Any]]] = {
    "fan": {"concurrency_config": {"block_run_limit": 2}},
    "few": {"concurrency_config": {"pipeline_run_limit_all_triggers": 2}},
    "chain": {"concurrency_config": {"pipeline_run_limit_all_triggers": 2}},
}
_TRIGGERS: Final[Mapping[str, list[Mapping[str, Any]]]] = {
    "chain": [{"name": "often", "schedule_interval": "@every 5s"}],
    "few": [
        {"name": "alone", "schedule_interval": "@every 3s", "settings": {"skip_if_previous_running": True}},
        {"name": "both", "schedule_interval": "@every 2s", "settings": {"pipeline_run_limit": 1}},
    ],
    "sensed": [{"name": "sensed", "schedule_interval": "@every 9s", "sla": 5, "settings": {"timeout": 8}}],
    "fan": [{"name": "always", "schedule_interval": "@always_on"}],
}


def write(root: Path) -> Path:
    """Make the project's folder."""
    (root / "pipelines").mkdir(parents=True)
    (root / "metadata.yaml").write_text("name: cluster\n")
    for kind in ("custom", "sensors", "callbacks", "conditionals"):
        (root / kind).mkdir()
    for uuid, blocks in PIPELINES.items():
        folder = root / "pipelines" / uuid
        folder.mkdir()
        listed = [{"uuid": b, "type": "custom", "language": "python", **keys} for b, keys in blocks.items()]
        for block in listed:
            place = root / ("sensors" if block["type"] == "sensor" else "custom")
            (place / f"{block['uuid']}.py").write_text("# played by the simulation\n")
        more = dict(_MORE.get(uuid, {})) | (_hooks(root) if uuid == "hooked" else {})
        _dump(
            folder / "metadata.yaml", {"uuid": uuid, "name": uuid, "type": "python", "blocks": listed, **more}
        )
        if triggers := _TRIGGERS.get(uuid):
            made = [{"status": "active", "schedule_type": "time", **trigger} for trigger in triggers]
            _dump(folder / "triggers.yaml", {"triggers": made})
    return root


def _hooks(root: Path) -> Mapping[str, Any]:
    (root / "callbacks" / "tell.py").write_text("# played by the simulation\n")
    (root / "conditionals" / "ask.py").write_text("# played by the simulation\n")
    return {
        "callbacks": [{"uuid": "tell", "type": "callback", "upstream_blocks": ["a", "b"]}],
        "conditionals": [{"uuid": "ask", "type": "conditional", "upstream_blocks": ["b"]}],
    }


def _dump(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(dict(values)))
