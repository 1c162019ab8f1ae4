"""The `settings` of a trigger as the OpenAPI shows them. What judges them is `app.pipelines.trigger_settings`."""

from typing import Any, Final


def _choice(about: str, *values: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values), "default": values[0], "description": about}


def _flag(about: str) -> dict[str, Any]:
    return {"type": "boolean", "default": False, "description": about}


PROPERTIES: Final[dict[str, dict[str, Any]]] = {
    "catch_up": _choice("what becomes of slots that no service decided in time", "latest", "all", "none"),
    "catch_up_limit": {
        "type": "integer",
        "minimum": 1,
        "maximum": 10_000,
        "default": 100,
        "description": "with `catch_up: all` so many of the newest run, the others are missed",
    },
    "catch_up_within": {
        "type": ["string", "number"],
        "examples": ["6h"],
        "description": "a slot that is older is missed; seconds, or a length such as 6h",
    },
    "jitter_s": {
        "type": "number",
        "minimum": 0,
        "maximum": 86_400,
        "description": "the run of a slot starts up to so many seconds later, always the same for a slot",
    },
    "end_time": {"type": "string", "examples": ["2027-01-01T00:00:00Z"], "description": "no slot after it"},
    "blackouts": {
        "type": "array",
        "items": {"type": "object"},
        "examples": [[{"weekdays": ["sat", "sun"]}, {"holidays": "DE"}]],
        "description": "rules of times at which no slot runs",
    },
    "dst_gap": _choice(
        "a fixed time that the clock skips: right after the gap, or not at all", "next", "skip"
    ),
    "dst_overlap": _choice(
        "a fixed time that the clock shows twice: the first time, or both", "first", "both"
    ),
    "landing_time_enabled": _flag("a slot says when its run is to be over, not when it starts"),
    "create_initial_pipeline_run": _flag(
        "when the trigger becomes active, the period under way runs at once"
    ),
    "skip_if_previous_running": _flag("a slot is skipped while a run of the trigger is not over"),
    "pipeline_run_limit": {
        "type": "integer",
        "minimum": 0,
        "description": "runs of the trigger at once",
    },
    "on_pipeline_run_limit_reached": {
        **_choice("what becomes of a run that is one too many", "cancel", "wait", "replace", "skip"),
        "default": "cancel",
    },
    "allow_blocks_to_fail": _flag("independent branches go on after a block has failed"),
    "timeout": {"type": "number", "description": "seconds a run may take; then it is stopped"},
    "timeout_status": _choice("what a run is then", "failed", "cancelled"),
    "on_sla": _choice("what becomes of a run that passes the trigger's `sla`", "alert", "cancel", "fail"),
}
#: For `json_schema_extra` of a field that holds settings.
SETTINGS_SCHEMA: Final[dict[str, Any]] = {"properties": PROPERTIES, "additionalProperties": False}
