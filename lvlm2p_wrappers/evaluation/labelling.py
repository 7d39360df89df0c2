"""Has a teacher label states, all at once, and keeps what was said."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvlm2p_wrappers.errors import BadReplyError, BudgetError, TeacherError, TransportError
from lvlm2p_wrappers.evaluation.folder import Failure, Label, Said, Stage
from lvlm2p_wrappers.evaluation.states import State
from lvlm2p_wrappers.records import Exchange
from lvlm2p_wrappers.schemas import Advice
from lvlm2p_wrappers.teacher import PendingAdvice, Teacher
from lvlm2p_wrappers.teacher.history import conversation
from lvlm2p_wrappers.views import FrozenView, View


class UnfinishedError(TeacherError):
    """Some questions stayed without an answer for reasons that may pass; what was answered is kept."""


def label_states(
    teacher: Teacher, states: Sequence[State], on_label: Callable[[State, Label], None], *, width: int
) -> None:
    """Ask about states, several at a time.

    Args:
        teacher: who is asked.
        states: what it is shown.
        on_label: called for each state as its answer arrives, also where that is a bad reply.
        width: how many states are asked about at a time. Were it all of them, a budget might be spent on first stages.

    Raises:
        UnfinishedError: if questions stayed without an answer for another reason; the others have been answered.
        TeacherError: if too many in a row were answered badly.
    """
    if not states:
        return
    length = teacher.prepare(states[0].view.env_info)
    waiting, asked = deque(states), dict[Future[Advice], tuple[State, View, PendingAdvice]]()
    missing: list[TeacherError] = []
    while waiting or asked:
        while waiting and len(asked) < width:
            state = waiting.popleft()
            view = replace(state.view, history=_last(state.view.history, length))
            ticket = teacher.ask(FrozenView(view), view.history)
            asked[ticket.advice] = (state, view, ticket)
        for future in wait(asked, return_when=FIRST_COMPLETED).done:
            state, view, ticket = asked.pop(future)
            try:
                settled(teacher, ticket)
            except UnfinishedError as error:
                missing.append(error)
            else:
                on_label(state, _label(teacher, state, view, ticket))
    if missing:
        raise UnfinishedError(
            f"{len(missing)} of {len(states)} states stayed without an answer; the last: {missing[-1]}"
        )


def settled(teacher: Teacher, ticket: PendingAdvice) -> NDArray[np.float32] | None:
    """The distribution that a question brought; None where the reply was bad.

    Raises:
        UnfinishedError: if it brought none for a reason that may pass: the transport, or a spent budget.
        TeacherError: if the teacher gave up, or the user has to mend something.
    """
    (probs,) = teacher.settle([ticket], on_error="skip")
    error = ticket.advice.exception()
    if isinstance(error, BudgetError | TransportError):
        raise UnfinishedError(str(error))
    return probs


def _last(history: tuple[str, ...], length: int) -> tuple[str, ...]:
    return history[-length:] if length else ()


def _label(teacher: Teacher, state: State, view: View, ticket: PendingAdvice) -> Label:
    error = ticket.advice.exception()
    advice = None if error is not None else ticket.advice.result()
    held = conversation(teacher, view)
    return Label(
        id=state.id,
        source=state.source,
        seed=state.seed,
        step=state.step,
        picture=view.picture.digest,
        mission=_writable(view.mission),
        carrying=view.carrying,
        actions=view.env_info.actions,
        probs=None if advice is None else tuple(float(p) for p in advice.probs),
        analysis=_analysis(advice, held),
        model=None if advice is None else advice.model,
        cached=advice is not None and advice.cached,
        failure=Failure(kind=error.kind, message=_writable(str(error))) if isinstance(error, BadReplyError) else None,
        exchanges=tuple(_stage(exchange) for exchange in held),
        truth=state.truth,
    )


def _analysis(advice: Advice | None, held: Sequence[Exchange]) -> dict[str, Any] | None:
    """The first stage's answer; also where the second one failed."""
    first = held[0] if held and held[0].stage == "analysis" else None
    text = advice.analysis if advice is not None else (first.answer if first is not None else None)
    if not text:
        return None
    found: dict[str, Any] = json.loads(_writable(json.dumps(json.loads(text), ensure_ascii=False)))
    return found


def _stage(exchange: Exchange) -> Stage:
    said = (Said(role=turn.role, text=turn.text, picture=turn.picture is not None) for turn in exchange.messages)
    return Stage(
        messages=tuple(said),
        **{name: value for name, value in vars(exchange).items() if name not in ("messages", "answer")},
    )


def _writable(text: str) -> str:
    """The text without lone surrogates, which JSON may hold and UTF-8 may not."""
    return text.encode(errors="replace").decode()
