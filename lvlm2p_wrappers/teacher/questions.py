"""From a view, through two questions to a model, to advice: the way of a step."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import replace
from typing import Any

from lvlm2p_wrappers.client import background_loop
from lvlm2p_wrappers.errors import BadReplyError, BudgetError, TeacherError, TransportError
from lvlm2p_wrappers.prompts import PromptSet
from lvlm2p_wrappers.records import Advice, View, total
from lvlm2p_wrappers.replies import distribution
from lvlm2p_wrappers.teacher.config import OnError
from lvlm2p_wrappers.teacher.resolver import Answered
from lvlm2p_wrappers.teacher.session import PendingAdvice, Session
from lvlm2p_wrappers.views import Viewer

MOST_REMEMBERED = 20_000
"""How many views' advice is kept in memory, so that one that comes again needs neither picture nor store."""


class Questions(Session):
    """Asks about what environments show; equal views are one question."""

    def ask(self, viewer: Viewer, history: tuple[str, ...] = (), observation: Any = None) -> PendingAdvice:
        """Ask about what an environment shows now, without waiting; a state that is remembered is not even drawn.

        Args:
            viewer: draws what is shown.
            history: the names of the last actions, oldest first.
            observation: what the student sees; a Python function is given it.
        """
        if self.function is not None:
            return self._called(viewer.view(history), observation)
        state = viewer.key()
        if state is None:
            return self.ask(viewer.view(history), history)
        pending = self._memory.get((state, history))
        if pending is None or _may_pass(pending.future):
            pending = self._memory[state, history] = self._open(viewer.view(history))
            if len(self._memory) > MOST_REMEMBERED:
                with suppress(RuntimeError, KeyError):  # another thread's question came at the same moment
                    del self._memory[next(iter(self._memory))]
        pending.rows += 1
        return pending

    def collect(self, rows: Sequence[PendingAdvice | None], *, on_error: OnError) -> list[Advice | TeacherError | None]:
        """Wait for the advice of some rows, and count it.

        Args:
            rows: None where nothing was asked.
            on_error: whether a question without an answer raises, or is skipped and counted. A question that the budget
                did not allow never raises.

        Returns:
            For each row the advice; the error that says why there is none; None where nothing was asked.

        Raises:
            TeacherError: after all open questions have settled and their answers are stored.
        """
        try:
            for row in rows:
                if row is not None:
                    self._await(row, on_error)
        except TeacherError:
            wait(self._futures())
            raise
        # Only now, where nothing waits: were Ctrl-C to end it between two rows, collecting again would count twice.
        return [None if row is None else self._counted(row) for row in rows]

    async def _advise(self, view: View, prompts: PromptSet, pending: PendingAdvice) -> Advice:
        """Both stages of one view, no more views at a time than calls may be in flight.

        A label is worth more than the beginning of another one; and what has not begun is not claimed, so that another
        process may ask it.
        """
        pending.task = asyncio.current_task()
        self._unread.release()
        started = time.perf_counter()
        self._views.add(hash((view.key(), view.history)))
        if self._turns.locked():
            view.pack()
        answers: list[Answered] = []
        async with self._turns:
            try:
                if prompts.options.stages == 2:
                    answers.append(await self._resolver.answer(prompts.analysis(view)))
                analysis = answers[0].text if answers else ""
                answers.append(await self._resolver.answer(prompts.action(view, analysis)))
            except (BadReplyError, TransportError) as error:
                self._counts["failures"] += not error.remembered
                raise
        names = tuple(action.name for action in prompts.actions(view.env_info))
        return Advice(
            probs=distribution(answers[-1].text, names),
            analysis=analysis,
            model=answers[-1].model,
            cached=not any(answer.calls for answer in answers),
            cost_usd=total([answer.cost_usd for answer in answers]),
            latency_s=time.perf_counter() - started,
            actions=names,
        )

    def _open(self, view: View) -> PendingAdvice:
        prompts = self._prompts.get(view.family) or self.read_prompts(view.env_info)
        self._unread.acquire()
        pending = PendingAdvice()
        self._loop = self._loop or background_loop()
        pending.future = asyncio.run_coroutine_threadsafe(self._advise(view, prompts, pending), self._loop)
        self._pending.add(pending)
        pending.future.add_done_callback(lambda _: self._pending.discard(pending))
        return pending

    def _await(self, row: PendingAdvice, on_error: OnError) -> None:
        """Wait until a question has settled, and note for the run how it did."""
        error = row.future.exception()
        if error is None:
            self._failed.append(False)
        elif not isinstance(error, BudgetError):
            if on_error == "raise" or not isinstance(error, BadReplyError | TransportError):
                raise error.with_traceback(None)
            if not (row.counted or error.remembered):
                row.counted = True
                self._note_failure(error)

    def _counted(self, row: PendingAdvice) -> Advice | TeacherError:
        """The outcome of a question that has settled; the rows after the first got it for nothing."""
        error = row.future.exception()
        if isinstance(error, TeacherError):
            self._counts["unasked"] += isinstance(error, BudgetError)
            return error
        advice = row.future.result()
        if row.counted:
            advice = replace(advice, cached=True, cost_usd=0.0)
        row.counted = True
        self._counts["labels"] += 1
        self._counts["cached"] += advice.cached
        return advice


def _may_pass(future: Future[Advice]) -> bool:
    """Whether it failed and asking again may help; a reply that stayed bad is not asked for again in a run."""
    if future.cancelled():
        return True
    failed = future.exception() if future.done() else None
    return failed is not None and not isinstance(failed, BadReplyError)
