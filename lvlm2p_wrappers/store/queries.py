"""Reading a store, and keeping it small."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.records import Answer, Call, LoggedCall, Message, Outcome, StoredAnswer
from lvlm2p_wrappers.saved_picture import SavedPicture
from lvlm2p_wrappers.store import tables
from lvlm2p_wrappers.store.rows import AnswerRow, CallRow, LoggedRow, reason, unpack
from lvlm2p_wrappers.store.statements import Part
from lvlm2p_wrappers.store.store import Store

log = logging.getLogger(__name__)

_PAGE = 100  # rows read or deleted in one transaction
_MOST_BYTES = 512 * 2**20  # of the texts and pictures of a page of calls
_MOST_OF_A_CALL = 4 * 2**20  # characters of a call's messages, which may be one text ten thousand times


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
        shared_usd: what all with ``budget_scope="store"`` were charged, and have set aside.
        shared_calls: how many calls they made.
    """

    path: str
    size_bytes: int
    answers: dict[str, int]
    calls: dict[str, int]
    models: tuple[ModelUse, ...]
    shared_usd: float
    shared_calls: int


class Pruned(NamedTuple):
    """How many rows were deleted; ``parts`` are texts and pictures that nothing refers to any more."""

    answers: int
    calls: int
    parts: int


def stats(store: Store) -> Stats:
    """Return what a store holds, in numbers."""
    answered, logged = tables.answers.c, tables.calls.c
    uses = sa.select(
        logged.requested_model,
        sa.func.count(),
        # PostgreSQL's sum of whole numbers is a decimal number
        sa.cast(sa.func.coalesce(sa.func.sum(logged.prompt_tokens), 0), sa.BigInteger),
        sa.cast(sa.func.coalesce(sa.func.sum(logged.completion_tokens), 0), sa.BigInteger),
        sa.func.coalesce(sa.func.sum(logged.cost_usd), 0.0),
        sa.func.count() - sa.func.count(logged.cost_usd),
    )
    with store.transaction(snapshot=True) as connection:

        def grouped(query: sa.Select[Any], by: sa.Column[Any]) -> list[tuple[Any, ...]]:
            return [(str(name), *numbers) for name, *numbers in connection.execute(query.group_by(by).order_by(by))]

        shared = tables.shared.c
        spent = sa.select(shared.spent + shared.reserved, shared.calls).where(shared.name == "budget")
        is_old = not sa.inspect(connection).has_table(tables.shared.name)  # a store of 0.1.0 that is only read
        nano, made = (None if is_old else connection.execute(spent).first()) or (0, 0)
        return Stats(
            shared_usd=nano / 1e9,
            shared_calls=made,
            path=store.path,
            size_bytes=store.engine.size_bytes(connection),
            answers=dict(grouped(sa.select(answered.model, sa.func.count()), answered.model)),
            calls=dict(grouped(sa.select(logged.outcome, sa.func.count()), logged.outcome)),
            models=tuple(ModelUse(*row) for row in grouped(uses, logged.requested_model)),
        )


def call(store: Store, number: int) -> LoggedCall | None:
    """Return the call of this number with its messages; None if there is none that can be read."""
    numbered = tables.calls.c.id == number if number < 2**63 else sa.false()
    found = pages(store, sa.select(tables.calls).where(numbered), tables.calls.c.id, _logged)
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
    query = sa.select(tables.calls).where(*_matching(outcome, model, key))
    found = pages(store, query, tables.calls.c.id, _logged, newest_first=True)
    yield from itertools.islice(itertools.chain.from_iterable(found), limit)


def answers(store: Store) -> Iterator[StoredAnswer]:
    """Yield every answer, in the order of their keys; one that is damaged is named in a warning instead."""
    for page in pages(store, sa.select(tables.answers), tables.answers.c.key, _rows):
        for row in page:
            try:
                checked = AnswerRow.model_validate(row._asdict(), strict=True)
            except ValueError as problem:
                log.warning("the answer %r of the store is damaged and left out: %s", row.key, reason(problem))
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
            "pruning needs a condition (a key, an age, a model or an outcome): to drop all, delete the store."
        )
    logged, answered = tables.calls.c, tables.answers.c
    of_calls = _matching(outcome, model, key)
    of_answers = [answered.key == key] if key is not None else []
    if model is not None:
        of_answers.append(answered.model == model)
    if older_than_days is not None:
        before = time.time() - 86_400 * older_than_days
        of_calls.append(logged.at < before)
        of_answers.append(answered.at < before)
    if outcome is not None or keep_answers:
        of_answers = [sa.false()]

    if dry_run:
        with store.transaction(snapshot=True) as connection:
            doomed = (_count(connection, answered.key, of_answers), _count(connection, logged.id, of_calls))
        return Pruned(*doomed, parts=0)
    dropped_answers = _delete(store, answered.key, of_answers)
    dropped_calls = _delete(store, logged.id, of_calls, tables.turns.c.call_id)
    used = sa.union(
        sa.select(tables.turns.c.text),
        sa.select(tables.turns.c.png).where(tables.turns.c.png.is_not(None)),
        sa.select(logged.schema),
    )
    with store.transaction() as connection:
        store.engine.exclude_writers(connection)  # a call's parts come before it
        orphans = sa.delete(tables.parts).where(tables.parts.c.digest.not_in(used))
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
    query: sa.Select[Any],
    by: sa.Column[Any],
    read: Callable[[sa.Connection, Sequence[sa.Row[Any]]], Content],
    *,
    newest_first: bool = False,
) -> Iterator[Content]:
    """Yield what is read of a query's rows, page by page, holding neither all of them nor the store meanwhile.

    The rows are ordered by a unique column; what ``read`` reads besides them is of the same moment.
    """
    query = query.order_by(by.desc() if newest_first else by).limit(_PAGE)
    page, last = query, None  # type: tuple[sa.Select[Any], Any]
    while True:
        with store.transaction(snapshot=True) as connection:
            rows = connection.execute(page).all()
            content = read(connection, rows)
        yield content
        if len(rows) < _PAGE:
            return
        before, last = last, rows[-1]._mapping[by]
        if before is not None and type(before) is type(last) and (last >= before if newest_first else last <= before):
            raise StoreError(f"the store {store.path} is damaged: its rows have no order.")
        page = query.where(by < last if newest_first else by > last)


class LogPage(NamedTuple):
    """Calls by their numbers, and by digest the texts and PNG files that they refer to."""

    calls: dict[int, LoggedRow]
    texts: dict[str, str]
    pngs: dict[str, bytes]


def read_log(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> LogPage:
    """Return all that belongs to some rows of ``calls``; what is damaged is named in a warning, and left out."""
    turns: dict[int, list[dict[str, Any]]] = {row.id: [] for row in rows}
    query = sa.select(tables.turns).where(tables.turns.c.call_id.in_(turns)).order_by(tables.turns.c.position)
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
            if sum(len(page.texts[message.text]) for message in logged.messages) > _MOST_OF_A_CALL:
                raise ValueError(f"its messages have more than {_MOST_OF_A_CALL:,} characters")
        except ValueError as problem:
            log.warning("the call %r of the store is damaged and left out: %s", row.id, reason(problem))
        else:
            page.calls[row.id] = logged
    return page


def _parts(connection: sa.Connection, wanted: Iterable[Any]) -> tuple[dict[str, str], dict[str, bytes]]:
    texts, pngs, size = dict[str, str](), dict[str, bytes](), 0
    # `data` as the driver gives it: SQLAlchemy would make so many bytes of a number.
    query = sa.select(tables.parts.c.digest, tables.parts.c.kind, sa.literal_column("data"))
    for digests in batches(digest for digest in wanted if isinstance(digest, str)):
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


def _rows(_connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> Sequence[sa.Row[Any]]:
    return rows


def _logged(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[LoggedCall]:
    page = read_log(connection, rows)
    found = []
    for number, row in page.calls.items():
        values = row.model_dump(exclude={"uid", "at", "layout"})
        values["schema_text"] = page.texts[row.layout]
        values["messages"] = tuple(
            Message(turn.role, page.texts[turn.text], None if png is None else SavedPicture(png))
            for turn in row.messages
            for png in [page.pngs.get(turn.png or "")]
        )
        found.append(LoggedCall(number, row.at, Call(**values)))
    return found


def _matching(outcome: Outcome | None, model: str | None, key: str | None) -> list[sa.ColumnElement[bool]]:
    logged = tables.calls.c
    conditions = [logged.outcome == outcome] if outcome is not None else []
    if model is not None:
        conditions.append(sa.or_(logged.requested_model == model, logged.answered_model == model))
    if key is not None:
        conditions.append(logged.key == key)
    return conditions


def _count(connection: sa.Connection, by: sa.Column[Any], conditions: list[sa.ColumnElement[bool]]) -> int:
    return connection.scalar(sa.select(sa.func.count(by)).where(*conditions)) or 0


def _delete(
    store: Store, by: sa.Column[Any], conditions: list[sa.ColumnElement[bool]], *dependents: sa.Column[Any]
) -> int:
    deleted = 0
    for rows in pages(store, sa.select(by).where(*conditions), by, _rows):
        ids = [row[0] for row in rows]
        with store.transaction() as connection:
            for dependent in dependents:
                connection.execute(sa.delete(dependent.table).where(dependent.in_(ids)))
            deleted += connection.execute(sa.delete(by.table).where(by.in_(ids))).rowcount
    return deleted
