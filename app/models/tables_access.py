"""The tables around the core: repeated requests and secrets. Read by `app.store` alone, as `tables.py` is."""

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from app.models.fields import id_, text_, time_


class IdempotencyKey(SQLModel, table=True):
    """A request that had an effect: written with the effect, so that the same request has it once.

    `answer` is the first answer, kept when it is known; without it the effect's present state is answered.
    """

    __tablename__ = "idempotency_key"
    __table_args__ = (Index("ix_idempotency_key_age", "created_at"),)
    scope: str = text_(primary_key=True)
    key: str = text_(primary_key=True)
    fingerprint: str = text_()
    effect_id: int = id_()
    status: int | None = Field(default=None)
    answer: str | None = text_(nullable=True)
    created_at: datetime = time_(nullable=False)


class Secret(SQLModel, table=True):
    """A value that blocks and the project's files may ask for by name; encrypted, see `secrets.py`."""

    __tablename__ = "secret"
    name: str = text_(primary_key=True)
    value: str = text_()
    created_at: datetime = time_(nullable=False)
    updated_at: datetime = time_(nullable=False)
