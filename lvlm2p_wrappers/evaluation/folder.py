"""An evaluation as a folder: rows are appended as they arrive, so that it can be ended at any time and gone on with.

* ``evaluation.json``: what was asked of whom, and the card.
* ``labels.jsonl``: a :class:`Label` a line.
* ``episodes.jsonl``: an :class:`Episode` a line.
* ``pictures/DIGEST.png``: what the teacher was shown.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.evaluation.ground_truth import Truth
from lvlm2p_wrappers.evaluation.states import Source
from lvlm2p_wrappers.picture import Picture

FORMAT = 1
"""Version of the files."""

Way = Literal["argmax", "sampled"]


class Arguments(BaseModel):
    """What an evaluation depends on.

    Attributes:
        env_id: the environment.
        model: the teacher's model string.
        prompts: the prompt set, as it was named.
        fingerprint: the digest of the prompt set's files.
        seed: of states and episodes.
        states: how many states are labelled at most.
        episodes: how many episodes are played, of each way.
    """

    model_config = ConfigDict(frozen=True)

    env_id: str
    model: str
    prompts: str
    fingerprint: str
    seed: int
    states: int
    episodes: int


class Failure(BaseModel):
    """Why a question stayed without an answer; ``kind`` is that of :class:`BadReplyError`."""

    kind: str
    message: str


class Said(BaseModel):
    """One message that was sent, and whether a picture went with it."""

    role: str
    text: str
    picture: bool


class Stage(BaseModel):
    """One stage of a conversation: an ``Exchange`` without its pictures."""

    stage: str
    messages: tuple[Said, ...]
    reply: str | None
    outcome: str | None
    problem: str
    model: str | None
    latency_s: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None


class Label(BaseModel):
    """A state, what the teacher said about it, and what is really so."""

    id: int
    source: Source
    seed: int
    step: int
    picture: str
    mission: str
    carrying: str
    actions: tuple[str, ...]
    probs: tuple[float, ...] | None
    analysis: dict[str, Any] | None
    model: str | None
    cached: bool
    failure: Failure | None
    exchanges: tuple[Stage, ...]
    truth: Truth | None


class Episode(BaseModel):
    """One episode played by the teacher; ``failures`` counts the steps at which it gave no usable answer."""

    model_config = ConfigDict(populate_by_name=True)

    way: Way
    seed: int
    total: float = Field(alias="return")
    length: int
    success: bool
    failures: int


Row = TypeVar("Row", Label, Episode)


class Record:
    """The folder of an evaluation, made or gone on with.

    Args:
        folder: where it is, or will be.
        arguments: what the evaluation depends on.

    Attributes:
        labels: the labels it has.
        episodes: the episodes it has.

    Raises:
        UsageError: if the folder holds something else, or an evaluation with other arguments.
    """

    def __init__(self, folder: Path, arguments: Arguments) -> None:
        self.folder = folder
        self.arguments = arguments
        try:
            self._refuse_others()
            (folder / "pictures").mkdir(parents=True, exist_ok=True)
            self.labels = _rows(folder / "labels.jsonl", Label)
            self.episodes = _rows(folder / "episodes.jsonl", Episode)
        except OSError as error:
            raise UsageError(f"{folder}: {error.strerror}") from None

    def add_label(self, label: Label, picture: Picture) -> None:
        """Append a label; its picture is there before it."""
        file = self.folder / "pictures" / f"{label.picture}.png"
        if not file.exists():
            part = file.with_suffix(".part")
            part.write_bytes(picture.png)
            part.replace(file)
        self.labels.append(label)
        _append(self.folder / "labels.jsonl", label)

    def add_episode(self, episode: Episode) -> None:
        """Append an episode."""
        self.episodes.append(episode)
        _append(self.folder / "episodes.jsonl", episode)

    def save(self, card: dict[str, Any], *, complete: bool) -> dict[str, Any]:
        """Write ``evaluation.json`` anew and return what is in it."""
        content = {"format": FORMAT, **self.arguments.model_dump(), "complete": complete, "card": card}
        file = self.folder / "evaluation.json"
        part = file.with_suffix(".part")
        part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(file)
        return content

    def _refuse_others(self) -> None:
        file = self.folder / "evaluation.json"
        if not file.exists():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise UsageError(f"{self.folder} holds something else than an evaluation; name another with --out")
            return
        try:
            there = json.loads(file.read_text(encoding="utf-8"))
            found = there["format"], Arguments.model_validate(there)
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{file} is no evaluation that can be gone on with: {error}") from None
        if found[0] != FORMAT:
            raise UsageError(f"{file} has format {found[0]}, and this lvlm2p knows {FORMAT}; name another with --out")
        mine, other = self.arguments.model_dump(), found[1].model_dump()
        differing = [f"{name} {other[name]!r}, not {mine[name]!r}" for name in mine if mine[name] != other[name]]
        if differing:
            raise UsageError(
                f"{self.folder} holds an evaluation with {'; '.join(differing)}. "
                "Give the same arguments to go on with it, or name another folder with --out."
            )


def _rows(file: Path, kind: type[Row]) -> list[Row]:
    """The rows of a file; half a line at its end, where a process was killed, is cut off."""
    if not file.exists():
        return []
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    try:
        rows = [kind.model_validate_json(line) for line in whole.splitlines()]
    except ValidationError as error:
        raise UsageError(f"{file} is damaged: {error.errors()[0]['msg']}. Delete it, or name another folder.") from None
    if whole != content:
        file.write_bytes(whole)
    return rows


def _append(file: Path, row: BaseModel) -> None:
    with file.open("a", encoding="utf-8") as fp:
        fp.write(row.model_dump_json(by_alias=True) + "\n")
