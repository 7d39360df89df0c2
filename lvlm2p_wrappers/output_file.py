"""Writing a file that a user named: atomically, and never over what cannot be made again."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from lvlm2p_wrappers.errors import UsageError

Format = Literal["database", "export", "report", "evaluation"]

_HEAD = 2048  # bytes of a file that tell its format
# An SQLite file's magic, and those of its write-ahead log (two byte orders) and of its rollback journal.
_DATABASE = (b"SQLite format 3\0", b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83", b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7")
_NAMES: dict[Format, str] = {
    "database": "a store of answers, or another SQLite file",
    "export": "an export of a store",
    "report": "a report",
    "evaluation": "an evaluation",
}
_MADE_AGAIN = ("report", "evaluation")  # at no cost, from what they were made of


@contextmanager
def output_file(path: Path, *, kind: Format | None = None, force: bool = False) -> Iterator[IO[bytes]]:
    """Open a new binary file, which takes its name when the block ends without an error.

    Until then it has a temporary name of its own in the same folder; after an error nothing is left of it.

    Args:
        path: the file's name.
        kind: the format that is written, where it is one of ours. A report or an evaluation replaces an older one.
        force: whether another file may be replaced. No database is, nor a file of ours by one of another format.

    Raises:
        UsageError: if there is something that may not be replaced, or the file cannot be written.
    """
    try:
        target = path.resolve()  # a link to a file stays a link
        _refuse(path, target, kind, force=force)
        part = target.with_name(f".lvlm2p-{secrets.token_hex(8)}.part")
        try:
            with part.open("xb") as fp:
                yield fp
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; name another file") from None


def format_of(path: Path) -> Format | None:
    """The format of an existing file, by its first bytes; None if it is none of ours."""
    with path.open("rb") as fp:
        head = fp.read(_HEAD)
    if head.startswith(_DATABASE):
        return "database"
    if head.startswith(b'{"lvlm2p_store"'):
        return "export"
    if b'<meta name="generator" content="lvlm2p' in head:
        return "report"
    return "evaluation" if head.startswith(b"{") and b'"env_id"' in head and b'"fingerprint"' in head else None


def _refuse(path: Path, target: Path, kind: Format | None, *, force: bool) -> None:
    if target.is_dir():
        raise UsageError(f"{str(path)!r} is a folder: name a file, such as {path / 'file'}")
    if not target.exists():
        return
    if not target.is_file():
        raise UsageError(f"{path} is a device, a pipe or a socket: name a file")
    found = format_of(target)
    if found is not None and (found != kind or found == "database"):
        raise UsageError(f"{path} is {_NAMES[found]}, which is never overwritten: name another file")
    if not force and found not in _MADE_AGAIN:
        raise UsageError(f"{path} exists: name another file, or add --force to replace it")
