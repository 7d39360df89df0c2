"""Reading an evaluation folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.report.records import FORMAT, Episode, Evaluation, Label

Record = TypeVar("Record", bound=BaseModel)


def read_evaluation(folder: Path) -> Evaluation:
    """What an evaluation was of, and its card.

    Raises:
        UsageError: if the folder is none of an evaluation, or of a newer version.
    """
    file = folder / "evaluation.json"
    if not file.exists():
        raise UsageError(f"{folder} is no evaluation: it has no evaluation.json. `lvlm2p evaluate` makes such folders.")
    found = _record(Evaluation, _read(file), file.as_posix())
    if found.format > FORMAT:
        raise UsageError(
            f"{file} has format {found.format}, and this lvlm2p reads format {FORMAT}: "
            "upgrade with `pip install -U lvlm2p`."
        )
    return found


def read_labels(folder: Path) -> list[Label]:
    """The labelled states, in their order of id.

    Raises:
        UsageError: if a line is broken.
    """
    labels = _records(Label, folder / "labels.jsonl")
    for label in labels:
        if label.probs is not None and len(label.probs) != len(label.actions):
            raise UsageError(
                f"{folder / 'labels.jsonl'}: state {label.id} has {len(label.probs)} probabilities "
                f"for {len(label.actions)} actions; evaluate again into a new folder."
            )
    # A state that failed and was asked again has a later line, which stands for it.
    return sorted({label.id: label for label in labels}.values(), key=lambda label: label.id)


def read_episodes(folder: Path) -> list[Episode]:
    """The episodes that were played.

    Raises:
        UsageError: if a line is broken.
    """
    return _records(Episode, folder / "episodes.jsonl")


def read_picture(folder: Path, digest: str) -> bytes | None:
    """A picture as a PNG file's bytes; None where it is missing."""
    file = folder / "pictures" / f"{digest}.png"
    return file.read_bytes() if file.exists() else None


def _records(kind: type[Record], file: Path) -> list[Record]:
    return [_record(kind, line, f"{file}, line {number}") for number, line in _lines(file)]


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """The numbered lines; the last one may be under way, or was when its writer was killed."""
    if not file.exists():
        return
    text = _read(file)
    for number, line in enumerate(text[: text.rfind("\n") + 1].split("\n"), start=1):
        if line.strip():
            yield number, line


def _record(kind: type[Record], text: str, where: str) -> Record:
    try:
        # Not pydantic's own parser: it refuses half a surrogate pair, which a model's JSON may hold.
        return kind.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
    except (ValueError, RecursionError) as error:
        problem = str(error)
    raise UsageError(f"{where}: {problem}; the file is no evaluation's, or damaged.")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
