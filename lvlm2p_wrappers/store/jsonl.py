"""A store as JSON Lines, so that labels can be published and merged.

The first line is ``{"lvlm2p_store": 1}``. Then come, one a line, each text and picture before the call it belongs to:

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
from lvlm2p_wrappers.store import tables
from lvlm2p_wrappers.store.parts import Part
from lvlm2p_wrappers.store.queries import answers, batches, pages, read_log
from lvlm2p_wrappers.store.rows import AnswerRow, CallRow, LoggedRow, PartRow, said
from lvlm2p_wrappers.store.store import Store

FORMAT = 1
"""Version of the lines."""

MAX_LINE = 64 * 2**20
"""Characters that a line may have."""


def _kind(line: Any) -> str | None:
    kinds = [kind for kind in ("part", "call", "answer") if isinstance(line, dict) and kind in line]
    return kinds[0] if kinds else None


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

    Every line is checked before the first is added.

    Raises:
        StoreError: a line is not what ``export`` writes; nothing was added.
    """
    if store.file is None:
        raise StoreError("a store in memory keeps no log to import into: give the path of a file.")
    _check_header(fp.readline(1000))
    with TemporaryFile() as of_parts, TemporaryFile() as of_rows:
        parts = _Parts(of_parts)
        for number, line in enumerate(iter(lambda: fp.readline(MAX_LINE + 1), ""), start=2):
            try:
                _check(line, parts, of_rows)
            except ValueError as problem:
                raise StoreError(
                    f"line {number} of the import is broken: {said(problem)}. Nothing was added."
                ) from None
        of_rows.seek(0)
        total = Loaded(0, 0, 0)
        for batch in batches(of_rows):
            with store.transaction() as connection:
                for added in (_add(connection, _LINE.validate_json(line), parts) for line in batch):
                    total = Loaded(*map(sum, zip(total, added, strict=True)))
    return total


class _Parts:
    """The checked parts of an import, on the disk.

    They reach the store in one transaction with the calls that need them: else pruning might delete them meanwhile.
    """

    def __init__(self, fp: IO[bytes]) -> None:
        self._fp = fp
        self._begins: dict[str, int] = {}
        self.get = lru_cache(maxsize=64)(self._get)

    def add(self, digest: str, line: bytes) -> None:
        self._begins[digest] = self._fp.tell()
        self._fp.write(line)

    def __contains__(self, digest: str | None) -> bool:
        return digest in self._begins

    def _get(self, digest: str) -> Part:
        self._fp.seek(self._begins[digest])
        return PartRow.model_validate_json(self._fp.readline()).packed()


def _check(line: str, parts: _Parts, of_rows: IO[bytes]) -> None:
    """Keep a line for later.

    Raises:
        ValueError: it is broken.
    """
    if len(line) > MAX_LINE:
        raise ValueError(f"it is longer than {MAX_LINE:,} characters")
    raw = line.rstrip("\n").encode(errors="surrogateescape") + b"\n"
    row = _LINE.validate_json(raw, strict=True)
    if isinstance(row, PartRow):
        parts.add(row.digest, raw)
        return
    if isinstance(row, LoggedRow) and (missing := [digest for digest in row.texts() if digest not in parts]):
        raise ValueError(f"no line before it has the text {missing[0]}")
    of_rows.write(raw)


def _add(connection: Connection, row: PartRow | LoggedRow | AnswerRow, parts: _Parts) -> Loaded:
    if isinstance(row, AnswerRow):
        new = tables.ADD_ANSWER.on(connection, row.model_dump()).rowcount
        return Loaded(new, 0, 1 - new)
    assert isinstance(row, LoggedRow)
    pictures = {message.png for message in row.messages if message.png is not None and message.png in parts}
    tables.ADD_PART.on_many(connection, [parts.get(digest)._asdict() for digest in row.texts() | pictures])
    values = row.model_dump()
    new = tables.add_call(connection, values | {"schema": row.layout}, values["messages"])
    return Loaded(0, new, 1 - new)


def _lines(store: Store, *, pictures: bool) -> Iterator[dict[str, Any]]:
    yield {"lvlm2p_store": FORMAT}
    written = set[str]()
    for page in pages(store, select(tables.calls), tables.calls.c.id, read_log):
        for text in sorted(page.texts.keys() - written):
            yield {"part": text, "text": page.texts[text]}
        if pictures:
            for digest in sorted(page.pngs.keys() - written):
                yield {"part": digest, "png": base64.b64encode(page.pngs[digest]).decode()}
        written.update(page.texts, page.pngs)
        for row in page.calls.values():
            yield row.model_dump(by_alias=True)
    for stored in answers(store):
        yield {"answer": stored.key, "text": stored.answer.text, "model": stored.answer.model, "at": stored.at}


def _check_header(line: str) -> None:
    try:
        version = json.loads(line)["lvlm2p_store"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise StoreError(f"this is no export of a store: it begins with {line[:60]!r}.") from None
    if version != FORMAT:
        raise StoreError(
            f"this export has format {version!r}, and this lvlm2p reads format {FORMAT}: "
            "upgrade with `pip install -U lvlm2p`."
        )
