"""The rows of a store as checked records: a store or an export may come from anywhere, and hold anything."""

from __future__ import annotations

import base64
import zlib
from typing import Annotated, Self

from pydantic import Field, StringConstraints, ValidationError, create_model, model_validator
from pydantic_core import from_json

from lvlm2p_wrappers.png import png_size
from lvlm2p_wrappers.records import Call, Record, Role
from lvlm2p_wrappers.store.statements import Part, digest, pack_png, pack_text

Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{32}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Moment = Annotated[float, Field(ge=0, lt=253_402_300_800)]
"""Seconds since 1970, before the year 10000."""

MAX_BYTES = 64 * 2**20
"""The most that a compressed text may unpack to."""


class Row(Record):
    """A row; its whole numbers fit into 64 bits, as every database's do."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name, value in self:
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise ValueError(f"{name} needs more than 64 bits")
        return self


class PartRow(Row):
    """A text, or a picture as a PNG file in base64, whose content has its digest."""

    digest: Digest = Field(alias="part")
    text: str | None = None
    png: str | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (self.text is None) == (self.png is None):
            raise ValueError("it has to have either a text or a PNG file")
        unpack(self.packed()._replace(digest=self.digest))
        return self

    def packed(self) -> Part:
        """The row of ``parts``."""
        return pack_text(self.text or "") if self.png is None else pack_png(base64.b64decode(self.png, validate=True))


class AnswerRow(Row):
    """A row of ``answers``."""

    key: Name = Field(alias="answer")
    text: str
    model: Name
    at: Moment

    @model_validator(mode="after")
    def _is_json(self) -> Self:
        try:
            from_json(self.text)
        except ValueError as problem:
            raise ValueError(f"its text is no JSON: {problem}") from None
        return self


class TurnRow(Row):
    """A message of a call; ``text`` and ``png`` are digests of parts."""

    role: Role
    text: Digest
    png: Digest | None


class LoggedRow(Row):
    """What a row of ``calls`` has besides the fields of a :class:`Call`."""

    uid: Name = Field(alias="call")
    messages: tuple[TurnRow, ...]
    layout: Digest = Field(alias="schema")
    at: Moment

    def texts(self) -> set[str]:
        """The digests of the texts that it cannot do without; pictures may be missing."""
        return {self.layout, *(message.text for message in self.messages)}


_FIELDS = {
    name: (field.annotation, ...)
    for name, field in Call.model_fields.items()
    if name not in ("messages", "schema_text")
}  # fmt: skip
CallRow: type[LoggedRow] = create_model("CallRow", __base__=LoggedRow, **_FIELDS)  # type: ignore[call-overload]
"""A row of ``calls`` with its messages."""


def reason(problem: Exception) -> str:
    """Return in one line what is wrong with a row."""
    if not isinstance(problem, ValidationError):
        return str(problem)
    first = problem.errors(include_url=False)[0]
    where, given = ".".join(map(str, first["loc"])), first["input"]
    value = f" (it is {str(given)[:80]!r})" if isinstance(given, str | int | float) else ""
    return f"{where or 'it'}: {first['msg'].removeprefix('Value error, ')}{value}"


def unpack(part: Part) -> str | bytes:
    """Return a part's text, or its PNG file's bytes.

    Raises:
        ValueError: it is damaged, or larger than anything a teacher is sent.
    """
    raw = _inflated(part.data) if part.kind == "text+zlib" else part.data
    if not isinstance(raw, bytes) or digest(raw) != part.digest:
        raise ValueError("its content does not have its digest")
    if part.kind != "png":
        return raw.decode()
    png_size(raw)
    return raw


def _inflated(data: bytes) -> bytes:
    inflating = zlib.decompressobj()
    try:
        raw = inflating.decompress(data, MAX_BYTES)
    except (TypeError, zlib.error) as problem:
        raise ValueError(str(problem)) from None
    if not inflating.eof:
        raise ValueError(f"it is cut off, or unpacks to more than {MAX_BYTES:,} bytes")
    return raw
