"""A store as JSON Lines, so that labels can be published and merged.

The first line is ``{"lvlm2p_store": 1}``. Then come, one a line:

* ``{"part": digest, "text": ...}`` or ``{"part": digest, "png": base64}``: each text and picture, once;
* ``{"call": uid, "messages": [{"role": ..., "text": digest, "png": digest or null}, ...], "schema": digest, ...}``;
* ``{"answer": key, "text": ..., "model": ..., "at": seconds since 1970}``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError, InterfaceError, ProgrammingError

from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.store import tables
from lvlm2p_wrappers.store.queries import batches, pages
from lvlm2p_wrappers.store.store import Store

FORMAT = 1
"""Version of the lines."""

# A value of the wrong type is found by Python, by the driver or by a constraint, whichever meets it first.
_BROKEN = (KeyError, TypeError, ValueError, IntegrityError, InterfaceError, ProgrammingError)


class Loaded(NamedTuple):
    """What an import brought: rows that are new, and rows that were there already."""

    answers: int
    calls: int
    known: int


def export(store: Store, fp: IO[str], *, pictures: bool = True) -> int:
    """Write a store as JSON Lines.

    Args:
        store: what to write.
        fp: a text file.
        pictures: whether to write the pictures too; without them a later import has calls without pictures.

    Returns:
        The number of lines.
    """
    lines = 0
    for line in _lines(store, pictures=pictures):
        fp.write(json.dumps(line, ensure_ascii=False) + "\n")
        lines += 1
    return lines


def load(store: Store, fp: Iterable[str]) -> Loaded:
    """Add what ``export`` wrote to a store; what the store has already stays as it is.

    Raises:
        StoreError: a line is not what ``export`` writes; the lines before it may have been added.
    """
    if store.file is None:
        raise StoreError("a store in memory keeps no log to import into: give the path of a file.")
    numbered = enumerate(fp, start=1)
    _check_header(next(numbered, (1, ""))[1])
    total = Loaded(0, 0, 0)
    for batch in batches(numbered):
        with store.transaction() as connection:
            for number, line in batch:
                try:
                    added = _add(connection, json.loads(line))
                except _BROKEN as problem:
                    raise StoreError(f"line {number} of the import is broken: {problem!r}.") from problem
                total = Loaded(total.answers + added.answers, total.calls + added.calls, total.known + added.known)
    return total


def _lines(store: Store, *, pictures: bool) -> Iterator[dict[str, Any]]:
    yield {"lvlm2p_store": FORMAT}
    for part in pages(store, select(tables.parts), tables.parts.c.digest):
        if part.kind != "png":
            yield {"part": part.digest, "text": tables.unpack_text(part.kind, part.data)}
        elif pictures:
            yield {"part": part.digest, "png": base64.b64encode(part.data).decode()}
    for rows in batches(pages(store, select(tables.calls), tables.calls.c.id)):
        messages = _messages(store, [row.id for row in rows])
        for row in rows:
            call = row._asdict()
            yield {"call": call.pop("uid"), "messages": messages[call.pop("id")]} | call
    for answer in pages(store, select(tables.answers), tables.answers.c.key):
        yield {"answer": answer.key, "text": answer.text, "model": answer.model, "at": answer.at}


def _messages(store: Store, ids: list[int]) -> dict[int, list[dict[str, str | None]]]:
    found: dict[int, list[dict[str, str | None]]] = {number: [] for number in ids}
    query = select(tables.turns).where(tables.turns.c.call_id.in_(ids)).order_by(tables.turns.c.position)
    with store.transaction() as connection:
        for turn in connection.execute(query):
            found[turn.call_id].append({"role": turn.role, "text": turn.text, "png": turn.png})
    return found


def _check_header(line: str) -> None:
    try:
        version = json.loads(line)["lvlm2p_store"]
    except (KeyError, TypeError, ValueError):
        raise StoreError(f"this is no export of a store: it begins with {line[:60]!r}.") from None
    if version != FORMAT:
        raise StoreError(
            f"this export has format {version!r}, and this lvlm2p reads format {FORMAT}: "
            "upgrade with `pip install -U lvlm2p`."
        )


def _add(connection: Connection, line: dict[str, Any]) -> Loaded:
    if "part" in line:
        _add_part(connection, line)
        return Loaded(0, 0, 0)
    if "answer" in line:
        values = {"key": line["answer"], "text": line["text"], "model": line["model"], "at": line["at"]}
        new = tables.ADD_ANSWER.on(connection, values).rowcount
        return Loaded(new, 0, 1 - new)
    new = _add_call(connection, line)
    return Loaded(0, new, 1 - new)


def _add_part(connection: Connection, line: dict[str, Any]) -> None:
    if "png" in line:
        part = tables.pack_png(base64.b64decode(line["png"], validate=True))
    else:
        part = tables.pack_text(line["text"])
    if part.digest != line["part"]:
        raise ValueError(f"its content has the digest {part.digest}")
    tables.ADD_PART.on(connection, part._asdict())


def _add_call(connection: Connection, line: dict[str, Any]) -> int:
    uid = line["call"]
    if connection.execute(select(tables.calls.c.id).where(tables.calls.c.uid == uid)).first() is not None:
        return 0
    row = {name: line[name] for name in tables.calls.c.keys() if name not in ("id", "uid")}  # noqa: SIM118
    tables.add_call(connection, row | {"uid": uid}, line["messages"])
    return 1
