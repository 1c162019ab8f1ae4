"""`triggers.yaml`: what is read, what is quarantined, what is left out."""

from datetime import UTC, datetime

import pytest

from app.models.states import ScheduleStatus, ScheduleType
from app.pipelines.triggers import TriggerEntry

FILE = "pipelines/etl/triggers.yaml"


def only(project) -> TriggerEntry:
    catalogue = project.catalogue()
    assert catalogue.trigger_errors() == ()
    (trigger,) = catalogue.triggers()
    return trigger


def test_a_whole_entry_is_read(project) -> None:
    project.triggers(
        """
        triggers:
        - description: every night
          envs: [prod, dev]
          last_enabled_at: 2023-01-01
          name: nightly
          pipeline_uuid: another
          schedule_interval: 0 2 * * *
          schedule_type: time
          settings:
            skip_if_previous_running: true
            allow_blocks_to_fail: false
            create_initial_pipeline_run: false
            landing_time_enabled: null
            pipeline_run_limit: '3'
            on_pipeline_run_limit_reached: skip
            timeout: '60'
            timeout_status: cancelled
            invalid_schedule_interval: false
          sla: '3600'
          start_time: 2023-01-01 05:00:00
          status: active
          tags: [a]
          timezone: Europe/Berlin
          token: secret
          variables: {day: 2023-01-01, n: 1}
        """
    )
    trigger = only(project)
    assert trigger == TriggerEntry(
        pipeline_uuid="etl",
        name="nightly",
        schedule_type=ScheduleType.TIME,
        schedule_interval="0 2 * * *",
        timezone="Europe/Berlin",
        status=ScheduleStatus.ACTIVE,
        start_time=datetime(2023, 1, 1, 5, tzinfo=UTC),
        description="every night",
        variables={"day": "2023-01-01", "n": 1},
        settings={
            "skip_if_previous_running": True,
            "allow_blocks_to_fail": False,
            "create_initial_pipeline_run": False,
            "pipeline_run_limit": 3,
            "on_pipeline_run_limit_reached": "cancel",
            "timeout": 60.0,
            "timeout_status": "cancelled",
        },
        sla=3600,
        tags=("a",),
        digest=trigger.digest,
        file=FILE,
        line=2,
    )


def test_what_is_left_out_has_mages_defaults(project) -> None:
    project.triggers("triggers:\n- {name: t, schedule_type: api}\n")
    trigger = only(project)
    assert trigger.status is ScheduleStatus.INACTIVE
    assert (trigger.schedule_interval, trigger.timezone, trigger.start_time, trigger.sla) == (None,) * 4
    assert (trigger.variables, trigger.settings, trigger.error) == ({}, {}, None)


def test_the_projects_zone_is_the_default(project) -> None:
    project.write("metadata.yaml", "timezone: Asia/Tokyo")
    project.triggers(
        """
        triggers:
        - {name: a, schedule_type: time, schedule_interval: "@daily"}
        - {name: b, schedule_type: time, schedule_interval: "@daily", timezone: UTC}
        """
    )
    assert [trigger.timezone for trigger in project.catalogue().triggers()] == ["Asia/Tokyo", "UTC"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-01-01", "2023-01-01T00:00:00+00:00"),
        ("2023-01-01 05:06:07", "2023-01-01T05:06:07+00:00"),
        ("2023-01-01T05:06:07Z", "2023-01-01T05:06:07+00:00"),
        ("2023-01-01 05:06:07.5 +02:00", "2023-01-01T03:06:07.500000+00:00"),
        ("'2023-01-01T05:06+02:00'", "2023-01-01T03:06:00+00:00"),
    ],
)
def test_a_start_time_is_utc_unless_it_says_otherwise(project, text: str, expected: str) -> None:
    project.triggers(f"triggers:\n- name: t\n  schedule_type: api\n  start_time: {text}\n")
    assert only(project).start_time.isoformat() == expected


BAD = {
    "cron": ("schedule_interval: 61 * * * *", "minute '61' is out of range 0 to 59"),
    "interval": ("schedule_interval: '@fortnightly'", "unknown interval '@fortnightly'. Use @once"),
    "never": ("schedule_interval: 0 0 30 2 *", "never fires"),
    "no interval": ("schedule_interval: null", "a trigger of type time needs a schedule_interval"),
    "zone": ("timezone: Europe/Berln", "unknown time zone 'Europe/Berln'"),
    "status": ("status: paused", "status must be one of active, inactive, not 'paused'"),
    "type": (
        "schedule_type: tme",
        "schedule_type must be one of time, event, api, not 'tme' (did you mean 'time'?)",
    ),
    "no type": ("schedule_type: null", "schedule_type is missing"),
    "setting": ("settings: {skip_if_running: true}", "unknown setting 'skip_if_running'"),
    "limit": (
        "settings: {pipeline_run_limit: many}",
        "settings.pipeline_run_limit must be a number of at least 0",
    ),
    "flag": ("settings: {allow_blocks_to_fail: 'yes'}", "must be true or false, not the text 'yes'"),
    "settings": ("settings: [a]", "settings must be a mapping"),
    "timeout status": ("settings: {timeout_status: done}", "must be one of failed, cancelled"),
    "landing": ("settings: {landing_time_enabled: true}", "settings.landing_time_enabled: "),
    "reached": ("settings: {on_pipeline_run_limit_reached: explode}", "not 'explode'"),
    "on_sla": ("settings: {on_sla: panic}", "must be one of alert, cancel, fail"),
    "catch_up": ("settings: {catch_up: some}", "must be one of latest, all, none"),
    "catch_up_limit": ("settings: {catch_up: all, catch_up_limit: 0}", "must be from 1 to 10000"),
    "limit of what": ("settings: {catch_up_limit: 5}", "catch_up_limit needs catch_up: all"),
    "within": ("settings: {catch_up_within: soon}", "or a length such as 90s, 6h or 2d, not 'soon'"),
    "within none": ("settings: {catch_up: none, catch_up_within: 6h}", "cannot go with catch_up: none"),
    "jitter": ("settings: {jitter_s: 90000}", "at most 86400 s"),
    "two starts": (
        "settings: {jitter_s: 5, landing_time_enabled: true}",
        "cannot go with landing_time_enabled",
    ),
    "end": ("settings: {end_time: 2026-13-01}", "end_time '2026-13-01' is not a date or a time"),
    "blackouts": ("settings: {blackouts: [{weekdays: [noday]}]}", "settings.blackouts: "),
    "dst": ("settings: {dst_gap: sometimes}", "must be one of next, skip"),
    "start": ("start_time: 2023-02-30", "start_time '2023-02-30' is not a date or a time"),
    "start text": ("start_time: soon", "start_time 'soon' is not a date or a time"),
    "variables": ("variables: 5", "variables must be a mapping, not 5"),
    "sla": ("sla: -5", "sla must be a number of at least 0"),
    "tags": ("tags: [{a: 1}]", "tags must be a list of texts"),
    "NUL": ('variables: {a: ["b\\0"]}', "text with a NUL or half a surrogate pair cannot be stored"),
    "huge integer": ("sla: 99999999999999999999", "the integer '99999999999999999999' does not fit"),
    "not finite": ("variables: {a: .inf}", "'.inf' is not a finite number"),
}


@pytest.mark.parametrize(("line", "words"), BAD.values(), ids=BAD.keys())
def test_a_bad_entry_is_quarantined_and_hurts_no_other(project, line: str, words: str) -> None:
    key = line.partition(":")[0]
    good = {"name": "bad", "schedule_type": "time", "schedule_interval": "'@daily'", "status": "active"}
    text = "\n".join(f"  {k}: {v}" for k, v in good.items() if k != key)
    project.triggers(
        f"triggers:\n- {text.strip()}\n  {line}\n- {{name: good, schedule_type: time, schedule_interval: '@daily'}}\n"
    )
    bad, other = project.catalogue().triggers()
    assert other.error is None
    assert words in bad.error
    assert bad.error.startswith(f"{FILE}:{text.count(chr(10)) + 3 if 'missing' not in words else ''}")
    assert bad.name == "bad"


def test_an_interval_is_judged_in_the_projects_zone_and_by_nobody_for_other_types(project) -> None:
    project.triggers("triggers:\n- {name: t, schedule_type: api, schedule_interval: nonsense}\n")
    assert only(project).error is None


def test_an_entry_without_a_name_of_its_own_is_an_error_of_the_file(project) -> None:
    project.triggers(
        """
        triggers:
        - {name: a, schedule_type: api}
        - {schedule_type: api}
        - {name: " a ", schedule_type: api}
        - {name: "--", schedule_type: api}
        - {name: b, schedule_type: api, envs: prod}
        - 17
        - {name: "c\\0", schedule_type: api}
        """
    )
    catalogue = project.catalogue()
    assert [trigger.name for trigger in catalogue.triggers()] == ["a"]
    assert catalogue.entries()[0].trigger_errors == catalogue.trigger_errors()
    assert [str(error) for error in catalogue.trigger_errors()] == [
        f"{FILE}:7: each entry of triggers must be a mapping, not 17",
        f"{FILE}:3: a trigger needs a name with a letter or digit in it",
        f"{FILE}:4: the trigger name 'a' is already on line 2",
        f"{FILE}:5: a trigger needs a name with a letter or digit in it",
        f"{FILE}:6: envs must be a list, not the text 'prod'",
        f"{FILE}:8: text with a NUL or half a surrogate pair cannot be stored",
    ]


def test_only_the_entries_of_this_environment_exist(project) -> None:
    project.triggers(
        """
        triggers:
        - {name: a, schedule_type: api, envs: [dev]}
        - {name: a, schedule_type: event, envs: [prod]}
        - {name: b, schedule_type: api, envs: []}
        """
    )
    assert [(t.name, t.schedule_type) for t in project.catalogue().triggers()] == [
        ("a", "event"),
        ("b", "api"),
    ]
    dev = project.catalogue({"ENV": "dev"})
    assert [(t.name, t.schedule_type) for t in dev.triggers()] == [("a", "api"), ("b", "api")]
    assert [t.name for t in project.catalogue({"ENV": "staging"}).triggers()] == ["b"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("triggers: [\n", ":2: not valid YAML"),
        ("- a\n", ":1: must be a mapping"),
        ("triggers: {a: 1}\n", ":1: triggers must be a list, not a mapping"),
        ("triggers: {a: 1, b: 99999999999999999999}\n", ":1: the integer"),
        ("triggers:\n- {name: a, sla: &a 99999999999999999999}\n- {name: b, sla: *a}\n", ":2: the integer"),
        ("triggers:\n- {name: a, variables: &a {b: .nan}}\n- {name: b, variables: *a}\n", ":2: '.nan'"),
        ("triggers:\n- name: a\n  name: b\n", ":3: the key 'name' is already on line 2"),
    ],
)
def test_a_broken_file_is_one_error_and_no_trigger(project, text: str, words: str) -> None:
    project.triggers(text)
    catalogue = project.catalogue()
    assert catalogue.triggers() == ()
    assert catalogue.unread_triggers() == {"etl"}
    (error,) = catalogue.trigger_errors()
    assert str(error).startswith(FILE + words)
    assert catalogue.get("etl")


def test_the_digest_follows_the_meaning_and_not_the_writing(project) -> None:
    def digest(text: str) -> str:
        project.triggers(text)
        return project.catalogue().triggers()[0].digest

    first = digest("triggers:\n- {name: t, schedule_type: time, schedule_interval: '@daily'}\n")
    same = '# said otherwise\n\ntriggers:\n- schedule_interval: "@daily"\n  schedule_type: time\n  name: t\n'
    assert digest(same) == first
    assert digest(same + "  last_enabled_at: 2026-01-01\n") == first
    assert digest(same + "  status: active\n") != first
    assert digest(same + "  status: wrong\n") != digest(same + "  status: wronger\n")


def test_a_folder_without_a_pipeline_has_no_triggers(project) -> None:
    project.write("pipelines/etl/triggers.yaml", "triggers:\n- {name: t, schedule_type: api}\n")
    assert project.catalogue().triggers() == ()
