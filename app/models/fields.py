"""How the tables say a column: the types of `columns.py` as SQLModel fields, and the names of constraints."""

from typing import Any

from sqlalchemy import ForeignKey, Index, MetaData, text
from sqlmodel import Field, SQLModel

from app.models.columns import Id, Json, Text, UtcDateTime

metadata: MetaData = SQLModel.metadata
metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


def in_(values: Any) -> str:
    """A list of values for a SQL IN."""
    return "(" + ", ".join(f"'{v}'" for v in sorted(values)) + ")"


def fk_(target: str, *, cascade: bool = False) -> ForeignKey:
    """A foreign key."""
    return ForeignKey(target, ondelete="CASCADE" if cascade else None)


def id_(**kw: Any) -> Any:
    """An integer id."""
    return Field(sa_type=Id, **kw)


def ref_(target: str, *, cascade: bool = False, nullable: bool = True, **kw: Any) -> Any:
    """A column that points at another table."""
    if nullable:
        kw.setdefault("default", None)
    return Field(sa_type=Id, nullable=nullable, sa_column_args=(fk_(target, cascade=cascade),), **kw)


def text_(*, nullable: bool = False, **kw: Any) -> Any:
    """A text column."""
    if nullable:
        kw.setdefault("default", None)
    return Field(sa_type=Text, nullable=nullable, **kw)


def time_(*, nullable: bool = True) -> Any:
    """An instant."""
    return Field(sa_type=UtcDateTime, nullable=True, default=None) if nullable else Field(sa_type=UtcDateTime)


def json_(*, nullable: bool = False) -> Any:
    """A JSON column."""
    return Field(sa_type=Json, nullable=True, default=None) if nullable else Field(sa_type=Json)


def partial_(name: str, *columns: Any, where: str, unique: bool = False) -> Index:
    """An index over the rows that a condition holds for."""
    rows = text(where)
    return Index(name, *columns, unique=unique, sqlite_where=rows, postgresql_where=rows)
