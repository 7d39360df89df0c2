"""Labels views: asks a teacher about several at a time, and makes a row of each answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from lvlm2p_wrappers.errors import BudgetError, TeacherError, UsageError
from lvlm2p_wrappers.labels.layout import ArrayInfo, LabelSetInfo, view_digest
from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.records import Advice, View, total
from lvlm2p_wrappers.teacher import PendingAdvice, Teacher
from lvlm2p_wrappers.teacher.history import conversation


class Frame(NamedTuple):
    """A view to be labelled, and where it is from, in words."""

    source: str
    view: View


class LabelRow(NamedTuple):
    """A row of a label set; its fields are the columns."""

    image: dict[str, Any]
    earlier_images: list[dict[str, Any]]
    mission: str
    carrying: str
    history: list[str]
    actions: list[str]
    probs: list[float]
    analysis: str
    action: str
    model: str
    prompts: str
    cost_usd: float | None
    env_id: str
    source: str
    view: str
    observation: bytes | None


def label_views(teacher: Teacher, frames: Iterable[Frame], *, width: int) -> Iterator[LabelRow | TeacherError]:
    """Ask about views, several at a time; the rows come in the order of the frames.

    Frames are drawn from the iterable as they are needed, so that it may be longer than memory.

    Args:
        teacher: who is asked.
        frames: what it is asked about.
        width: how many views are asked about ahead of the row that comes next; several times the calls in flight, so
            that one slow call does not hold up the others.

    Yields:
        A row; where there is no label, the error that says why. After a spent budget no more views are asked about.

    Raises:
        TeacherError: if the user has to mend something, or too many questions stayed without an answer.
    """
    teacher.resume()
    coming, asked = iter(frames), deque[tuple[Frame, PendingAdvice]]()
    is_over = False
    while True:
        while not is_over and len(asked) < width:
            if (frame := next(coming, None)) is None:
                is_over = True
            else:
                asked.append((frame, teacher.submit(as_told(teacher, frame.view))))
        if not asked:
            return
        frame, pending = asked.popleft()
        (outcome,) = teacher.collect([pending], on_error="skip")
        assert outcome is not None
        is_over |= isinstance(outcome, BudgetError)
        yield make_row(teacher, frame, outcome) if isinstance(outcome, Advice) else outcome


def make_row(teacher: Teacher, frame: Frame, advice: Advice) -> LabelRow:
    """The row of a label; its cost is that of the calls that the store has logged, whoever made them."""
    view = as_told(teacher, frame.view)
    exchanges = conversation(teacher, view)
    costs = [exchange.cost_usd for exchange in exchanges if exchange.reply is not None]
    *earlier, newest = (_image(picture) for picture in view.pictures)
    return LabelRow(
        image=newest,
        earlier_images=earlier,
        mission=view.mission,
        carrying=view.carrying,
        history=[*view.history],
        actions=[*view.actions],
        probs=advice.probs.tolist(),
        analysis=advice.analysis,
        action=(exchanges[-1].answer if exchanges else None) or "",
        model=advice.model,
        prompts=teacher.prompts(view.env_info).fingerprint,
        cost_usd=total(costs) if costs else advice.cost_usd,
        env_id=view.env_id,
        source=frame.source,
        view=view_digest(view),
        observation=None if view.observation is None else np.ascontiguousarray(view.observation).tobytes(),
    )


def info_of_set(teacher: Teacher, view: View, prompts: str | None) -> LabelSetInfo:
    """What a set will have in common whose first view this is.

    Raises:
        UsageError: if its observation is no array of a plain dtype.
    """
    return LabelSetInfo(
        env_id=view.env_id,
        family=view.family,
        actions=view.actions,
        model=teacher.model,
        prompts=prompts or view.family,
        fingerprint=teacher.read_prompts(view.env_info).fingerprint,
        observation=None if view.observation is None else _array_info(view.observation),
    )


def _array_info(observation: Any) -> ArrayInfo:
    if isinstance(observation, np.ndarray | np.generic):
        try:
            return ArrayInfo.model_validate({"shape": observation.shape, "dtype": str(observation.dtype)})
        except ValueError:
            pass
    raise UsageError(
        f"the student's observation is a {type(observation).__name__}, and a label set keeps plain arrays: "
        "leave it out with --observation none"
    )


def as_told(teacher: Teacher, view: View) -> View:
    """The view with as many pictures and last actions as the prompt set shows and tells."""
    return teacher.prompts(view.env_info).as_told(view)


def _image(picture: Any) -> dict[str, Any]:
    assert isinstance(picture, Picture)
    return {"bytes": picture.png, "path": None}
