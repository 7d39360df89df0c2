"""Reading a store, and keeping it small."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    Select,
    case,
    delete,
    func,
    literal_column,
    or_,
    select,
    union,
)

from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.records import Answer, Call, LoggedCall, Message, Outcome, StoredAnswer
from lvlm2p_wrappers.store import tables
from lvlm2p_wrappers.store.parts import Part, unpack
from lvlm2p_wrappers.store.rows import AnswerRow, CallRow, LoggedRow, said
from lvlm2p_wrappers.store.store import Store

log = logging.getLogger(__name__)

_PAGE = 100  # rows read or deleted in one transaction
_MOST_BYTES = 512 * 2**20  # of the texts and pictures of a page of calls


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
    with store.transaction(snapshot=True) as connection:
        return Stats(
            path=store.path,
            size_bytes=store.engine.size_bytes(),
            answers={str(model): count for model, count in connection.execute(by_model)},
            calls={str(outcome): count for outcome, count in connection.execute(by_outcome)},
            models=tuple(ModelUse(str(model), *numbers) for model, *numbers in connection.execute(uses)),
        )


def call(store: Store, number: int) -> LoggedCall | None:
    """Return the call of this number with its messages; None if there is none that can be read."""
    found = pages(store, select(tables.calls).where(tables.calls.c.id == number), tables.calls.c.id, _logged)
    return next(itertools.chain.from_iterable(found), None)


def calls(
    store: Store,
    *,
    outcome: Outcome | None = None,
    model: str | None = None,
    key: str | None = None,
    limit: int | None = None,
) -> Iterator[LoggedCall]:
    """Yield logged calls with their messages, the last one first; one that is damaged is named in a warning instead.

    Args:
        store: where to look.
        outcome: only calls that ended so.
        model: only calls that asked this model, or that it answered.
        key: only calls with this key.
        limit: at most so many.
    """
    query = select(tables.calls).where(*_matching(outcome, model, key))
    found = pages(store, query, tables.calls.c.id, _logged, newest_first=True)
    yield from itertools.islice(itertools.chain.from_iterable(found), limit)


def answers(store: Store) -> Iterator[StoredAnswer]:
    """Yield every answer, in the order of their keys; one that is damaged is named in a warning instead."""
    for page in pages(store, select(tables.answers), tables.answers.c.key, _rows):
        for row in page:
            try:
                checked = AnswerRow.model_validate(row._asdict(), strict=True)
            except ValueError as problem:
                log.warning("the answer %r of the store is damaged and left out: %s", row.key, said(problem))
            else:
                yield StoredAnswer(checked.key, Answer(checked.text, checked.model), checked.at)


def prune(
    store: Store,
    *,
    key: str | None = None,
    older_than_days: float | None = None,
    model: str | None = None,
    outcome: Outcome | None = None,
    keep_answers: bool = False,
    dry_run: bool = False,
) -> Pruned:
    """Delete the calls that meet every condition, the answers that do, and the texts and pictures of nothing else.

    Args:
        store: where to delete.
        key: only the answer to this question, and its calls.
        older_than_days: only what arrived so long ago.
        model: only calls that asked this model or that it answered, and its answers.
        outcome: only calls that ended so, and no answers.
        keep_answers: delete from the log alone, so that nothing is paid for again.
        dry_run: count the answers and calls, and delete nothing.

    Raises:
        StoreError: no condition was given.
    """
    if key is None and older_than_days is None and model is None and outcome is None:
        raise StoreError(
            "pruning needs a condition (a key, an age, a model or an outcome): to drop all, delete the store's file."
        )
    logged, answered = tables.calls.c, tables.answers.c
    of_calls = _matching(outcome, model, key)
    of_answers = [
        column == value for column, value in ((answered.model, model), (answered.key, key)) if value is not None
    ]
    if older_than_days is not None:
        before = time.time() - 86_400 * older_than_days
        of_calls.append(logged.at < before)
        of_answers.append(answered.at < before)
    with_answers = outcome is None and not keep_answers

    if dry_run:
        with store.transaction(snapshot=True) as connection:
            count = select(func.count())
            doomed_calls = connection.scalar(count.select_from(tables.calls).where(*of_calls)) or 0
            doomed_answers = connection.scalar(count.select_from(tables.answers).where(*of_answers)) or 0
        return Pruned(doomed_answers if with_answers else 0, doomed_calls, 0)

    dropped_answers = _delete(store, answered.key, of_answers) if with_answers else 0
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
        store.engine.reclaim(connection)
    return Pruned(dropped_answers, dropped_calls, dropped_parts)


Item = TypeVar("Item")
Content = TypeVar("Content")


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield items in lists, each short enough for one transaction."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, _PAGE)):
        yield batch


def pages(
    store: Store,
    query: Select[Any],
    by: Column[Any],
    read: Callable[[Connection, Sequence[Row[Any]]], Content],
    *,
    newest_first: bool = False,
) -> Iterator[Content]:
    """Yield the rows of a query in pages, holding neither all of them nor the store meanwhile.

    Args:
        store: where to look.
        query: what to look for.
        by: the unique column that orders it.
        read: what to make of a page's rows; what it reads itself is of the same moment.
        newest_first: whether the order is descending.
    """
    query = query.order_by(by.desc() if newest_first else by).limit(_PAGE)
    page = query
    while True:
        with store.transaction(snapshot=True) as connection:
            rows = connection.execute(page).all()
            content = read(connection, rows)
        yield content
        if len(rows) < _PAGE:
            return
        last = rows[-1]._mapping[by]
        page = query.where(by < last if newest_first else by > last)


class LogPage(NamedTuple):
    """Calls by their numbers, and by digest the texts and PNG files that they refer to."""

    calls: dict[int, LoggedRow]
    texts: dict[str, str]
    pngs: dict[str, bytes]


def read_log(connection: Connection, rows: Sequence[Row[Any]]) -> LogPage:
    """Return all that belongs to some rows of ``calls``; what is damaged is named in a warning, and left out."""
    turns: dict[int, list[dict[str, Any]]] = {row.id: [] for row in rows}
    query = select(tables.turns).where(tables.turns.c.call_id.in_(turns)).order_by(tables.turns.c.position)
    for turn in connection.execute(query):
        turns[turn.call_id].append({"role": turn.role, "text": turn.text, "png": turn.png})
    needed = {digest for messages in turns.values() for turn in messages for digest in (turn["text"], turn["png"])}
    page = LogPage({}, *_parts(connection, needed | {row.schema for row in rows}))
    for row in rows:
        values = {name: value for name, value in row._mapping.items() if name != "id"}
        try:
            logged = CallRow.model_validate(values | {"messages": tuple(turns[row.id])}, strict=True)
            if missing := logged.texts() - page.texts.keys():
                raise ValueError(f"its text {missing.pop()} is not there")
        except ValueError as problem:
            log.warning("the call %r of the store is damaged and left out: %s", row.id, said(problem))
        else:
            page.calls[row.id] = logged
    return page


def _parts(connection: Connection, wanted: Iterable[str | None]) -> tuple[dict[str, str], dict[str, bytes]]:
    texts, pngs, size = dict[str, str](), dict[str, bytes](), 0
    # `data` as the driver gives it: SQLAlchemy would make so many bytes of a number.
    query = select(tables.parts.c.digest, tables.parts.c.kind, literal_column("data"))
    for digests in batches(wanted):
        for row in connection.execute(query.where(tables.parts.c.digest.in_(digests))):
            try:
                content = unpack(Part(*row))
            except ValueError as problem:
                log.warning("the part %r of the store is damaged and left out: %s", row.digest, problem)
                continue
            if (size := size + len(content)) > _MOST_BYTES:
                raise StoreError(
                    f"{_PAGE} calls of the store have more than {_MOST_BYTES:,} bytes: it is not to be trusted."
                )
            if isinstance(content, str):
                texts[row.digest] = content
            else:
                pngs[row.digest] = content
    return texts, pngs


def _rows(_connection: Connection, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
    return rows


def _logged(connection: Connection, rows: Sequence[Row[Any]]) -> list[LoggedCall]:
    page = read_log(connection, rows)
    found = []
    for number, row in page.calls.items():
        values = row.model_dump(exclude={"uid", "at", "layout"})
        values["schema_text"] = page.texts[row.layout]
        values["messages"] = tuple(
            Message(turn.role, page.texts[turn.text], None if png is None else Picture.from_png(png))
            for turn in row.messages
            for png in [page.pngs.get(turn.png or "")]
        )
        found.append(LoggedCall(number, row.at, Call(**values)))
    return found


def _matching(outcome: Outcome | None, model: str | None, key: str | None) -> list[ColumnElement[bool]]:
    logged = tables.calls.c
    conditions: list[ColumnElement[bool]] = []
    if outcome is not None:
        conditions.append(logged.outcome == outcome)
    if model is not None:
        conditions.append(or_(logged.requested_model == model, logged.answered_model == model))
    if key is not None:
        conditions.append(logged.key == key)
    return conditions


def _delete(store: Store, by: Column[Any], conditions: list[ColumnElement[bool]], *dependents: Column[Any]) -> int:
    deleted = 0
    for rows in pages(store, select(by).where(*conditions), by, _rows):
        ids = [row[0] for row in rows]
        with store.transaction() as connection:
            for dependent in dependents:
                connection.execute(delete(dependent.table).where(dependent.in_(ids)))
            deleted += connection.execute(delete(by.table).where(by.in_(ids))).rowcount
    return deleted
