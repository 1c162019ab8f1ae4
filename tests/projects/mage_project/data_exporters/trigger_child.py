from mage_ai.orchestration.triggers.api import trigger_pipeline

if 'data_exporter' not in globals():
    from mage_ai.data_preparation.decorators import data_exporter


@data_exporter
def trigger(*args, **kwargs):
    run = trigger_pipeline(
        "called_by_others",
        variables={"answer": 42},
        check_status=True,
        error_on_failure=True,
        poll_interval=60,
        poll_timeout=None,
        verbose=False,
    )
    return {"status": run.status, "pipeline": run.pipeline_uuid, "variables": run.variables}
