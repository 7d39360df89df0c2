"""The teacher: from a view, through two questions to a model, to advice."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal, Unpack

from lvlm2p_wrappers.client import Budget, Client, Request, submit
from lvlm2p_wrappers.errors import BadReplyError, BudgetError, TeacherError, TransportError, UsageError
from lvlm2p_wrappers.prompts import PromptSet
from lvlm2p_wrappers.records import EnvInfo, Family, Question, View, total
from lvlm2p_wrappers.replies import Advice, distribution
from lvlm2p_wrappers.store import Store, locate
from lvlm2p_wrappers.teacher.config import TeacherConfig, TeacherOptions
from lvlm2p_wrappers.teacher.counters import Counters, Reliability
from lvlm2p_wrappers.teacher.process import TEACHERS
from lvlm2p_wrappers.teacher.resolver import Answered, Resolver
from lvlm2p_wrappers.views import Viewer

OnError = Literal["raise", "skip"]

MOST_REMEMBERED = 20_000
"""How many views' advice is kept in memory, so that one that comes again needs neither picture nor store."""

MOST_UNREAD = 16
"""How many views may lie ahead of the event loop: a picture fresh from an environment takes up to megabytes."""


@dataclass(eq=False)
class PendingAdvice:
    """A question about a view that is open, or answered; the rows whose views are equal share it.

    Attributes:
        future: done when the teacher has answered.
        rows: how many rows want it.
        counted: whether a row has been counted for it; the rows after the first cost nothing.
        task: what asks the question, on the event loop.
    """

    future: Future[Advice] = field(init=False)
    rows: int = 0
    counted: bool = False
    task: asyncio.Task[Any] | None = None


class Teacher(AbstractContextManager["Teacher"]):
    """Asks a vision-language model what it would do, in two stages, each answer paid for once.

    Its copy is the teacher itself; where a pickled one is loaded, it is that process's teacher for the same arguments.
    Leaving its ``with`` block closes it.

    Args:
        model: a LiteLLM model string, or ``"embedded/minigrid-planner"``, which needs neither key nor network.
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

    Attributes:
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

    _shared: ClassVar[dict[Hashable, Teacher]] = {}

    def __init__(self, model: str, **options: Unpack[TeacherOptions]) -> None:
        self.model = model
        self._config = TeacherConfig.of(options)
        file = locate(self._config.store)
        if self._config.offline and not (file and file.exists()):
            raise UsageError(f"offline, and there is no store {file} to answer from; give the store of an earlier run")
        self.store = Store(file, read_only=self._config.offline)
        self._prompts: dict[Family, PromptSet] = {}
        self.begin()
        TEACHERS.add(self)

    @classmethod
    def shared(cls, model: str, options: TeacherOptions) -> Teacher:
        """The one teacher of this process for these arguments: its budget, counters and open questions are common."""
        key = (model, TeacherConfig.of(options).located())
        if key not in cls._shared:
            cls._shared.setdefault(key, cls(model, **options))  # another thread's may be first
        return cls._shared[key]

    # --- asking ---

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
        return self.ask(view, view.history)

    def ask(self, viewer: Viewer, history: tuple[str, ...] = ()) -> PendingAdvice:
        """Ask about what an environment shows now, without waiting; a state that is remembered is not even drawn."""
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
        return Advice(
            probs=distribution(answers[-1].text, [action.name for action in prompts.actions(view.env_info)]),
            analysis=analysis,
            model=answers[-1].model,
            cached=not any(answer.calls for answer in answers),
            cost_usd=total([answer.cost_usd for answer in answers]),
            latency_s=time.perf_counter() - started,
        )

    def _open(self, view: View) -> PendingAdvice:
        prompts = self.prompts(view.env_info)
        self._unread.acquire()
        pending = PendingAdvice()
        pending.future = submit(self._advise(view, prompts, pending))
        self._pending.add(pending)
        pending.future.add_done_callback(lambda _: self._pending.discard(pending))
        return pending

    def _await(self, row: PendingAdvice, on_error: OnError) -> None:
        """Wait until a question has settled, and note for the run how it did."""
        error = row.future.exception()
        if error is None:
            self._note(None)
        elif not isinstance(error, BudgetError):
            if on_error == "raise" or not isinstance(error, BadReplyError | TransportError):
                raise error.with_traceback(None)
            if not (row.counted or error.remembered):
                row.counted = True
                self._note(error)

    def _note(self, error: TeacherError | None) -> None:
        """Note how a row ended; where too many ended without a label, call no more and end the run."""
        problem = self._reliability.note(failed=error is not None)
        if problem:
            self._client.stop(problem)
            raise TeacherError(f"{self.model}: {problem}. The last: {error}")

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

    # --- prompts, counters, store ---

    @property
    def counters(self) -> Counters:
        """What has been done so far."""
        client = self._client
        return Counters(
            **self._counts,
            distinct_views=len(self._views),
            calls=client.calls,
            bad_replies=self._resolver.bad_replies,
            cost_usd=client.cost_usd,
            unpriced_calls=client.unpriced_calls,
            charged_usd=client.budget.spent_usd - self._config.spent_usd,
        )

    @property
    def store_path(self) -> str:
        """Where the answers are kept, for people to read."""
        return self.store.path

    def prompts(self, env_info: EnvInfo) -> PromptSet:
        """The prompt set for an environment, read and checked if that has not been done.

        Raises:
            PromptError: if the set is missing or broken.
        """
        return self._prompts.get(env_info.family) or self.read_prompts(env_info)

    def read_prompts(self, env_info: EnvInfo) -> PromptSet:
        """Read the prompt set for an environment afresh and check it.

        Raises:
            PromptError: if the set is missing or broken.
        """
        prompts = PromptSet(self._config.prompts, env_info.family)
        prompts.check(env_info)
        old = self._prompts.get(env_info.family)
        if old is not None and old.fingerprint != prompts.fingerprint:
            self._memory.clear()
        self._prompts[env_info.family] = prompts
        return prompts

    def requests(self, question: Question) -> tuple[Request, ...]:
        """What is sent for a question: to the model, and, where it fails, to each fallback model in turn."""
        return self._resolver.requests(question)

    # --- the end ---

    def resume(self) -> None:
        """Ask again after too many questions failed, or a model refused: what only the user can mend may be mended."""
        self._client.go_on()
        self._reliability = Reliability()

    def drain(self, rows: Iterable[PendingAdvice] | None = None) -> None:
        """Give up rows: calls in flight end, so that their answers are stored; what was not sent yet is not asked.

        Args:
            rows: by default everybody's. A question that other rows want goes on.
        """
        unwanted = []
        for pending in self._pending.copy() if rows is None else rows:
            pending.rows = 0 if rows is None else pending.rows - 1
            if pending.rows == 0 and pending in self._pending:
                unwanted.append(pending)
        if unwanted:
            submit(self._give_up(unwanted)).result()

    def wait_below(self, most: int) -> None:
        """Wait until at most ``most`` questions are open."""
        while len(self._pending) > most:
            wait(self._futures(), return_when="FIRST_COMPLETED")

    def free_store(self) -> None:
        """Close the store's files, unless a question is open; whoever asks next opens them again."""
        if not self._pending:
            self._resolver.close()

    def close(self) -> None:
        """Give up all open questions and close the store's files; counters can be read, and it can ask again."""
        self.drain()
        self.free_store()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __copy__(self) -> Teacher:
        return self  # two would have two budgets

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        return self

    def __reduce__(self) -> Any:
        return _of_this_process, (self.model, asdict(self._config))

    async def _give_up(self, rows: Sequence[PendingAdvice]) -> None:
        tasks = [row.task for row in rows if row.task is not None]  # all have begun: they came before this
        for task in tasks:
            self._client.give_up(task)
        await asyncio.wait(tasks, timeout=self._config.timeout_s)
        await self._resolver.finish()

    def _futures(self) -> list[Future[Advice]]:
        return [pending.future for pending in self._pending.copy()]

    def begin(self) -> None:
        """Begin anew, as in a new process: nothing is open, remembered or counted."""
        config = self._config
        self._client = Client(
            concurrency=config.concurrency,
            rpm=config.rpm,
            budget=Budget(
                config.budget_usd, config.budget_calls, spent_usd=config.spent_usd, spent_calls=config.spent_calls
            ),
            timeout_s=config.timeout_s,
            max_retries=config.max_retries,
            api_bases={self.model: config.api_base} if config.api_base else {},
        )
        self._resolver = Resolver(self.model, config, client=self._client, store=self.store)
        self._reliability = Reliability()
        self._counts: Counter[str] = Counter()
        self._views: set[int] = set()
        self._memory: dict[Hashable, PendingAdvice] = {}
        self._pending: set[PendingAdvice] = set()
        self._unread = threading.Semaphore(MOST_UNREAD)
        self._turns = asyncio.Semaphore(config.concurrency)


def _of_this_process(model: str, options: TeacherOptions) -> Teacher:
    return Teacher.shared(model, options)


def _may_pass(future: Future[Advice]) -> bool:
    """Whether it failed and asking again may help; a reply that stayed bad is not asked for again in a run."""
    if future.cancelled():
        return True
    failed = future.exception() if future.done() else None
    return failed is not None and not isinstance(failed, BadReplyError)
