"""A store as JSON Lines, so that labels can be published and merged.

The first line is ``{"lvlm2p_store": 1}``. Then come, one a line, each text and picture before the call that needs it:

* ``{"part": digest, "text": ...}`` or ``{"part": digest, "png": base64}``: each text and picture, once;
* ``{"call": uid, "messages": [{"role": ..., "text": digest, "png": digest or null}, ...], "schema": digest, ...}``;
* ``{"answer": key, "text": ..., "model": ..., "at": seconds since 1970}``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import lru_cache
from tempfile import TemporaryFile
from typing import IO, Annotated, Any, NamedTuple

from pydantic import Discriminator, Tag, TypeAdapter
from sqlalchemy import Connection, select

from lvlm2p_wrappers.errors import StoreError
from lvlm2p_wrappers.store import statements, tables
from lvlm2p_wrappers.store.queries import answers, batches, pages, read_log
from lvlm2p_wrappers.store.rows import AnswerRow, CallRow, LoggedRow, PartRow, reason
from lvlm2p_wrappers.store.statements import Part
from lvlm2p_wrappers.store.store import Store

FORMAT = 1
"""Version of the lines."""

MAX_LINE = 64 * 2**20
"""Characters that a line may have."""


def _kind(line: Any) -> str | None:
    kinds = (kind for kind in ("part", "call", "answer") if isinstance(line, dict) and kind in line)
    return next(kinds, None)


_LINE: TypeAdapter[PartRow | LoggedRow | AnswerRow] = TypeAdapter(
    Annotated[
        Annotated[PartRow, Tag("part")] | Annotated[CallRow, Tag("call")] | Annotated[AnswerRow, Tag("answer")],
        Discriminator(_kind, custom_error_type="kind", custom_error_message="it is no part, call or answer"),
    ]
)


class Loaded(NamedTuple):
    """What an import brought: rows that are new, and rows that were there already."""

    answers: int
    calls: int
    known: int


def export(store: Store, fp: IO[str], *, pictures: bool = True) -> int:
    """Write a store as JSON Lines; rows that are damaged are left out, and named in a warning.

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


def load(store: Store, fp: IO[str]) -> Loaded:
    """Add what ``export`` wrote to a store; what the store has already stays as it is.

    Raises:
        StoreError: a line is not what ``export`` writes; nothing was added.
    """
    if store.engine.in_memory:
        raise StoreError("a store in memory keeps no log to import into: give the path of a file.")
    _check_header(fp.readline(1000))
    with TemporaryFile() as of_parts, TemporaryFile() as of_rows:
        spool = _Spool(of_parts, of_rows)
        for number, line in enumerate(iter(lambda: fp.readline(MAX_LINE + 1), ""), start=2):
            try:
                spool.add(line)
            except ValueError as problem:
                told = f"line {number} of the import is broken: {reason(problem)}. Nothing was added."
                raise StoreError(told) from None
        total = Loaded(0, 0, 0)
        for rows in batches(spool.rows()):
            with store.transaction() as connection:
                store.engine.exclude_writers(connection)  # who might wait for these rows, and these for theirs
                for row in rows:
                    total = Loaded(*map(sum, zip(total, _add(connection, row, spool), strict=True)))
    return total


class _Spool:
    """The lines of an import, checked, and kept on the disk until all of them are."""

    def __init__(self, of_parts: IO[bytes], of_rows: IO[bytes]) -> None:
        self._of_parts, self._of_rows = of_parts, of_rows
        self._begins: dict[str, int] = {}
        self.part = lru_cache(maxsize=64)(self._part)

    def __contains__(self, digest: str | None) -> bool:
        return digest in self._begins

    def add(self, line: str) -> None:
        """Check and keep a line.

        Raises:
            ValueError: it is broken.
        """
        if len(line) > MAX_LINE:
            raise ValueError(f"it is longer than {MAX_LINE:,} characters")
        raw = line.rstrip("\n").encode(errors="surrogateescape") + b"\n"
        row = _LINE.validate_json(raw, strict=True)
        if isinstance(row, PartRow):
            self._begins[row.digest] = self._of_parts.tell()
            self._of_parts.write(raw)
            return
        if isinstance(row, LoggedRow) and (missing := row.texts() - self._begins.keys()):
            raise ValueError(f"no line before it has the text {missing.pop()}")
        self._of_rows.write(raw)

    def rows(self) -> Iterator[LoggedRow | AnswerRow]:
        """All calls and answers, in their order."""
        self._of_rows.seek(0)
        for line in self._of_rows:
            row = _LINE.validate_json(line)
            assert not isinstance(row, PartRow)
            yield row

    def _part(self, digest: str) -> Part:
        self._of_parts.seek(self._begins[digest])
        return PartRow.model_validate_json(self._of_parts.readline()).packed()


def _add(connection: Connection, row: LoggedRow | AnswerRow, spool: _Spool) -> Loaded:
    values = row.model_dump()
    if isinstance(row, AnswerRow):
        new = statements.ADD_ANSWER.on(connection, values).rowcount
        return Loaded(new, 0, 1 - new)
    # In one transaction with their call: alone, pruning might delete them.
    needed = row.texts() | {message.png for message in row.messages if message.png is not None and message.png in spool}
    statements.ADD_PART.on(connection, [spool.part(digest)._asdict() for digest in needed])
    new = statements.add_call(connection, values | {"schema": row.layout}, values["messages"])
    return Loaded(0, new, 1 - new)


def _lines(store: Store, *, pictures: bool) -> Iterator[dict[str, Any]]:
    yield {"lvlm2p_store": FORMAT}
    written = set[str]()
    for page in pages(store, select(tables.calls), tables.calls.c.id, read_log):
        for digest in sorted(page.texts.keys() - written):
            yield {"part": digest, "text": page.texts[digest]}
        for digest in sorted(page.pngs.keys() - written) if pictures else ():
            yield {"part": digest, "png": base64.b64encode(page.pngs[digest]).decode()}
        written.update(page.texts, page.pngs)
        for row in page.calls.values():
            yield row.model_dump(by_alias=True)
    for key, answer, at in answers(store):
        yield {"answer": key, **answer._asdict(), "at": at}


def _check_header(line: str) -> None:
    try:
        version = json.loads(line)["lvlm2p_store"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise StoreError(f"this is no export of a store: it begins with {line[:60]!r}.") from None
    if version != FORMAT:
        told = f"this export has format {str(version)[:60]}, and this lvlm2p reads format {FORMAT}"
        raise StoreError(f"{told}: upgrade with `pip install -U lvlm2p`.")
