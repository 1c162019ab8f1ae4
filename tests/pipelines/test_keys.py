"""The three levels of `metadata.yaml`: what a block inherits, unknown keys, overrides, secrets by reference."""

from datetime import UTC, datetime, timedelta

import pytest

from app.executors.base import BlockResult
from app.executors.child import references
from app.models.pipeline import RetryPolicy
from app.models.states import Outcome
from app.pipelines.project import ProjectInvalid, load_project
from app.pipelines.templating import refers, render
from app.scheduler.progress import judge

FILE = "pipelines/etl/metadata.yaml"


def test_retries_are_inherited_key_by_key_from_project_to_pipeline_to_block(project) -> None:
    project.write("metadata.yaml", "retry_config: {retries: 2, delay: 7, jitter: true}\n")
    project.blocks("a", "b")
    project.pipeline(
        """
        retry_config: {delay: 3, max_delay: 9}
        blocks:
        - {uuid: a, type: custom}
        - {uuid: b, type: custom, retry_config: {retries: 0, jitter: 0.25}}
        """
    )
    a, b = project.load().blocks
    assert a.retry == RetryPolicy(retries=2, delay_s=3, max_delay_s=9, jitter=0.5)
    assert b.retry == RetryPolicy(retries=0, delay_s=3, max_delay_s=9, jitter=0.25)


def test_a_delay_is_capped_and_then_shortened_by_chance_that_repeats() -> None:
    policy = RetryPolicy(retries=9, delay_s=10, max_delay_s=40, jitter=0.5)
    for attempt, longest in ((2, 10), (3, 20), (4, 40), (7, 40)):
        delays = {policy.delay_before(attempt, seed) for seed in range(50)}
        assert len(delays) == 50 and longest / 2 < min(delays) < longest * 0.6
        assert longest * 0.9 < max(delays) <= longest
    assert policy.delay_before(3, 8) == policy.delay_before(3, 8) != policy.delay_before(3, 9)


def test_a_retry_waits_as_long_as_its_policy_and_its_block_run_say(project) -> None:
    project.blocks("a")
    project.pipeline("blocks:\n- {uuid: a, type: custom, retry_config: {retries: 1, jitter: 1}}\n")
    (block,) = project.load().blocks
    now = datetime(2026, 1, 1, tzinfo=UTC)
    wakes = {
        judge(
            block, BlockResult(Outcome.FAILED), charged=1, lost=0, started_at=now, now=now, seed=seed
        ).wake_at
        for seed in range(20)
    }
    assert len(wakes) == 20
    assert all(wake is not None and now <= wake <= now + timedelta(seconds=5) for wake in wakes)


@pytest.mark.parametrize(
    ("top", "pipeline", "block", "seconds"),
    [
        ("block_timeout: 60", "", "", 60),
        ("block_timeout: 60", "block_timeout: 30", "", 30),
        ("block_timeout: 60", "block_timeout: 30", ", timeout: 10", 10),
        ("block_timeout: 60", "", ", timeout: 0", None),
        ("", "", "", None),
    ],
)
def test_a_timeout_of_blocks_may_stand_on_each_level(project, top, pipeline, block, seconds) -> None:
    project.write("metadata.yaml", top + "\n")
    project.blocks("a")
    project.write("sensors/s.py")
    project.pipeline(
        f"{pipeline}\nblocks:\n- {{uuid: a, type: custom{block}}}\n- {{uuid: s, type: sensor}}\n"
    )
    assert project.load().by_uuid["a"].timeout_s == seconds
    assert project.load().by_uuid["s"].timeout_s is None  # it bounds all the waiting of a sensor


def test_unknown_keys_are_warned_about_on_every_level_and_mages_are_not(project) -> None:
    project.write("metadata.yaml", "tmezone: UTC\nfeatures: {}\nretry_config: {retry: 1}\n")
    project.blocks("a")
    project.pipeline(
        """
        cache_block_output_in_memory: true
        varables: {}
        executor_count: 2
        blocks:
        - {uuid: a, type: custom, timout: 5, color: red}
        """
    )
    assert project.load().warnings == (
        f"{FILE}:2: varables is not known and has no effect (did you mean 'variables'?)",
        f"{FILE}:1: cache_block_output_in_memory has no effect: outputs are always stored",
        f"{FILE}:5: timout is not known and has no effect (did you mean 'timeout'?)",
    )
    assert load_project(project.root).warnings == (
        "metadata.yaml:1: tmezone is not known and has no effect (did you mean 'timezone'?)",
        "metadata.yaml:3: retry_config.retry is not known and has no effect (did you mean 'retries'?)",
    )


def test_overrides_of_the_environment_replace_keys(project) -> None:
    project.write("metadata.yaml", "timezone: UTC\noverrides: {dev: {timezone: Europe/Berlin}}\n")
    project.blocks("a")
    project.pipeline(
        """
        variables: {rows: 1000, keep: 1}
        blocks: [{uuid: a, type: custom}]
        overrides:
          dev: {uuid: x, variables: {rows: 10}}
        """
    )
    assert project.load().variables == {"rows": 1000, "keep": 1}
    dev = project.catalogue({"ENV": "dev"}).get("etl")
    assert (dev.variables, dev.timezone) == ({"rows": 10}, "Europe/Berlin")
    assert dev.warnings == (f"{FILE}:4: overrides.dev.uuid has no effect: it is the folder's name",)


@pytest.mark.parametrize(("text", "seconds"), [("90d", 7_776_000), ("12h", 43_200), ("2w", 1_209_600)])
def test_the_retention_period_is_read(project, text: str, seconds: float) -> None:
    project.write("metadata.yaml", f"variables_retention_period: {text}\n")
    assert load_project(project.root).retention_s == seconds


def test_a_period_that_is_none_is_refused(project) -> None:
    project.write("metadata.yaml", "variables_retention_period: long\n")
    with pytest.raises(ProjectInvalid, match="must be a time such as 12h, 90d or 2w, not the text 'long'"):
        load_project(project.root)


def test_a_secret_is_a_reference_in_variables_and_refused_elsewhere(project) -> None:
    text = 'variables: {{dsn: "postgres://me:{}@db"}}\n'.format("{{ mage_secret_var('pw') }}")
    project.write("metadata.yaml", text)
    assert load_project(project.root).variables == {"dsn": "postgres://me:<<secret pw>>@db"}
    project.write(
        "metadata.yaml", "a: 1\nruntime: 1\nrunwright: {database_url: \"{{ mage_secret_var('x') }}\"}\n"
    )
    with pytest.raises(
        ProjectInvalid, match=r"metadata.yaml:3: mage_secret_var\(\) works in variables, not in runw"
    ):
        load_project(project.root)


def test_what_the_template_writes_is_what_the_worker_reads() -> None:
    text = render(
        "{{ mage_secret_var('a.b-c') }} {{ json_value(mage_secret_var('j'), 'k 1') }}", "f", {}, print
    )
    assert refers(text) and references.has(text)
    assert references.resolve(text, {"a.b-c": "1", "j": '{"k 1": 2}'}.__getitem__) == "1 2"
    with pytest.raises(ValueError, match="no JSON object with the key 'k 1'") as caught:
        references.resolve(text, lambda name: "not json")
    assert "not json" not in str(caught.value) and caught.value.__cause__ is None
