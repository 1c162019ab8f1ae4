"""The keys of `metadata.yaml` on each level. One that nobody knows is warned about, with the nearest that is known.

Keys of Mage that have no meaning here are known: a project that moves need not be cleaned up first.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from app.pipelines.fields import Section
from app.pipelines.problems import did_you_mean
from app.pipelines.yamlfile import YamlMap

RETRY: Final = ("retries", "delay", "max_delay", "exponential_backoff", "jitter")
RETENTION: Final = ("runs_days", "runs", "logs_days", "outputs_days")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PROJECT: Final = _words(
    "name description project_uuid variables concurrency_config retry_config python isolation executor_type"
    " strict_executors timezone week_start runwright block_timeout dynamic_blocks variables_dir"
    " variables_retention_period overrides tags"
    # Mage's
    " project_type cluster_type remote_variables_dir queue_config notification_config logging_config features"
    " pipelines settings_backend help_improve_mage ldap_config ai_config openai_api_key k8s_executor_config"
    " ecs_config gcp_cloud_run_config azure_container_instance_config emr_config spark_config"
    " workspace_config workspace_initial_metadata version created_at updated_at database experiments"
    " state_store_config sync_config git_settings kernel_config execution_framework"
)
PIPELINE: Final = _words(
    "uuid name type description tags blocks callbacks conditionals widgets extensions variables"
    " concurrency_config retry_config executor_type isolation block_timeout dynamic_blocks python overrides retention"
    " run_pipeline_in_one_process cache_block_output_in_memory"
    # Mage's
    " created_at updated_at notification_config executor_config executor_count settings spark_config"
    " data_integration execution_framework state_store_config remote_variables_dir variables_dir version"
    " repo_path cache_block_run_output pipeline_run_priority"
)
BLOCK: Final = _words(
    "uuid name type language upstream_blocks downstream_blocks configuration retry_config timeout executor_type"
    " isolation trigger_rule conditional_blocks callback_blocks has_callback replicated_block extension_uuid"
    " dynamic_blocks"
    # Mage's
    " color content executor_config status groups all_upstream_blocks_executed priority bookmarks catalog"
    " created_at updated_at description metadata outputs pipelines tags documentation file"
)

Warn = Callable[[Section, int, str], None]


def warn_unknown(section: Section, known: Collection[str], warn: Warn) -> None:
    """Warn about each key of the mapping that nobody knows."""
    for key in section.values:
        if key not in known:
            name = f"{section.where}{key}"
            warn(
                section,
                section.values.at(key),
                f"{name} is not known and has no effect{did_you_mean(key, known)}",
            )


def overridden(top: Section, env: str, warn: Warn) -> Section:
    """The mapping with what `overrides.<env>` says put in the place of keys of the same name (Mage: `overrides`)."""
    choices = top.section("overrides")
    if env not in choices.values:
        return top
    chosen = choices.section(env)
    merged = YamlMap({**top.values, **chosen.values})
    merged.line = top.values.line
    merged.lines = {**top.values.lines, **chosen.values.lines}
    merged.fault = top.values.fault
    fixed: Mapping[str, Any] = {"uuid": "the folder's name", "overrides": "itself"}
    for key in fixed.keys() & chosen.values.keys():
        warn(chosen, chosen.values.at(key), f"overrides.{env}.{key} has no effect: it is {fixed[key]}")
    return Section(merged, top.file, top.where)
