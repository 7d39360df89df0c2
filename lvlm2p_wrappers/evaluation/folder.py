"""The folder of an evaluation. Rows are appended as they arrive, so that an interrupted evaluation can be resumed.

* ``evaluation.json``: the arguments and the metrics, an :class:`Evaluation`.
* ``labels.jsonl``: a :class:`Label` a line.
* ``episodes.jsonl``: an :class:`Episode` a line.
* ``pictures/DIGEST.png``: what the teacher was shown.
* ``evaluation.lock``: locked by the process that writes into the folder.

A folder may come from somebody else. It is data: no link out of it is followed, and sizes are limited.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.evaluation.metrics import compute_metrics
from lvlm2p_wrappers.output_file import output_file
from lvlm2p_wrappers.records import Episode, Evaluation, EvaluationArguments, Label, Metrics
from lvlm2p_wrappers.redaction import printable

FORMAT = 3
"""The version of the files. Those of format 1, which lvlm2p 0.1.0 wrote, and of 2 are read and resumed as well."""

MAX_BYTES = 64 * 2**20
"""The most bytes of a line, of ``evaluation.json`` and of a picture."""

_FIRST = {"pictures", "evaluation.lock"}  # what is there before evaluation.json is

Row = TypeVar("Row", bound=BaseModel)


# --- reading ---


def read_folder(folder: Path) -> tuple[Evaluation, list[Label], list[Episode]]:
    """The evaluation, its labels in the order of their ids, and its episodes. Pictures are known by digest alone.

    Raises:
        UsageError: if the folder is not an evaluation's, is damaged, or was written by a newer version.
    """
    with _named_errors(folder):
        file = inside(folder, "evaluation.json")
        if not file.exists():
            raise UsageError(
                f"{folder} is no evaluation: it has no evaluation.json. `lvlm2p evaluate` makes such folders."
            )
        evaluation = read_card(file)
        labels = {label.id: label for label in _rows(Label, folder, "labels.jsonl")}
        episodes = list(_rows(Episode, folder, "episodes.jsonl"))
    return evaluation, sorted(labels.values(), key=lambda label: label.id), episodes


def read_card(file: Path) -> Evaluation:
    """An ``evaluation.json`` by itself: who was evaluated on what, and the metrics.

    Raises:
        UsageError: if it cannot be read, is damaged, or was written by a newer version.
    """
    with _named_errors(file):
        if file.stat().st_size > MAX_BYTES:
            raise UsageError(f"{file} is larger than {MAX_BYTES // 2**20} MB; no evaluation is.")
        return _parsed(Evaluation, file.read_bytes(), str(file))


def read_picture(folder: Path, digest: str) -> bytes | None:
    """A picture as the bytes of a PNG file, which may be anything; None where there is none that can be read."""
    try:
        file = inside(folder, f"pictures/{digest}.png")
        return file.read_bytes() if file.exists() and file.stat().st_size <= MAX_BYTES else None
    except (OSError, ValueError, UsageError):
        return None


def _rows(kind: type[Row], folder: Path, name: str) -> Iterator[Row]:
    """The rows of a file. A last line without its end is being written, or was when its writer was killed."""
    file, number = inside(folder, name), 0
    if not file.exists():
        return
    with file.open("rb") as lines:
        while (line := lines.readline(MAX_BYTES)).endswith(b"\n"):
            number += 1
            yield _parsed(kind, line, f"{folder / name}, line {number}")
    if len(line) == MAX_BYTES:
        raise UsageError(f"{folder / name}, line {number + 1} is longer than {MAX_BYTES // 2**20} MB.")


def _parsed(kind: type[Row], text: bytes, where: str) -> Row:
    try:
        # Not pydantic's own parser: it refuses half a surrogate pair, which a model's JSON may hold.
        return kind.model_validate(_upgraded(kind, json.loads(text), where))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg'].removeprefix('Value error, ')}"
    except KeyError as error:
        problem = f"{error} is missing"
    except (TypeError, AttributeError):
        problem = "it has another form"
    except (ValueError, RecursionError) as error:
        problem = str(error)
    one_line = " ".join(printable(problem).split())[:300]  # it may quote the file
    raise UsageError(f"{where}: {one_line}; the file is no evaluation's, or damaged.")


def _upgraded(kind: type[BaseModel], found: Any, where: str) -> Any:
    """The JSON of an older format as the present one has it. A row tells its format itself: a file may have both."""
    if kind is Episode and "way" in found:
        found["policy"] = found.pop("way")
    if kind is Label:
        if found.get("source") == "student":  # it was an expert that errs
            found["source"] = "noisy_expert"
        for exchange in found["exchanges"]:
            _name_pictures(exchange["messages"], found["picture"])
    if kind is not Evaluation:
        return found
    number = found.pop("format", None) if isinstance(found, dict) else None
    if not isinstance(number, int):
        raise UsageError(f"{where} has no number of its format: `lvlm2p evaluate` did not write it.")
    if number > FORMAT:
        raise UsageError(
            f"{where} has format {number}, and this lvlm2p reads formats up to {FORMAT}: "
            "upgrade with `pip install -U lvlm2p`."
        )
    if number > 1:
        return found
    card = found.pop("card")
    rollouts = {policy: row for policy, row in card.pop("episodes").items() if row["success"] is not None}
    stages = {"analysis": card.pop("stage1"), "action": card.pop("stage2")}
    return found | {"metrics": {"rollouts": rollouts, **stages, **card}}


def _name_pictures(messages: list[dict[str, Any]], view: str) -> None:
    """Format 1 tells only which messages had a picture; the last of them had the view's, the others an example's."""
    had = [message for message in messages if message["picture"] is True]
    for message in messages:
        if isinstance(message["picture"], bool):
            message["picture"] = "example" if message["picture"] else None
    if had:
        had[-1]["picture"] = view


def inside(folder: Path, name: str) -> Path:
    """A file of an evaluation's folder, which need not exist.

    Raises:
        UsageError: if it is a link out of the folder, or no plain file.
    """
    file = folder / name
    is_inside = Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder))
    if not is_inside or (os.path.lexists(file) and not file.is_file()):
        raise UsageError(f"{file} is no plain file of this folder; an evaluation has no other.")
    return file


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None


# --- writing ---


class EvaluationFolder:
    """The folder of an evaluation that is made or resumed. No other process can open it for writing meanwhile.

    Args:
        path: where it is, or will be.
        arguments: what the evaluation depends on.

    Attributes:
        labels: the labels it has.
        episodes: the episodes it has.

    Raises:
        UsageError: if the folder holds something else, or an evaluation with other arguments, or if another process
            writes into it.
    """

    def __init__(self, path: Path, arguments: EvaluationArguments) -> None:
        self.path, self.arguments = path, arguments
        self.labels: list[Label] = []
        self.episodes: list[Episode] = []
        file = path / "evaluation.json"
        with _named_errors(path):
            if path.exists() and not file.exists() and {entry.name for entry in path.iterdir()} - _FIRST:
                raise UsageError(f"{path} holds something else than an evaluation; name another with --out")
            (path / "pictures").mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path)
            if file.exists():
                self._resume()
            else:
                self.save(compute_metrics([], []), complete=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _resume(self) -> None:
        evaluation, self.labels, self.episodes = read_folder(self.path)
        mine, other = self.arguments.model_dump(), evaluation.model_dump()
        differing = [f"{name} {other[name]!r}, not {mine[name]!r}" for name in mine if mine[name] != other[name]]
        if differing:
            raise UsageError(
                f"{self.path} holds an evaluation with {'; '.join(differing)}. "
                "Give the same arguments to resume it, or name another folder with --out."
            )
        for name in ("labels.jsonl", "episodes.jsonl"):
            _drop_half_a_line(inside(self.path, name))

    def add_label(self, label: Label) -> None:
        """Append a label; its pictures are stored before it.

        Raises:
            UsageError: if it cannot be written.
        """
        assert label.picture is not None
        for picture in (*label.earlier, label.picture):
            file = inside(self.path, f"pictures/{picture.digest}.png")
            if not file.exists():
                with output_file(file) as fp:
                    fp.write(picture.png)
        self.labels.append(self._append("labels.jsonl", label))

    def add_episode(self, episode: Episode) -> None:
        """Append an episode.

        Raises:
            UsageError: if it cannot be written.
        """
        self.episodes.append(self._append("episodes.jsonl", episode))

    def save(self, metrics: Metrics, *, complete: bool) -> dict[str, Any]:
        """Write ``evaluation.json`` anew and return what is in it.

        Raises:
            UsageError: if it cannot be written.
        """
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        evaluation = Evaluation(**self.arguments.model_dump(), complete=complete, written=today, metrics=metrics)
        content = {"format": FORMAT, **evaluation.model_dump(mode="json", by_alias=True)}
        with output_file(inside(self.path, "evaluation.json"), kind="evaluation", force=True) as fp:
            fp.write(json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")
        return content

    def _append(self, name: str, row: Row) -> Row:
        """Append a row and return it as a reader will see it: without its pictures' bytes."""
        values = row.model_dump(mode="json", by_alias=True)
        with _named_errors(self.path / name), inside(self.path, name).open("ab") as fp:
            fp.write(json.dumps(values).encode() + b"\n")
        return type(row).model_validate(values)


def _locked(folder: Path) -> FileLock:
    """The folder's lock, acquired; the system releases it when a process dies."""
    file = inside(folder, "evaluation.lock")
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"{folder} is being written by another `lvlm2p evaluate` ({printable(file.read_text()[:200])}): "
            "wait for its end, or name another folder with --out."
        ) from None
    file.write_text(f"process {os.getpid()} on {platform.node()}")
    return lock


def _drop_half_a_line(file: Path) -> None:
    """Cut off a last line without its end: its writer was killed."""
    if not file.exists():
        return
    with file.open("rb+") as fp:
        end = 0
        while (line := fp.readline(MAX_BYTES)).endswith(b"\n"):
            end += len(line)
        fp.truncate(end)
