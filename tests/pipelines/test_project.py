"""The project's `metadata.yaml`."""

from pathlib import Path

import pytest

from app.models.pipeline import Isolation, Limits, RetryPolicy
from app.pipelines.problems import ProjectInvalid
from app.pipelines.project import ProjectConfig, load_project

MAGE_TEMPLATE = """
    variables_dir: ~/.mage_data
    remote_variables_dir: s3://bucket/path_prefix

    emr_config:
        master_instance_type: 'r5.4xlarge'

    notification_config:
      slack_config:
        webhook_url: "{{ env_var('MAGE_SLACK_WEBHOOK_URL') }}"
"""


def test_a_project_without_a_file_has_the_defaults(project) -> None:
    assert load_project(project.root) == ProjectConfig(project.root, "shop", "shop")


def test_the_file_that_mage_makes_loads_and_warns_of_what_is_not_set(project) -> None:
    project.write("metadata.yaml", MAGE_TEMPLATE)
    config = load_project(project.root)
    assert config.warnings == (
        "metadata.yaml: the environment variable 'MAGE_SLACK_WEBHOOK_URL' is not set; it is empty here",
    )
    assert load_project(project.root, {"MAGE_SLACK_WEBHOOK_URL": "https://x"}).warnings == ()


def test_every_key_is_read(project) -> None:
    project.write(
        "metadata.yaml",
        """
        name: Shop
        project_uuid: shop-1
        python: .venv/bin/python
        isolation: inline
        timezone: Europe/Berlin
        week_start: monday
        strict_executors: true
        variables: {region: "{{ env_var('REGION') }}"}
        retry_config: {retries: '3', delay: 1.5, exponential_backoff: false}
        concurrency_config:
          pipeline_run_limit: 2
          on_pipeline_run_limit_reached: skip
          block_run_limt: 3
        runwright: {run_slots: 8}
        """,
    )
    config = load_project(project.root, {"REGION": "eu"})
    assert config == ProjectConfig(
        root=project.root,
        name="Shop",
        uuid="shop-1",
        variables={"region": "eu"},
        retry=RetryPolicy(retries=3, delay_s=1.5, exponential_backoff=False),
        limits=Limits(pipeline_run_limit=2, on_pipeline_run_limit_reached="cancel"),
        python=str(project.root / ".venv/bin/python"),
        isolation=Isolation.INLINE,
        strict_executors=True,
        timezone="Europe/Berlin",
        week_start="monday",
        settings={"run_slots": 8},
        warnings=(
            "metadata.yaml:13: concurrency_config.block_run_limt is not known and has no effect"
            " (did you mean 'block_run_limit'?)",
        ),
    )


@pytest.mark.parametrize(
    ("value", "python"), [("python3.11", "python3.11"), ("/usr/bin/python3", "/usr/bin/python3"), ("", None)]
)
def test_an_interpreter_may_be_a_name_or_a_path(project, value: str, python: str | None) -> None:
    project.write("metadata.yaml", f"python: '{value}'")
    assert load_project(project.root).python == python


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nretry_config: 5\n", "metadata.yaml:2: retry_config must be a mapping, not 5"),
        (
            "retry_config:\n  retries: many\n",
            "metadata.yaml:2: retry_config.retries must be a number of at least 0",
        ),
        ("retry_config:\n  retries: -1\n", "at least 0"),
        ("retry_config:\n  retries: 1.5\n", "a whole number"),
        ("retry_config:\n  retries: true\n", "not true"),
        ("retry_config:\n  exponential_backoff: maybe\n", "must be true or false, not the text 'maybe'"),
        ("isolation: inlin\n", "must be one of worker, inline, not 'inlin' (did you mean 'inline'?)"),
        ("timezone: Europe/Berln\n", "metadata.yaml:1: unknown time zone 'Europe/Berln'"),
        ("timezone: Europe\n", "unknown time zone"),
        ("week_start: tuesday\n", "must be one of sunday, monday"),
        (
            "concurrency_config: {on_pipeline_run_limit_reached: explode}\n",
            "must be one of wait, cancel, skip",
        ),
        ("name: [a]\n", "name must be a text, not a list"),
        ("a: {{ nonsense }}\n", "metadata.yaml:1: template: 'nonsense' is undefined"),
        ("a: [\n", "not valid YAML"),
        ("- a\n", "must be a mapping"),
    ],
)
def test_a_fault_names_file_and_line(project, text: str, message: str) -> None:
    project.write("metadata.yaml", text)
    with pytest.raises(ProjectInvalid) as caught:
        load_project(project.root)
    assert message in caught.value.detail


def test_a_file_that_is_none_is_a_fault(project) -> None:
    (project.root / "metadata.yaml").mkdir()
    with pytest.raises(ProjectInvalid, match=r"^metadata.yaml"):
        load_project(project.root)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProjectInvalid, match="there is no project folder"):
        load_project(tmp_path / "nothing")


def test_the_environment_limits_what_the_project_does_not(tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_text("concurrency_config:\n  block_run_limit: 4\n")
    environ = {
        "CONCURRENCY_CONFIG_BLOCK_RUN_LIMIT": "2",
        "CONCURRENCY_CONFIG_PIPELINE_RUN_LIMIT": "0",
        "CONCURRENCY_CONFIG_PIPELINE_RUN_LIMIT_ALL_TRIGGERS": "7",
    }
    project = load_project(tmp_path, environ)
    assert (project.limits.block_run_limit, project.limits.pipeline_run_limit) == (4, 0)
    assert project.limits.pipeline_run_limit_all_triggers == 7
    assert project.run_limit is None
    with pytest.raises(ProjectInvalid, match="CONCURRENCY_CONFIG_BLOCK_RUN_LIMIT must be a whole number"):
        load_project(tmp_path, {"CONCURRENCY_CONFIG_BLOCK_RUN_LIMIT": "many"})


def test_the_limit_over_all_pipelines_is_the_projects_alone(tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_text("concurrency_config:\n  pipeline_run_limit_all_pipelines: 9\n")
    project = load_project(tmp_path)
    assert (project.run_limit, project.warnings) == (9, ())
