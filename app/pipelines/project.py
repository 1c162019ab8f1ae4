"""The project's own `metadata.yaml`: defaults for every pipeline. A project without the file has Mage's defaults."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from app.models.pipeline import Dynamic, Isolation, Limits, RetryPolicy
from app.pipelines import keys, yamlfile
from app.pipelines.dynamic import merge_limits as merge_dynamic
from app.pipelines.fields import Section
from app.pipelines.files import read_text
from app.pipelines.problems import BadDefinition, ProjectInvalid, did_you_mean
from app.pipelines.templating import refers, render
from app.settings import mage_limits

FILE = "metadata.yaml"
#: Names of Mage's executors that run a block on this machine.
LOCAL_EXECUTORS = ("local_python", "local_python_force")

_RETRY = {"delay": "delay_s", "max_delay": "max_delay_s"}
_OF_ALL = "pipeline_run_limit_all_pipelines"
_LIMITS = ("block_run_limit", "pipeline_run_limit", "pipeline_run_limit_all_triggers")
_PERIODS = {"h": 3600, "d": 86_400, "w": 604_800}
#: Keys whose values the service itself uses.
_READ = ("name", "project_uuid", "python", "timezone", "executor_type", "runwright", "retry_config")
#: Mage says `skip` for what is called `cancel` here.
LIMIT_REACHED = {"wait": "wait", "cancel": "cancel", "skip": "cancel"}


@dataclass(frozen=True)
class ProjectConfig:
    """What a project says for all its pipelines. `settings` is its `runwright:` section, as written."""

    root: Path
    name: str = ""
    #: `project_uuid`, else the name: what ties a database to its project
    uuid: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    limits: Limits = field(default_factory=Limits)
    dynamic: Dynamic = field(default_factory=Dynamic)
    #: runs at once over all pipelines; None is no limit
    run_limit: int | None = None
    python: str | None = None
    isolation: Isolation = Isolation.WORKER
    executor_type: str = "local_python"
    strict_executors: bool = False
    timezone: str = "UTC"
    week_start: str = "sunday"
    #: seconds that a try of a block may take, where neither block nor pipeline says otherwise
    block_timeout_s: float | None = None
    #: how long Mage would keep variables (`variables_retention_period`), in seconds
    retention_s: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def load_project(root: Path, environ: Mapping[str, str] | None = None) -> ProjectConfig:
    """Read `<root>/metadata.yaml`. `environ` is what `env_var()` in it sees.

    Raises ProjectInvalid, with file and line.
    """
    if not root.is_dir():
        raise ProjectInvalid(f"there is no project folder '{root}'")
    try:
        text = read_text(root, FILE)[0]
    except FileNotFoundError:
        limits = _of_environment(environ or {})
        return ProjectConfig(root, root.resolve().name, root.resolve().name, limits=limits)
    except OSError as error:
        raise ProjectInvalid(f"{FILE}: cannot be read: {error.strerror}") from error
    except BadDefinition as bad:
        raise ProjectInvalid(str(bad.error)) from bad
    try:
        return parse_project(root, text, environ or {})
    except BadDefinition as bad:
        raise ProjectInvalid(str(bad.error)) from bad


def parse_project(root: Path, text: str, environ: Mapping[str, str]) -> ProjectConfig:
    """The project that the text of its `metadata.yaml` describes. Raises BadDefinition."""
    warnings: dict[str, None] = {}
    rendered = render(text, FILE, environ, lambda message: warnings.setdefault(f"{FILE}: {message}"))
    top = Section(yamlfile.parse(rendered, FILE), FILE)

    def warn(section: Section, line: int, message: str) -> None:
        warnings.setdefault(f"{section.file}:{line}: {message}")

    top = keys.overridden(top, environ.get("ENV") or "prod", warn)
    keys.warn_unknown(top, keys.PROJECT, warn)
    _check_references(top)
    limits = merge_limits(top.section("concurrency_config"), _of_environment(environ), warnings, _OF_ALL)
    return ProjectConfig(
        root=root,
        name=top.text("name") or root.resolve().name,
        uuid=top.text("project_uuid") or top.text("name") or root.resolve().name,
        variables=top.mapping("variables"),
        retry=merge_retry(top.section("retry_config"), RetryPolicy(), warn),
        limits=limits,
        dynamic=merge_dynamic(top.section("dynamic_blocks"), Dynamic()),
        run_limit=top.section("concurrency_config").integer(_OF_ALL),
        python=_python(root, top.text("python")),
        isolation=Isolation(top.choice("isolation", list(Isolation), Isolation.WORKER)),
        executor_type=top.text("executor_type") or "local_python",
        strict_executors=top.flag("strict_executors"),
        timezone=zone_name(top) or "UTC",
        week_start=top.choice("week_start", ("sunday", "monday"), "sunday"),
        block_timeout_s=top.number("block_timeout") or None,
        retention_s=_period(top, "variables_retention_period"),
        settings=top.mapping("runwright"),
        warnings=tuple(warnings),
    )


def _of_environment(environ: Mapping[str, str]) -> Limits:
    """Mage's `CONCURRENCY_CONFIG_…` variables: the level above the project's file. Raises ProjectInvalid."""
    try:
        found: dict[str, Any] = {**mage_limits(environ)}
        return Limits(**found)
    except ValueError as error:
        raise ProjectInvalid(f"the environment variable {error}") from error


def merge_retry(section: Section, base: RetryPolicy, warn: keys.Warn) -> RetryPolicy:
    """`retry_config` over the policy of the level above, key by key."""
    keys.warn_unknown(section, keys.RETRY, warn)
    found: dict[str, Any] = {"retries": section.integer("retries")}
    found |= {name: section.number(key) for key, name in _RETRY.items()}
    if section.values.get("exponential_backoff") is not None:
        found["exponential_backoff"] = section.flag("exponential_backoff")
    if section.values.get("jitter") is not None:
        found["jitter"] = _share(section, "jitter")
    return replace(base, **{name: value for name, value in found.items() if value is not None})


def merge_limits(section: Section, base: Limits, warnings: dict[str, None], *more: str) -> Limits:
    """`concurrency_config` over the limits of the level above, key by key; unknown keys are warned about.

    `more` are known keys that the caller reads.
    """
    reached = "on_pipeline_run_limit_reached"
    for key in section.values.keys() - {*_LIMITS, *more, reached}:
        hint = did_you_mean(key, (*_LIMITS, reached))
        place = f"{section.file}:{section.values.at(key)}"
        warnings.setdefault(f"{place}: concurrency_config.{key} is not known and has no effect{hint}")
    found: dict[str, Any] = {key: section.integer(key) for key in _LIMITS}
    if section.values.get(reached) is not None:
        found[reached] = LIMIT_REACHED[section.choice(reached, tuple(LIMIT_REACHED))]
    return replace(base, **{name: value for name, value in found.items() if value is not None})


def zone_name(section: Section) -> str | None:
    """The IANA zone under `timezone`, None when there is none."""
    name = section.text("timezone")
    try:
        return ZoneInfo(name).key if name else None
    except (LookupError, ValueError, OSError):  # a folder of the zone database is an OSError
        raise section.bad(
            "timezone", f"unknown time zone '{name}'; use an IANA name such as Europe/Berlin"
        ) from None


def _python(root: Path, value: str) -> str | None:
    """The interpreter; a path is relative to the project, a bare name is looked up on the PATH by whoever runs it."""
    if not value or "/" not in value:
        return value or None
    return str(
        root / Path(value).expanduser()
    )  # a link stays a link: that is how a venv's python knows its venv


def _share(section: Section, key: str) -> float:
    """A part between 0 and 1; `true` is half."""
    if isinstance(section.values[key], bool):
        return 0.5 if section.values[key] else 0.0
    value = section.number(key) or 0.0
    if value > 1:
        raise section.wrong(key, "true, false, or a number between 0 and 1")
    return value


def _period(section: Section, key: str) -> float | None:
    """A time such as 90d, 12h or 2w, in seconds (Mage: `variables_retention_period`)."""
    text = section.text(key)
    found = re.fullmatch(r"([0-9]{1,6})([hdw])", text, re.ASCII)
    if text and found is None:
        raise section.wrong(key, "a time such as 12h, 90d or 2w")
    return float(found[1]) * _PERIODS[found[2]] if found else None


def _check_references(top: Section) -> None:
    """A secret reaches blocks through `variables` alone: what else this file says, the service would write down."""
    for key in _READ:
        if refers(top.values.get(key)):
            raise top.bad(
                key,
                f"mage_secret_var() works in variables, not in {key}; use env_var() or a RUNWRIGHT_… setting",
            )
