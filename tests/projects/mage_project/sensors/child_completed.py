from datetime import datetime, timedelta, timezone

from mage_ai.orchestration.run_status_checker import check_status

if 'sensor' not in globals():
    from mage_ai.data_preparation.decorators import sensor


@sensor
def check_condition(*args, **kwargs) -> bool:
    now = datetime.now(timezone.utc) + timedelta(minutes=1)
    return check_status("called_by_others", now, block_uuid="says_answer", hours=24)
