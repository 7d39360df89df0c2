"""The teacher: from a view, through two questions to a model, to advice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

from lvlm2p_wrappers.client import background_loop
from lvlm2p_wrappers.errors import BadReplyError, BudgetError, TeacherError, TransportError
from lvlm2p_wrappers.prompts import PromptSet
from lvlm2p_wrappers.records import Advice, View, total
from lvlm2p_wrappers.replies import distribution
from lvlm2p_wrappers.teacher.resolver import Answered
from lvlm2p_wrappers.teacher.session import PendingAdvice, Session
from lvlm2p_wrappers.views import Viewer

OnError = Literal["raise", "skip"]

MOST_REMEMBERED = 20_000
"""How many views' advice is kept in memory, so that one that comes again needs neither picture nor store."""


class Teacher(Session):
    """Asks a vision-language model what it would do, in two stages, each answer paid for once.

    Its copy is the teacher itself; where a pickled one is loaded, it is that process's teacher for the same arguments.
    Leaving its ``with`` block closes it.

    Args:
        model: a LiteLLM model string; ``"embedded/minigrid-planner"``, which needs neither key nor network; or
            ``"python:module:function"``, a function of your own from a :class:`View` to a probability for every action,
            as a mapping from their names or an array. It is called for every row, and what it says is stored only if it
            declares a version: ``function.version = "1"``.
        prompts: a folder of your own templates, or the name of a bundled set; by default the bundled set that fits.
        store: where answers are kept: a path, ``"default"`` (``$LVLM2P_STORE``, else the user's cache folder), or None.
        concurrency: the most calls in flight.
        rpm: the most calls a minute.
        budget_usd: the most to spend, in US dollars.
        budget_calls: the most calls.
        spent_usd: what earlier parts of the same run have spent of ``budget_usd``.
        spent_calls: how many of ``budget_calls`` they have made.
        offline: answer from the store alone.
        fallback_models: asked in order where the model fails; a label records the model that truly answered.
        temperature: overrides the prompt set's.
        max_tokens: overrides the prompt set's.
        reasoning_effort: overrides the prompt set's.
        timeout_s: seconds after which a call counts as failed.
        max_retries: how often a call is repeated after faults that may pass.
        api_base: the address of the model's server, where it is not the provider's own.
        render: ``"module:function"``, from an environment to the picture that is shown instead of its own: uint8 RGB.
        facts: ``"module:function"``, from an environment to what no picture shows, as named strings.

    Attributes:
        function: the Python function that answers; None where a model is asked.
        store: where the answers are kept.

    Raises:
        UsageError: if a value cannot work.

    Example:
        >>> import gymnasium as gym
        >>> from lvlm2p_wrappers.views import viewer
        >>> env = gym.make("MiniGrid-LavaGapS7-v0")
        >>> _ = env.reset(seed=0)
        >>> with Teacher("embedded/minigrid-planner", store=None) as teacher:
        ...     advice = teacher.advise(viewer(env).view())
        >>> advice.probs.shape, advice.model
        ((7,), 'embedded/minigrid-planner')
    """

    def advise(self, view: View) -> Advice:
        """Ask about one view and wait for the advice.

        Raises:
            TeacherError: if there is none.
        """
        (outcome,) = self.collect([self.submit(view)], on_error="raise")
        if isinstance(outcome, TeacherError):
            raise outcome
        assert outcome is not None
        return outcome

    def label(self, views: Iterable[View]) -> list[Advice | TeacherError]:
        """Ask about many views at once and wait for all of the advice.

        Returns:
            For each view the advice; where there is none, the error that says why: a :class:`BadReplyError`, a
            :class:`TransportError` or, where the budget did not allow the question, a :class:`BudgetError`.

        Raises:
            TeacherError: if the user has to mend something, or too many questions stayed without an answer. All open
                questions have settled by then, and their answers are stored.
        """
        outcomes = self.collect([self.submit(view) for view in views], on_error="skip")
        return [outcome for outcome in outcomes if outcome is not None]

    def submit(self, view: View) -> PendingAdvice:
        """Ask about a view, without waiting; equal views are one question."""
        view = self.prompts(view.env_info).as_told(view)
        return self.ask(view, view.history)

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
            return self.submit(viewer.view(history))
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

    def _called(self, view: View, observation: Any) -> PendingAdvice:
        """What the Python function says at once, with the actions named as the prompts name them."""
        assert self.function is not None
        told = self.prompts(view.env_info).actions(view.env_info)
        names = {action: one.name for action, one in zip(view.actions, told, strict=True)}
        view = replace(
            view,
            actions=tuple(names.values()),
            history=tuple(names[action] for action in view.history),
            observation=view.observation if observation is None else observation,
        )
        self._views.add(hash((view.key(), view.history)))
        pending = PendingAdvice(rows=1)
        pending.future = Future()
        try:
            pending.future.set_result(self.function.advise(view, self.store))
        except TeacherError as error:
            pending.future.set_exception(error)
        return pending

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
