"""The only reader of the environment.

Order: what the command line gives > `RUNWRIGHT_*` (or `RUNWRIGHT_*_FILE`, a file that holds the value) > the
`runwright:` section of the project's `metadata.yaml` > the defaults below.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "RUNWRIGHT_"


def _default_workers() -> int:
    return min(8, 4 * (os.cpu_count() or 1))


class Settings(BaseSettings):
    """Everything that may be set. Durations in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)

    project: Path = Field(description="the project folder")
    home: Path = Field(default=Path(), description="state of the service; default <project>/.runwright")
    database_url: str = Field(default="", description="postgresql://…; default SQLite in the home folder")
    sqlite_on_network: bool = Field(
        default=False, description="serve a SQLite file that lies on a network file system"
    )
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    admin_key: SecretStr | None = Field(default=None, description="needed for any bind that is not loopback")
    secret_key: SecretStr | None = Field(
        default=None, description="seals secrets, several may open; default home/secret.key"
    )
    allowed_hosts: tuple[str, ...] = Field(default=(), description="Host names answered besides loopback's")
    env: str = Field(
        default="prod", description="which `envs` entries of triggers.yaml apply; also read from ENV"
    )
    paused: bool = Field(default=False, description="triggers do not fire here; what is launched runs")
    run_slots: int = Field(default=64, ge=1, description="runs this node executes at once")
    workers: int = Field(default_factory=_default_workers, ge=1, description="worker processes at most")
    warm_workers: int = Field(default=2, ge=0, description="idle workers kept ready")
    python: str | None = Field(
        default=None, description="interpreter of the blocks; default the service's own"
    )
    block_memory: int | None = Field(
        default=None,
        ge=256 * 2**20,
        description="address space of a block's process at most; default no limit",
    )
    inline: bool = Field(default=False, description="allow `isolation: inline`")
    kill_grace_s: float = Field(default=5.0, ge=0, le=60, description="between TERM and KILL")
    drain_s: float = Field(default=30.0, ge=0, description="how long a stop waits for running blocks")
    lease_s: float = Field(default=20.0, ge=2, description="a node silent for so long is taken over")
    keep_runs_days: float = Field(
        default=90.0, ge=0, description="finished runs are kept for so long; 0: ever"
    )
    keep_runs_per_pipeline: int = Field(default=0, ge=0, description="and so many a pipeline; 0: any number")
    keep_logs_days: float = Field(default=30.0, ge=0, description="log lines of finished runs; 0: as the run")
    keep_outputs_days: float = Field(default=0.0, ge=0, description="files of outputs; 0: as long as the run")
    keep_slots_days: float = Field(default=90.0, ge=0, description="slots that made no run; 0: ever")
    body_limit: int = Field(default=1024 * 1024, ge=1024, description="largest request body")
    log_level: str = "info"
    testing: bool = Field(default=False, description="allow failpoints, which kill and fail this service")
    failpoints: str = Field(default="", description="where a test kills or fails this service")

    @field_validator("project", "home", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value if value == Path() else value.resolve()

    @field_validator("log_level")
    @classmethod
    def _lower(cls, value: str) -> str:
        if value.upper() not in logging.getLevelNamesMapping():
            raise ValueError("must be debug, info, warning, error or critical")
        return value.lower()

    def model_post_init(self, context: Any) -> None:
        """Fill in what depends on the project folder."""
        if self.home == Path():
            object.__setattr__(self, "home", self.project / ".runwright")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, then environment; files come in through :func:`load`."""
        return (init_settings, env_settings)

    @property
    def artifacts(self) -> Path:
        """Where block outputs that do not fit in a row are kept."""
        return self.home / "artifacts"

    @property
    def store_url(self) -> str:
        """The database in use, as a URL."""
        return self.database_url or f"sqlite:///{self.home / 'runwright.db'}"


def load(project: Path, *, section: Mapping[str, Any] | None = None, **command_line: Any) -> Settings:
    """Settings for a project. None on the command line means not given.

    `section` is the `runwright:` part of the project's `metadata.yaml`; unknown keys in it are ignored here
    and reported by validation. Raises pydantic.ValidationError for values that make no sense.
    """
    given = {name: value for name, value in command_line.items() if value is not None}
    if "env" not in given and "ENV" in os.environ and PREFIX + "ENV" not in os.environ:
        given["env"] = os.environ["ENV"]
    merged = {**(section or {}), **_from_files(), **_from_environment(), **given}
    known = {name: value for name, value in merged.items() if name in Settings.model_fields}
    return Settings(**{**known, "project": project})


def _from_files() -> dict[str, str]:
    """Values of `RUNWRIGHT_X_FILE`: the content of the file it names, stripped."""
    found = {}
    for name, path in os.environ.items():
        if name.startswith(PREFIX) and name.endswith("_FILE") and path:
            found[name[len(PREFIX) : -len("_FILE")].lower()] = Path(path).read_text(encoding="utf-8").strip()
    return found


def _from_environment() -> dict[str, str]:
    """Plain `RUNWRIGHT_X` values: read here too, since they must win over the project's section."""
    names = {PREFIX + field.upper(): field for field in Settings.model_fields}
    found = {names[name]: value for name, value in os.environ.items() if name in names and value}
    if isinstance(hosts := found.get("allowed_hosts"), str):
        found["allowed_hosts"] = tuple(part.strip() for part in hosts.split(",") if part.strip())  # type: ignore[assignment]
    return found


def environment() -> Mapping[str, str]:
    """The environment for those who may see it: `env_var()` in metadata.yaml, and the worker processes."""
    return dict(os.environ)


def worker_environment() -> dict[str, str]:
    """What user code inherits: the service's environment less its own settings, which hold its secrets."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


#: Mage's names for the limits that a project's `concurrency_config` may overwrite.
_MAGE_LIMITS = {
    "CONCURRENCY_CONFIG_BLOCK_RUN_LIMIT": "block_run_limit",
    "CONCURRENCY_CONFIG_PIPELINE_RUN_LIMIT": "pipeline_run_limit",
    "CONCURRENCY_CONFIG_PIPELINE_RUN_LIMIT_ALL_TRIGGERS": "pipeline_run_limit_all_triggers",
}


def mage_limits(environ: Mapping[str, str]) -> dict[str, int]:
    """The limits that an environment sets for all pipelines. Raises ValueError for one that is no number.

    >>> mage_limits({"CONCURRENCY_CONFIG_BLOCK_RUN_LIMIT": "2", "CONCURRENCY_CONFIG_PIPELINE_RUN_LIMIT": ""})
    {'block_run_limit': 2}
    """
    found = {}
    for name, key in _MAGE_LIMITS.items():
        text = environ.get(name, "").strip()
        if text and not (text.isascii() and text.isdigit()):
            raise ValueError(f"{name} must be a whole number of at least 0, not '{text[:50]}'")
        if text:
            found[key] = int(text)
    return found
