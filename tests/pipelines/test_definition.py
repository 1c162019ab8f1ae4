"""Good and bad pipelines, as files."""

import os
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.models.pipeline import BlockType, Isolation, Limits, RetryPolicy
from app.pipelines.definition import MAX_BLOCKS

FILE = "pipelines/etl/metadata.yaml"


def test_mages_example_pipeline_loads(project) -> None:
    project.blocks("load_titanic", kind="data_loader")
    project.blocks("fill_in_missing_values", kind="transformer")
    project.blocks("export_titanic_clean", kind="data_exporter")
    project.pipeline(
        """
        blocks:
        - all_upstream_blocks_executed: true
          downstream_blocks: []
          name: export_titanic_clean
          status: not_executed
          type: data_exporter
          upstream_blocks:
          - fill_in_missing_values
          uuid: export_titanic_clean
        - all_upstream_blocks_executed: true
          downstream_blocks:
          - fill_in_missing_values
          - fill_in_missing_values
          name: load_titanic
          type: data_loader
          upstream_blocks: []
          uuid: load_titanic
        - downstream_blocks: [export_titanic_clean]
          name: fill in
          type: transformer
          upstream_blocks: [load_titanic, load_titanic]
          uuid: fill_in_missing_values
        name: example_pipeline
        type: python
        uuid: example_pipeline
        widgets: []
        """
    )
    pipeline = project.load()
    assert [block.uuid for block in pipeline.blocks] == [
        "load_titanic",
        "fill_in_missing_values",
        "export_titanic_clean",
    ]
    assert pipeline.blocks[1].type is BlockType.TRANSFORMER
    assert pipeline.blocks[1].file == "transformers/fill_in_missing_values.py"
    assert pipeline.blocks[1].upstream == ("load_titanic",)
    assert pipeline.blocks[1].name == "fill in"
    assert (pipeline.uuid, pipeline.name, pipeline.warnings) == ("etl", "example_pipeline", ())


def test_block_over_pipeline_over_project_key_by_key(project) -> None:
    project.blocks("a", "b")
    project.write(
        "metadata.yaml",
        """
        retry_config: {retries: 1, delay: 2, max_delay: 99}
        isolation: inline
        timezone: Asia/Tokyo
        variables: {x: project, y: project}
        concurrency_config: {block_run_limit: 4, pipeline_run_limit: 5}
        """,
    )
    project.pipeline(
        """
        retry_config: {retries: '2', exponential_backoff: false}
        concurrency_config: {pipeline_run_limit: 0, pipeline_run_limit_all_triggers: 7}
        variables: {y: pipeline, day: 2023-01-01}
        description: what it does
        tags: [one, 2]
        blocks:
        - {uuid: a, type: custom, retry_config: {delay: 3}, timeout: '30', isolation: worker}
        - {uuid: b, type: custom, timeout: 0, configuration: {k: [1]}}
        """
    )
    pipeline = project.load()
    a, b = pipeline.blocks
    assert a.retry == RetryPolicy(retries=2, delay_s=3, max_delay_s=99, exponential_backoff=False)
    assert b.retry == RetryPolicy(retries=2, delay_s=2, max_delay_s=99, exponential_backoff=False)
    assert (a.timeout_s, b.timeout_s) == (30, None)
    assert (a.isolation, b.isolation) == (Isolation.WORKER, Isolation.INLINE)
    assert b.configuration == {"k": [1]}
    assert pipeline.limits == Limits(4, 0, 7, "wait")
    assert pipeline.variables == {"x": "project", "y": "pipeline", "day": "2023-01-01"}
    assert (pipeline.timezone, pipeline.description, pipeline.tags) == (
        "Asia/Tokyo",
        "what it does",
        ("one", "2"),
    )


def test_notes_are_dropped_and_edges_to_them_cut(project) -> None:
    project.blocks("a", "b")
    project.pipeline(
        """
        blocks:
        - {uuid: note, type: markdown, language: markdown}
        - {uuid: a, type: custom, upstream_blocks: [note]}
        - {uuid: pad, type: scratchpad, upstream_blocks: [a]}
        - {uuid: b, type: custom, upstream_blocks: [pad, a, plot]}
        widgets:
        - {uuid: plot, type: chart}
        """
    )
    assert [(block.uuid, block.upstream) for block in project.load().blocks] == [("a", ()), ("b", ("a",))]


def test_a_block_file_may_be_named_nested_or_shared(project) -> None:
    for path in ("custom/etl/load.py", "custom/Upper-1.py", "lib/one.py", "lib/two.py"):
        project.write(path)
    project.pipeline(
        """
        blocks:
        - {uuid: etl/load, type: custom}
        - {uuid: Upper-1, type: custom}
        - {uuid: one, type: sensor, configuration: {file_source: {path: lib/one.py}}}
        - {uuid: two, type: custom, configuration: {file_path: shop/lib/two.py}}
        - {uuid: again, type: custom, configuration: {file_path: lib/two.py}}
        """
    )
    assert [block.file for block in project.load().blocks] == [
        "custom/etl/load.py",
        "custom/Upper-1.py",
        "lib/one.py",
        "lib/two.py",
        "lib/two.py",
    ]


def test_a_pipeline_without_blocks_is_valid_with_a_warning(project) -> None:
    project.pipeline("name: nothing yet\n")
    assert project.load().blocks == ()
    assert project.load().warnings == (f"{FILE}:1: the pipeline has no blocks",)


def test_what_has_no_effect_is_warned_about(project) -> None:
    project.blocks("a")
    project.pipeline(
        """
        executor_type: k8s
        run_pipeline_in_one_process: true
        concurrency_config: {pipeline_run_priority: 1}
        blocks:
        - {uuid: a, type: custom, executor_type: ecs}
        """
    )
    assert project.load().blocks[0].executor_type == "ecs"
    assert project.load().warnings == (
        f"{FILE}:1: executor_type 'k8s' is not available here; it runs in a local worker",
        f"{FILE}:2: run_pipeline_in_one_process has no effect: each block runs in a worker of its own",
        f"{FILE}:5: executor_type 'ecs' is not available here; it runs in a local worker",
        f"{FILE}:3: concurrency_config.pipeline_run_priority is not known and has no effect"
        " (did you mean 'pipeline_run_limit'?)",
    )


def test_an_edge_written_only_downstream_is_no_edge_and_warned_about(project) -> None:
    project.blocks("a", "b")
    project.pipeline(
        """
        blocks:
        - {uuid: a, type: custom, downstream_blocks: [b, gone]}
        - {uuid: b, type: custom}
        """
    )
    assert project.load().by_uuid["b"].upstream == ()
    assert project.load().warnings == (
        f"{FILE}:2: 'a' names 'b' downstream, which does not name it upstream: there is no such edge",
    )


def test_strict_executors_refuse_a_remote_one(project) -> None:
    project.write("metadata.yaml", "strict_executors: true")
    project.blocks("a")
    project.pipeline("blocks:\n- uuid: a\n  type: custom\n  executor_type: k8s\n")
    assert project.error() == (
        f"{FILE}:4: executor_type 'k8s' is not available here, and the project sets strict_executors"
    )


def test_an_executor_type_may_be_a_template(project) -> None:
    project.blocks("a")
    project.pipeline("""blocks: [{uuid: a, type: custom, executor_type: "{{ env_var('WHERE') }}"}]\n""")
    assert project.catalogue({"WHERE": "k8s"}).get("etl").blocks[0].executor_type == "k8s"
    assert project.catalogue({"WHERE": "local_python"}).get("etl").warnings == ()


BAD = {
    "yaml": ("blocks:\n- uuid: [\n", ":3: not valid YAML"),
    "not a mapping": ("- a\n", ":1: must be a mapping of keys to values, not a list"),
    "duplicate key": ("type: python\nname: x\ntype: python\n", ":3: the key 'type' is already on line 1"),
    "blocks is no list": ("blocks: {a: 1}\n", ":1: blocks must be a list, not a mapping"),
    "entry is no mapping": (
        "blocks:\n- {uuid: a, type: custom}\n- b\n",
        ":3: each entry of blocks must be a mapping",
    ),
    "no uuid": ("blocks:\n- {uuid: a, type: custom}\n- type: custom\n", ":3: the block has no uuid"),
    "no type": ("blocks:\n- uuid: a\n", ":2: block 'a' has no type"),
    "unknown upstream": (
        "blocks:\n- {uuid: a, type: custom}\n- uuid: b\n  type: custom\n  upstream_blocks:\n  - a\n  - aa\n",
        ":7: block 'b' names an unknown upstream block 'aa'",
    ),
    "cycle": (
        "blocks:\n- {uuid: a, type: custom, upstream_blocks: [b]}\n- {uuid: b, type: custom, upstream_blocks: [a]}\n",
        ":2: blocks form a cycle: a -> b -> a",
    ),
    "self edge": (
        "blocks:\n- {uuid: a, type: custom, upstream_blocks: [a]}\n",
        ":2: blocks form a cycle: a -> a",
    ),
    "duplicate block": (
        "blocks:\n- {uuid: a, type: custom}\n- {uuid: a, type: custom}\n",
        ":3: block 'a' is already on line 2",
    ),
    "missing file": ("blocks:\n- {uuid: c, type: custom}\n", ":2: block 'c': there is no file custom/c.py"),
    "missing named file": (
        "blocks:\n- uuid: a\n  type: custom\n  configuration:\n    file_path: lib/gone.py\n",
        ":5: block 'a': there is no file lib/gone.py",
    ),
    "file is a folder": ("blocks:\n- {uuid: folder, type: custom}\n", "there is no file custom/folder.py"),
    "file is a fifo": ("blocks:\n- {uuid: fifo, type: custom}\n", "there is no file custom/fifo.py"),
    "file is a link out": ("blocks:\n- {uuid: link, type: custom}\n", "leads out of the project"),
    "traversal in uuid": ("blocks:\n- {uuid: ../a, type: custom}\n", ":2: the block uuid '../a' may hold"),
    "absolute uuid": ("blocks:\n- {uuid: /etc/passwd, type: custom}\n", "may hold"),
    "odd uuid": ("blocks:\n- {uuid: 'a b', type: custom}\n", "may hold"),
    "long uuid": (f"blocks:\n- {{uuid: {'a' * 129}, type: custom}}\n", "may hold"),
    "traversal in path": (
        "blocks:\n- {uuid: a, type: custom, configuration: {file_path: ../outside.py}}\n",
        ":2: block 'a': path '../outside.py' must be relative",
    ),
    "absolute path": (
        "blocks:\n- {uuid: a, type: custom, configuration: {file_source: {path: /etc/passwd}}}\n",
        "must be relative",
    ),
    "not python": (
        "blocks:\n- {uuid: a, type: custom, configuration: {file_path: custom/a.sql}}\n",
        "is not a Python file",
    ),
    "language": (
        "blocks:\n- {uuid: a, type: custom, language: sql}\n",
        "blocks in sql are not supported; the guide 'What Runwright does not do' says what to use instead",
    ),
    "callback": (
        "blocks:\n- {uuid: a, type: callback}\n",
        "a callback stands under callbacks:, not under blocks:",
    ),
    "dbt": (
        "blocks:\n- {uuid: a, type: dbt, language: yaml}\n",
        "blocks of type dbt are not supported; the guide",
    ),
    "unknown type": (
        "blocks:\n- {uuid: a, type: data_loadr}\n",
        "unknown type 'data_loadr' (did you mean 'data_loader'?)",
    ),
    "legacy callback": (
        "blocks:\n- {uuid: a, type: custom, has_callback: true}\n",
        "block 'a' has a callback, but there is no file callbacks/a_callback.py",
    ),
    "trigger rule": (
        "blocks:\n- {uuid: a, type: custom, trigger_rule: all_donne}\n",
        "trigger_rule must be one of all_success, all_done",
    ),
    "callbacks": (
        "callbacks:\n- {uuid: tell, type: callback}\n",
        ":2: block 'tell': there is no file callbacks/tell.py",
    ),
    "conditionals": (
        "conditionals:\n- {uuid: c1, type: callback}\n",
        "block 'c1' under conditionals has the type 'callback'; it must be conditional",
    ),
    "global data product": (
        "blocks:\n- {uuid: a, type: global_data_product}\n",
        "blocks of type global_data_product are not supported; the guide",
    ),
    "integration": ("type: integration\n", "pipelines of type integration are not supported; the guide"),
    "jitter": (
        "retry_config:\n  jitter: 1.5\n",
        ":2: retry_config.jitter must be true, false, or a number between 0 and 1, not 1.5",
    ),
    "extension": (
        "extensions:\n  great_expectations:\n    blocks: [{uuid: a}]\n",
        ":3: blocks of the extension 'great_expectations' are not supported; the guide",
    ),
    "streaming": ("type: streaming\n", "pipelines of type streaming are not supported; the guide"),
    "unknown pipeline type": ("type: pyton\n", "unknown pipeline type 'pyton' (did you mean 'python'?)"),
    "retries": (
        "blocks:\n- uuid: a\n  type: custom\n  retry_config:\n    retries: x\n",
        ":5: retry_config.retries must be",
    ),
    "timeout": (
        "blocks:\n- {uuid: a, type: custom, timeout: soon}\n",
        ":2: timeout must be a number of at least 0",
    ),
    "variables": ("variables: [a]\n", ":1: variables must be a mapping, not a list"),
    "nan": ("variables: {a: .nan}\n", ":1: '.nan' is not a finite number"),
    "isolation": ("isolation: process\n", "isolation must be one of worker, inline"),
    "limits": ("concurrency_config: {block_run_limit: many}\n", "concurrency_config.block_run_limit must be"),
    "bad template": ("executor_type: '{{ nonsense }}'\n", "'nonsense' is undefined"),
    "too many": (
        "blocks:\n" + "".join(f"- {{uuid: b{n}, type: custom}}\n" for n in range(MAX_BLOCKS + 1)),
        ":1: the pipeline has 1,001 blocks; 1,000 is the most",
    ),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_a_bad_pipeline_says_where_and_why_and_hurts_no_other(
    project, tmp_path, text: tuple[str, str]
) -> None:
    project.blocks("a", "b")
    project.write("custom/a.sql")
    (project.root / "custom/folder.py").mkdir()
    os.mkfifo(project.root / "custom/fifo.py")
    (tmp_path / "outside.py").write_text("")
    (project.root / "custom/link.py").symlink_to(tmp_path / "outside.py")
    project.pipeline(text[0])
    project.pipeline("blocks: [{uuid: a, type: custom}]\n", "good")
    entries = {entry.uuid: entry for entry in project.catalogue().entries()}
    assert entries["good"].pipeline is not None
    assert entries["etl"].pipeline is None
    assert str(entries["etl"].error).startswith(FILE + ":")
    assert text[1] in str(entries["etl"].error)


def test_a_thousand_blocks_in_a_chain_are_fine(project) -> None:
    names = [f"b{n}" for n in range(MAX_BLOCKS)]
    project.write("custom/one.py")
    project.pipeline(
        "blocks:\n"
        + "".join(
            f"- {{uuid: {b}, type: custom, configuration: {{file_path: custom/one.py}}, upstream_blocks: [{a}]}}\n"
            for a, b in zip(["", *names], names, strict=False)
        )
    )
    assert [block.uuid for block in project.load().blocks] == names


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_graph_is_ordered_or_its_cycle_is_named(project, data) -> None:
    names = [f"b{n}" for n in range(data.draw(st.integers(1, 8)))]
    edges = {name: data.draw(st.lists(st.sampled_from(names), max_size=3)) for name in names}
    project.write("custom/one.py")
    project.pipeline(
        "blocks:\n"
        + "".join(
            f"- {{uuid: {name}, type: custom, configuration: {{file_path: custom/one.py}}, "
            f"upstream_blocks: [{', '.join(upstream)}]}}\n"
            for name, upstream in edges.items()
        )
    )
    entry = project.entry()
    if entry.pipeline is None:
        path = entry.error.message.removeprefix("blocks form a cycle: ").split(" -> ")
        assert path[0] == path[-1]
        assert len(path) > 1
        assert all(a in edges[b] for a, b in pairwise(path))
        return
    order = [block.uuid for block in entry.pipeline.blocks]
    assert sorted(order) == names
    for block in entry.pipeline.blocks:
        assert block.upstream == tuple(dict.fromkeys(edges[block.uuid]))
        assert all(order.index(upstream) < order.index(block.uuid) for upstream in block.upstream)
