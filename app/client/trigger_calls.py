"""The methods of the API about triggers, each told once for both clients."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from app.client.calls import Calls, given, jsonable, one, pages, post
from app.client.flow import Flow, Request, Stream, call, stream
from app.client.sending import send
from app.models.explain_schemas import MissedSlots, SchedulePreview, SlotExplanation, Upcoming
from app.models.schemas import PipelineRun
from app.models.system_schemas import Missed
from app.models.trigger_schemas import NewSchedule, PipelineSchedule, Slot, Token


class TriggerCalls(Calls):
    """What both clients can do with triggers."""

    @stream
    def schedules(
        self,
        *,
        pipeline_uuid: str | Sequence[str] | None = None,
        name: str | Sequence[str] | None = None,
        status: str | Sequence[str] | None = None,
        schedule_type: str | Sequence[str] | None = None,
        limit: int | None = None,
    ) -> Stream[PipelineSchedule]:
        """Triggers that pass every filter, oldest first."""
        filters = given(pipeline_uuid=pipeline_uuid, name=name, status=status, schedule_type=schedule_type)
        return pages(PipelineSchedule, "pipeline_schedules", filters, self._retries, limit)

    @call
    def schedule(self, schedule_id: int) -> Flow[PipelineSchedule]:
        """One trigger."""
        return one(PipelineSchedule, Request("GET", _schedule(schedule_id)), self._retries)

    @call
    def create_schedule(
        self, /, pipeline_uuid: str, name: str, *, idempotency_key: str | None = None, **fields: Any
    ) -> Flow[NewSchedule]:
        """A new trigger; `fields` are those of the API, such as `schedule_type` and `schedule_interval`.

        The token of an API trigger is shown in the first answer only.
        """
        asked = post("pipeline_schedules", idempotency_key, pipeline_uuid=pipeline_uuid, name=name, **fields)
        return one(NewSchedule, asked, self._retries)

    @call
    def update_schedule(
        self, /, schedule_id: int, *, revision: int | None = None, **changes: Any
    ) -> Flow[PipelineSchedule]:
        """Change fields of a trigger. Raises Changed when `revision` is given and is not its newest."""
        asked = Request(
            "PATCH",
            _schedule(schedule_id),
            body=jsonable(changes),
            headers=_if_match(revision),
            repeatable=revision is None,  # else a lost answer would look like somebody else's change
        )
        return one(PipelineSchedule, asked, self._retries)

    @call
    def delete_schedule(self, schedule_id: int, *, revision: int | None = None) -> Flow[None]:
        """Take a trigger away; its runs stay."""
        yield from send(Request("DELETE", _schedule(schedule_id), headers=_if_match(revision)), self._retries)

    @call
    def pause(self, schedule_id: int) -> Flow[PipelineSchedule]:
        """Let a trigger fire no more."""
        return one(PipelineSchedule, post(f"{_schedule(schedule_id)}/pause"), self._retries)

    @call
    def missed(self, schedule_id: int) -> Flow[MissedSlots]:
        """What was due while a trigger was paused, and what each `missed` of `resume` would do with it."""
        return one(MissedSlots, Request("GET", f"{_schedule(schedule_id)}/resume"), self._retries)

    @call
    def resume(self, schedule_id: int, missed: Missed | None = None) -> Flow[PipelineSchedule]:
        """Let a trigger fire again; of the slots that were due meanwhile none runs, or `latest`, or `all`."""
        return one(PipelineSchedule, post(f"{_schedule(schedule_id)}/resume", missed=missed), self._retries)

    @call
    def upcoming(
        self,
        schedule_id: int | Sequence[int] | None = None,
        *,
        pipeline_uuid: str | Sequence[str] | None = None,
        count: int = 10,
    ) -> Flow[Upcoming]:
        """The next slots of all active triggers, or of some, in the order of time."""
        filters = given(pipeline_schedule_id=schedule_id, pipeline_uuid=pipeline_uuid, count=count)
        return one(Upcoming, Request("GET", "pipeline_schedules/upcoming", filters), self._retries)

    @call
    def preview_schedule(
        self, /, schedule_interval: str, *, after: datetime | None = None, count: int = 10, **fields: Any
    ) -> Flow[SchedulePreview]:
        """When a trigger would fire that is not there yet; `fields` are `timezone`, `start_time` and `settings`.

        Raises Invalid for a definition with a fault.
        """
        asked = post(
            "pipeline_schedules/preview",
            schedule_interval=schedule_interval,
            after=after,
            count=count,
            **fields,
        )
        return one(SchedulePreview, asked, self._retries)

    @call
    def rotate_token(self, schedule_id: int) -> Flow[str]:
        """A new token for an API trigger; the old one ends."""
        token = yield from one(Token, post(f"{_schedule(schedule_id)}/rotate_token"), self._retries)
        return token.token

    @stream
    def slots(
        self,
        schedule_id: int,
        *,
        outcome: str | Sequence[str] | None = None,
        reason: str | Sequence[str] | None = None,
        since: datetime | None = None,
        before: datetime | None = None,
        limit: int | None = None,
    ) -> Stream[Slot]:
        """What became of a trigger's slots, newest first; those dated from `since` on and before `before`."""
        filters = given(outcome=outcome, reason=reason, **_dated(since, before))
        return pages(Slot, f"{_schedule(schedule_id)}/slots", filters, self._retries, limit)

    @call
    def explain_schedule(self, schedule_id: int, at: datetime) -> Flow[SlotExplanation]:
        """Why a trigger did, did not or will start a run at a moment (an aware time)."""
        asked = Request("GET", f"{_schedule(schedule_id)}/explain", {"at": at.isoformat()})
        return one(SlotExplanation, asked, self._retries)

    @call
    def trigger(
        self,
        schedule_id: int,
        variables: Mapping[str, Any] | None = None,
        *,
        execution_date: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Flow[PipelineRun]:
        """Start a run of a trigger now, whether it is active or not."""
        asked = post(
            f"{_schedule(schedule_id)}/pipeline_runs",
            idempotency_key,
            variables=variables,
            execution_date=execution_date,
        )
        return one(PipelineRun, asked, self._retries)


def _schedule(schedule_id: int) -> str:
    return f"pipeline_schedules/{schedule_id}"


def _if_match(revision: int | None) -> dict[str, str]:
    return {} if revision is None else {"If-Match": f'"{revision}"'}


def _dated(since: datetime | None, before: datetime | None) -> dict[str, str]:
    bounds = {"execution_date[gte]": since, "execution_date[lt]": before}
    return {name: at.isoformat() for name, at in bounds.items() if at is not None}
