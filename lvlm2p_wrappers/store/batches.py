"""The batches that were submitted to a provider, as a store keeps them; their table is made with the first one."""

from __future__ import annotations

import json
import re
from typing import Any, Literal, NamedTuple

from sqlalchemy import Column, Double, MetaData, Table, Text, insert, inspect, select, update
from sqlalchemy.schema import CreateTable

from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.records import Stage
from lvlm2p_wrappers.store.store import Store

Status = Literal["submitting", "open", "done", "lost"]

TABLE = Table(
    "batches",
    MetaData(),
    Column("token", Text, primary_key=True),
    Column("batch_id", Text),
    Column("job", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("keys", Text, nullable=False),  # as a JSON list
    Column("status", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("usd", Double, nullable=False),
)


class Batch(NamedTuple):
    """A batch of questions.

    Attributes:
        token: its name here; the provider has it, too.
        batch_id: its name at the provider; None while it is submitted.
        job: of the command that wants the answers.
        stage: the stage of its questions.
        keys: of its questions.
        status: ``"lost"`` if it was never submitted.
        at: when it was submitted, in seconds since 1970.
        usd: what is reserved for it; once it is done, what was charged.
    """

    token: str
    batch_id: str | None
    job: str
    stage: Stage
    keys: tuple[str, ...]
    status: Status
    at: float
    usd: float


def add_batch(store: Store, batch: Batch) -> None:
    """Take note of a batch, before it is submitted."""
    with store.transaction() as connection:
        connection.execute(CreateTable(TABLE, if_not_exists=True))
        row = batch._asdict() | {"keys": json.dumps(batch.keys)}
        connection.execute(insert(TABLE).values(**row))


def update_batch(store: Store, batch: Batch) -> None:
    """Take note of what has become of a batch: its id, status and cost."""
    with store.transaction() as connection:
        values = {"batch_id": batch.batch_id, "status": batch.status, "usd": batch.usd}
        connection.execute(update(TABLE).where(TABLE.c.token == batch.token).values(**values))


def batches_of(store: Store, job: str) -> list[Batch]:
    """The batches of a job, in the order in which they were submitted.

    Raises:
        StoreError: if a row cannot be read: a store may come from anywhere.
    """
    with store.transaction() as connection:
        if not inspect(connection).has_table(TABLE.name):
            return []
        found = select(TABLE).where(TABLE.c.job == job).order_by(TABLE.c.at)
        rows = [row._asdict() for row in connection.execute(found)]
    try:
        return [_batch(row) for row in rows]
    except (ValueError, TypeError, AttributeError):
        raise StoreError(f"the store {store.path} has a batch that cannot be read; it is damaged, or edited") from None


def _batch(row: dict[str, Any]) -> Batch:
    keys = json.loads(row["keys"])
    is_sound = all(re.fullmatch("[0-9a-f]{40}", key) for key in keys) and row["usd"] >= 0
    if not is_sound or row["status"] not in ("submitting", "open", "done", "lost"):
        raise ValueError
    return Batch(**row | {"keys": tuple(keys)})
