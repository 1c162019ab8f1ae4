"""A database as Mage leaves it: the tables of its migrations on SQLite and on Postgres, and a way to fill them.

On Postgres the enumerations are native types that hold the names; on SQLite they are text, JSON is text, and times
are naive.
"""

import json
import sqlite3
from contextlib import closing
from typing import Any

from tests.postgres import Server

COMMON = """
CREATE TABLE pipeline_schedule (
  id {serial}, created_at {time} DEFAULT CURRENT_TIMESTAMP, updated_at {time} DEFAULT CURRENT_TIMESTAMP,
  name VARCHAR(255), description TEXT, pipeline_uuid VARCHAR(255), schedule_type {schedule_type},
  start_time {time}, schedule_interval VARCHAR(50), status {status}, last_enabled_at {time}, variables JSON,
  sla INTEGER, token VARCHAR(255), repo_path VARCHAR(255), settings JSON, global_data_product_uuid VARCHAR(255)
);
CREATE TABLE pipeline_run (
  id {serial}, created_at {time} DEFAULT CURRENT_TIMESTAMP, updated_at {time} DEFAULT CURRENT_TIMESTAMP,
  pipeline_schedule_id INTEGER REFERENCES pipeline_schedule (id), pipeline_uuid VARCHAR(255), execution_date {time}
);
CREATE TABLE backfill (
  id {serial}, name VARCHAR(255), pipeline_uuid VARCHAR(255),
  pipeline_schedule_id INTEGER REFERENCES pipeline_schedule (id)
);
CREATE TABLE event_matcher (
  id {serial}, created_at {time} DEFAULT CURRENT_TIMESTAMP, updated_at {time} DEFAULT CURRENT_TIMESTAMP,
  event_type {event_type}, name VARCHAR(255), pattern JSON
);
CREATE TABLE pipeline_schedule_event_matcher_association (
  pipeline_schedule_id INTEGER REFERENCES pipeline_schedule (id),
  event_matcher_id INTEGER REFERENCES event_matcher (id)
);
CREATE TABLE tag (
  id {serial}, created_at {time} DEFAULT CURRENT_TIMESTAMP, updated_at {time} DEFAULT CURRENT_TIMESTAMP,
  description TEXT, name VARCHAR(255) UNIQUE
);
CREATE TABLE tag_association (
  id {serial}, created_at {time} DEFAULT CURRENT_TIMESTAMP, updated_at {time} DEFAULT CURRENT_TIMESTAMP,
  tag_id INTEGER REFERENCES tag (id), taggable_id INTEGER, taggable_type VARCHAR(255),
  CONSTRAINT tag_id_taggable_id_taggable_type_uc UNIQUE (tag_id, taggable_id, taggable_type)
);
"""
SQLITE = {
    "serial": "INTEGER NOT NULL PRIMARY KEY",
    "time": "DATETIME",
    "schedule_type": "VARCHAR(5)",
    "status": "VARCHAR(8)",
    "event_type": "VARCHAR(9)",
}
POSTGRES = {
    "serial": "SERIAL PRIMARY KEY",
    "time": "TIMESTAMP WITH TIME ZONE",
    "schedule_type": "scheduletype",
    "status": "schedulestatus",
    "event_type": "eventtype",
}
TYPES = """
CREATE TYPE scheduletype AS ENUM ('TIME', 'API', 'EVENT');
CREATE TYPE schedulestatus AS ENUM ('ACTIVE', 'INACTIVE');
CREATE TYPE eventtype AS ENUM ('AWS_EVENT');
"""


class Mage:
    """Mage's database at `url`, with its tables."""

    def __init__(self, url: str, server: Server | None = None) -> None:
        self.url, self._server = url, server
        self.sql(COMMON.format(**SQLITE) if server is None else TYPES + COMMON.format(**POSTGRES))

    def sql(self, script: str) -> str:
        """Run statements."""
        if self._server is not None:
            return self._server.sql(script, self.url.split("@/")[1].split("?")[0])
        with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as database, database:
            database.executescript(script)
        return ""

    def trigger(self, id: int, name: str, kind: str | None, **values: Any) -> None:
        """A row of pipeline_schedule; `kind` and `status` by Mage's names."""
        row = {
            "id": id,
            "name": name,
            "pipeline_uuid": "etl",
            "schedule_type": kind,
            "status": "ACTIVE",
            "token": f"{id:032x}",
            **values,
        }
        self.insert("pipeline_schedule", **row)

    def tag(self, id: int, name: str, *trigger_ids: int) -> None:
        """A tag on triggers."""
        self.insert("tag", id=id, name=name)
        for trigger_id in trigger_ids:
            self.insert(
                "tag_association", tag_id=id, taggable_id=trigger_id, taggable_type="PipelineSchedule"
            )

    def matcher(self, id: int, name: str, pattern: Any, *trigger_ids: int) -> None:
        """An event matcher of triggers."""
        self.insert("event_matcher", id=id, name=name, event_type="AWS_EVENT", pattern=pattern)
        for trigger_id in trigger_ids:
            table = "pipeline_schedule_event_matcher_association"
            self.insert(table, pipeline_schedule_id=trigger_id, event_matcher_id=id)

    def insert(self, table: str, **values: Any) -> None:
        """One row."""
        literals = ", ".join(map(_literal, values.values()))
        self.sql(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({literals});")

    def time(self, text: str) -> str:
        """A moment in UTC, as this kind of database takes it."""
        return text if self._server is None else f"{text}+00"


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, dict | list):
        value = json.dumps(value)
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
