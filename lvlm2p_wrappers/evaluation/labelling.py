"""Labels states: asks a teacher about several at a time, and keeps the answers with their conversations."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lvlm2p_wrappers.errors import BadReplyError, BudgetError, TeacherError, TransportError
from lvlm2p_wrappers.records import Advice, Exchange, Failure, Label
from lvlm2p_wrappers.teacher import PendingAdvice, Teacher
from lvlm2p_wrappers.teacher.history import conversation
from lvlm2p_wrappers.views import View

if TYPE_CHECKING:
    from lvlm2p_wrappers.evaluation.states import State


class UnfinishedError(TeacherError):
    """Some questions have no answer for reasons that may pass; the other answers are kept."""


def label_states(teacher: Teacher, states: Sequence[State], *, width: int) -> Iterator[Label]:
    """Ask about states, several at a time; a label is yielded as its answer arrives, also where the reply is bad.

    Args:
        teacher: who is asked.
        states: what it is asked about.
        width: how many states are asked about at a time. With all of them a budget might be spent on first stages.

    Raises:
        UnfinishedError: if questions have no answer for another reason; the others have been answered.
        TeacherError: if too many replies in a row were bad.
    """
    teacher.resume()
    waiting = deque(states)
    asked: dict[Future[Advice], tuple[State, View, PendingAdvice]] = {}
    missing: list[TeacherError] = []
    while waiting or asked:
        while waiting and len(asked) < width:
            state = waiting.popleft()
            view = teacher.prompts(state.view.env_info).as_told(state.view)
            pending = teacher.submit(view)
            asked[pending.future] = (state, view, pending)
        for future in wait(asked, return_when=FIRST_COMPLETED).done:
            state, view, pending = asked.pop(future)
            try:
                collect(teacher, pending)
            except UnfinishedError as error:
                missing.append(error)
            else:
                yield _label(teacher, state, view, pending)
    if missing:
        raise UnfinishedError(f"{len(missing)} of {len(states)} states have no answer; the last: {missing[-1]}")


def collect(teacher: Teacher, pending: PendingAdvice) -> NDArray[np.float32] | None:
    """Wait for an answer and return its distribution; None where the reply was bad.

    Raises:
        UnfinishedError: if there is none for a reason that may pass: the transport, or a spent budget.
        TeacherError: if too many replies in a row were bad, or the user has to mend something.
    """
    (outcome,) = teacher.collect([pending], on_error="skip")
    if isinstance(outcome, BudgetError | TransportError):
        raise UnfinishedError(str(outcome))
    return outcome.probs if isinstance(outcome, Advice) else None


def _label(teacher: Teacher, state: State, view: View, pending: PendingAdvice) -> Label:
    error = pending.future.exception()
    advice = None if error is not None else pending.future.result()
    exchanges = conversation(teacher, view)
    return Label(
        id=state.id,
        source=state.source,
        seed=state.seed,
        step=state.step,
        picture=view.picture,
        earlier=view.earlier,
        mission=view.mission,
        carrying=view.carrying,
        actions=view.env_info.actions,
        probs=None if advice is None else tuple(float(p) for p in advice.probs),
        analysis=_analysis(advice, exchanges),
        model=None if advice is None else advice.model,
        cached=advice is not None and advice.cached,
        failure=Failure(kind=error.kind, message=str(error)) if isinstance(error, BadReplyError) else None,
        exchanges=exchanges,
        truth=state.truth,
    )


def _analysis(advice: Advice | None, exchanges: Sequence[Exchange]) -> dict[str, Any] | None:
    """The first stage's answer; also where the second one failed."""
    first = exchanges[0] if exchanges and exchanges[0].stage == "analysis" else None
    text = advice.analysis if advice is not None else (first.answer if first is not None else None)
    found: dict[str, Any] | None = json.loads(text) if text else None
    return found
