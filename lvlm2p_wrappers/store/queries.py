"""Reading a store, and keeping it small."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Column, ColumnElement, Row, Select, case, delete, func, or_, select, union

from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.records import Answer, Call, LoggedCall, Message, Outcome, StoredAnswer
from lvlm2p_wrappers.store import tables
from lvlm2p_wrappers.store.store import Store

_PAGE = 200  # rows read or deleted in one transaction


class ModelUse(NamedTuple):
    """What one model was asked, by the model string that was requested; ``unpriced`` calls are not in ``cost_usd``."""

    model: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    unpriced: int


@dataclass(frozen=True)
class Stats:
    """What a store holds, in numbers.

    Attributes:
        path: where the store is.
        size_bytes: of its files on disk.
        answers: answers by the model that gave them.
        calls: logged calls by outcome.
        models: what each model was asked, by the logged calls.
    """

    path: str
    size_bytes: int
    answers: dict[str, int]
    calls: dict[str, int]
    models: tuple[ModelUse, ...]


class Pruned(NamedTuple):
    """How many rows were deleted; ``parts`` are texts and pictures that nothing refers to any more."""

    answers: int
    calls: int
    parts: int


def stats(store: Store) -> Stats:
    """Return what a store holds, in numbers."""
    answers, calls = tables.answers.c, tables.calls.c
    by_model = select(answers.model, func.count()).group_by(answers.model).order_by(answers.model)
    by_outcome = select(calls.outcome, func.count()).group_by(calls.outcome).order_by(calls.outcome)
    uses = (
        select(
            calls.requested_model,
            func.count(),
            func.coalesce(func.sum(calls.prompt_tokens), 0),
            func.coalesce(func.sum(calls.completion_tokens), 0),
            func.coalesce(func.sum(calls.cost_usd), 0.0),
            func.sum(case((calls.cost_usd.is_(None), 1), else_=0)),
        )
        .group_by(calls.requested_model)
        .order_by(calls.requested_model)
    )
    with store.transaction() as connection:
        return Stats(
            path=store.path,
            size_bytes=_size(store),
            answers={model: count for model, count in connection.execute(by_model)},
            calls={outcome: count for outcome, count in connection.execute(by_outcome)},
            models=tuple(ModelUse(*row) for row in connection.execute(uses)),
        )


def calls(
    store: Store,
    *,
    outcome: Outcome | None = None,
    model: str | None = None,
    key: str | None = None,
    limit: int | None = None,
) -> Iterator[LoggedCall]:
    """Yield logged calls with their messages, the last one first.

    Args:
        store: where to look.
        outcome: only calls that ended so.
        model: only calls that asked this model, or that it answered.
        key: only calls with this key.
        limit: at most so many.
    """
    query = select(tables.calls, tables.parts.c.kind, tables.parts.c.data)
    query = query.join(tables.parts, tables.parts.c.digest == tables.calls.c.schema).where(*_matching(outcome, model))
    if key is not None:
        query = query.where(tables.calls.c.key == key)
    rows = itertools.islice(pages(store, query, tables.calls.c.id, newest_first=True), limit)
    for page in batches(rows):
        messages = _messages(store, [row.id for row in page])
        for row in page:
            yield LoggedCall(row.id, row.at, _restored(row, messages.get(row.id, [])))


def answers(store: Store) -> Iterator[StoredAnswer]:
    """Yield every answer, in the order of their keys."""
    for row in pages(store, select(tables.answers), tables.answers.c.key):
        yield StoredAnswer(row.key, Answer(row.text, row.model), row.at)


def prune(
    store: Store,
    *,
    older_than_days: float | None = None,
    model: str | None = None,
    outcome: Outcome | None = None,
    keep_answers: bool = False,
) -> Pruned:
    """Delete the calls that meet every condition, the answers that do, and the texts and pictures of nothing else.

    Args:
        store: where to delete.
        older_than_days: only what arrived so long ago.
        model: only calls that asked this model or that it answered, and its answers.
        outcome: only calls that ended so, and no answers.
        keep_answers: delete from the log alone, so that nothing is paid for again.

    Raises:
        StoreError: no condition was given.
    """
    if older_than_days is None and model is None and outcome is None:
        raise StoreError(
            "pruning needs a condition (an age, a model or an outcome): to drop all, delete the store's file."
        )
    logged, answered = tables.calls.c, tables.answers.c
    of_calls = _matching(outcome, model)
    of_answers = [] if model is None else [answered.model == model]
    if older_than_days is not None:
        before = time.time() - 86_400 * older_than_days
        of_calls.append(logged.at < before)
        of_answers.append(answered.at < before)

    dropped_answers = 0
    if outcome is None and not keep_answers:
        dropped_answers = _delete(store, answered.key, of_answers)
    dropped_calls = _delete(store, logged.id, of_calls, tables.turns.c.call_id)
    used = union(
        select(tables.turns.c.text),
        select(tables.turns.c.png).where(tables.turns.c.png.is_not(None)),
        select(logged.schema),
    )
    with store.transaction() as connection:
        orphans = delete(tables.parts).where(tables.parts.c.digest.not_in(used))
        dropped_parts = connection.execute(orphans).rowcount
    with store.transaction() as connection:
        tables.reclaim(connection)
    return Pruned(dropped_answers, dropped_calls, dropped_parts)


Item = TypeVar("Item")


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield items in lists, each short enough for one transaction."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, _PAGE)):
        yield batch


def pages(store: Store, query: Select[Any], by: Column[Any], *, newest_first: bool = False) -> Iterator[Row[Any]]:
    """Yield the rows of a query ordered by a unique column, holding neither all of them nor the store meanwhile."""
    query = query.order_by(by.desc() if newest_first else by).limit(_PAGE)
    page = query
    while True:
        with store.transaction() as connection:
            rows = connection.execute(page).all()
        yield from rows
        if len(rows) < _PAGE:
            return
        last = rows[-1]._mapping[by]
        page = query.where(by < last if newest_first else by > last)


def _matching(outcome: Outcome | None, model: str | None) -> list[ColumnElement[bool]]:
    logged = tables.calls.c
    conditions: list[ColumnElement[bool]] = []
    if outcome is not None:
        conditions.append(logged.outcome == outcome)
    if model is not None:
        conditions.append(or_(logged.requested_model == model, logged.answered_model == model))
    return conditions


def _delete(store: Store, by: Column[Any], conditions: list[ColumnElement[bool]], *dependents: Column[Any]) -> int:
    deleted = 0
    for rows in batches(pages(store, select(by).where(*conditions), by)):
        ids = [row[0] for row in rows]
        with store.transaction() as connection:
            for dependent in dependents:
                connection.execute(delete(dependent.table).where(dependent.in_(ids)))
            deleted += connection.execute(delete(by.table).where(by.in_(ids))).rowcount
    return deleted


def _messages(store: Store, ids: list[int]) -> dict[int, list[Message]]:
    words, picture, turn = tables.parts.alias(), tables.parts.alias(), tables.turns.c
    query = (
        select(turn.call_id, turn.role, words.c.kind, words.c.data, picture.c.data)
        .join(words, words.c.digest == turn.text)
        .outerjoin(picture, picture.c.digest == turn.png)
        .where(turn.call_id.in_(ids))
        .order_by(turn.call_id, turn.position)
    )
    found: dict[int, list[Message]] = {}
    with store.transaction() as connection:
        for call_id, role, kind, data, png in connection.execute(query):
            found.setdefault(call_id, []).append(
                Message(role, tables.unpack_text(kind, data), png and Picture.from_png(png))
            )
    return found


def _restored(row: Row[Any], messages: list[Message]) -> Call:
    values = {name: getattr(row, name) for name in Call.model_fields if name not in ("messages", "schema_text")}
    return Call(**values, schema_text=tables.unpack_text(row.kind, row.data), messages=tuple(messages))


def _size(store: Store) -> int:
    if store.file is None:
        return 0
    files = (store.file.with_name(store.file.name + end) for end in ("", "-wal", "-shm"))
    return sum(file.stat().st_size for file in files if file.exists())
