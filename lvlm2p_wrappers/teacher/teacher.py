"""The teacher: from a view, through two questions to a model, to advice."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypedDict
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from lvlm2p_wrappers.client import Budget, Client, Request, submit
from lvlm2p_wrappers.errors import BadReplyError, BudgetError, TeacherError, TransportError, UsageError
from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.prompts import PromptSet, Question
from lvlm2p_wrappers.records import total
from lvlm2p_wrappers.schemas import Advice, distribution
from lvlm2p_wrappers.store import DEFAULT, Store, locate
from lvlm2p_wrappers.teacher.counters import Counters, Reliability
from lvlm2p_wrappers.teacher.resolver import Answered, Answers
from lvlm2p_wrappers.views import EnvInfo, Family, View, Viewer

OnError = Literal["raise", "skip"]

KNOWN_STATES = 20_000
"""How many states' advice is kept in memory, so that a state seen again needs neither picture nor store."""

UNREAD_VIEWS = 16
"""How many views may lie ahead of the loop: a picture fresh from an environment takes up to megabytes."""


class TeacherOptions(TypedDict, total=False):
    """The keyword arguments of :class:`Teacher`, as both wrappers take them."""

    prompts: str | Path | None
    store: str | Path | None
    concurrency: int
    rpm: int | None
    budget_usd: float | None
    budget_calls: int | None
    offline: bool
    fallback_models: Sequence[str]
    temperature: float | None
    max_tokens: int | None
    reasoning_effort: str | None
    timeout_s: float
    max_retries: int
    api_base: str | None


@dataclass(eq=False)
class PendingAdvice:
    """A question that was asked; the advice comes later.

    Attributes:
        advice: done when the teacher has answered.
        rows: how many rows want it.
        counted: whether a row has been counted for it; the rows after the first cost nothing.
        task: what asks the question, on the loop of the calls.
    """

    advice: Future[Advice] = field(init=False)
    rows: int = 0
    counted: bool = False
    task: asyncio.Task[Any] | None = None


class Teacher:
    """Asks a vision-language model what it would do, in two stages, each answer paid for once.

    Args:
        model: a LiteLLM model string, or ``"embedded/minigrid-planner"``, which needs neither key nor network.
        prompts: a folder of your own templates, or the name of a bundled set; by default the bundled set that fits.
        store: where answers are kept: a path, ``"default"`` (``$LVLM2P_STORE``, else the user's cache folder), or None.
        concurrency: the most calls in flight.
        rpm: the most calls a minute.
        budget_usd: the most to spend, in US dollars.
        budget_calls: the most calls.
        offline: answer from the store alone.
        fallback_models: asked in order where the model fails; a label records the model that truly answered.
        temperature: overrides the prompt set's.
        max_tokens: overrides the prompt set's.
        reasoning_effort: overrides the prompt set's.
        timeout_s: seconds after which a call counts as failed.
        max_retries: how often a call is repeated after faults that may pass.
        api_base: the address of the model's server, where it is not the provider's own.

    Raises:
        UsageError: if a value cannot work.

    Example:
        >>> import gymnasium as gym
        >>> from lvlm2p_wrappers.views import viewer
        >>> env = gym.make("MiniGrid-LavaGapS7-v0")
        >>> _ = env.reset(seed=0)
        >>> advice = Teacher("embedded/minigrid-planner", store=None).advise(viewer(env).view())
        >>> advice.probs.shape, advice.model
        ((7,), 'embedded/minigrid-planner')
    """

    _shared: ClassVar[dict[Hashable, Teacher]] = {}

    def __init__(
        self,
        model: str,
        *,
        prompts: str | Path | None = None,
        store: str | Path | None = DEFAULT,
        concurrency: int = 16,
        rpm: int | None = None,
        budget_usd: float | None = None,
        budget_calls: int | None = None,
        offline: bool = False,
        fallback_models: Sequence[str] = (),
        temperature: float | None = None,
        max_tokens: int | None = None,
        reasoning_effort: str | None = None,
        timeout_s: float = 60.0,
        max_retries: int = 4,
        api_base: str | None = None,
    ) -> None:
        for name, value in (
            ("concurrency", concurrency),
            ("rpm", rpm),
            ("timeout_s", timeout_s),
            ("max_tokens", max_tokens),
        ):
            if value is not None and not value > 0:  # false for NaN, too
                raise UsageError(f"{name} must be above 0, not {value}")
        for name, value in (("budget_usd", budget_usd), ("budget_calls", budget_calls), ("max_retries", max_retries)):
            if value is not None and not value >= 0:
                raise UsageError(f"{name} must not be negative: {value}")
        if isinstance(fallback_models, str):
            raise UsageError(f"fallback_models must be a list of model strings, not the string {fallback_models!r}")
        self.model = model
        self._models = (model, *fallback_models)
        self._folder = prompts
        self._prompts: dict[Family, PromptSet] = {}
        if offline and not ((file := locate(store)) and file.exists()):
            raise UsageError(f"offline, and there is no store {file} to answer from; give the store of an earlier run")
        self._store = Store(store, read_only=offline)
        self._offline = offline
        overrides = {"temperature": temperature, "max_tokens": max_tokens, "reasoning_effort": reasoning_effort}
        self._sampling = {name: value for name, value in overrides.items() if value is not None}
        self._client_options: dict[str, Any] = {
            "concurrency": concurrency,
            "rpm": rpm,
            "timeout_s": timeout_s,
            "max_retries": max_retries,
            "api_base": api_base,
        }
        self._budget = (budget_usd, budget_calls)
        self._begin()

    @classmethod
    def shared(cls, model: str, options: TeacherOptions) -> Teacher:
        """The one teacher of this process for these arguments: its budget, counters and open questions are common."""
        given = inspect.signature(cls).bind(model, **options)
        given.apply_defaults()
        given.arguments["store"] = locate(given.arguments["store"])
        given.arguments["fallback_models"] = tuple(given.arguments["fallback_models"])
        key = tuple(str(value) if isinstance(value, Path) else value for value in given.arguments.values())
        if key not in cls._shared:
            cls._shared.setdefault(key, cls(model, **options))  # another thread's may be first
        return cls._shared[key]

    @property
    def counters(self) -> Counters:
        """What has been done so far."""
        client = self._client
        return Counters(
            **self._counts,
            distinct_views=len(self._views),
            calls=client.calls,
            bad_replies=self._answers.bad_replies,
            cost_usd=client.cost_usd,
            unpriced_calls=client.unpriced_calls,
        )

    @property
    def store(self) -> Store:
        """Where the answers are kept."""
        return self._store

    @property
    def store_path(self) -> str:
        """Where the answers are kept, for people to read."""
        return self._store.path

    def prompts(self, env_info: EnvInfo) -> PromptSet:
        """The prompt set for an environment, read and checked if that has not been done.

        Raises:
            PromptError: if the set is missing or broken.
        """
        if env_info.family not in self._prompts:
            self.prepare(env_info)
        return self._prompts[env_info.family]

    def requests(self, question: Question) -> tuple[Request, ...]:
        """What is sent for a question: to the model, and, where it fails, to each fallback model in turn."""
        self._after_fork()
        return self._answers.requests(question)

    def prepare(self, env_info: EnvInfo) -> int:
        """Read the prompt set for an environment afresh and check it.

        Returns:
            How many of the last actions its templates want to be told.

        Raises:
            PromptError: if the set is missing or broken.
        """
        self._client.go_on()
        self._reliability = Reliability()
        prompts = PromptSet(self._folder, env_info.family)
        prompts.check(env_info)
        old = self._prompts.get(env_info.family)
        if old is not None and old.fingerprint != prompts.fingerprint:
            self._known.clear()
        self._prompts[env_info.family] = prompts
        return prompts.options.history

    def advise(self, view: View) -> Advice:
        """Ask about one view and wait for the advice.

        Raises:
            TeacherError: if there is none.
        """
        return self._submit(view).advice.result()

    def ask(self, viewer: Viewer, history: tuple[str, ...] = ()) -> PendingAdvice:
        """Ask about what an environment shows now, without waiting. A state seen before is not even drawn."""
        self._after_fork()
        state = viewer.key()
        if state is None:
            return self._submit(viewer.view(history))
        ticket = self._known.get((state, history))
        if ticket is None or _may_pass(ticket.advice):
            ticket = self._known[state, history] = self._submit(viewer.view(history))
        else:
            ticket.rows += 1
        self._known.move_to_end((state, history))
        if len(self._known) > KNOWN_STATES:
            self._known.popitem(last=False)
        return ticket

    def settle(self, tickets: Sequence[PendingAdvice | None], *, on_error: OnError) -> list[NDArray[np.float32] | None]:
        """Wait for the advice of some tickets and count it.

        Args:
            tickets: None where nothing was asked.
            on_error: whether a question without an answer raises, or is skipped, and counted.

        Returns:
            For each ticket the (n_actions,) float32 distribution, or None where there is none.

        Raises:
            TeacherError: after all open questions have settled and their answers are stored.
        """
        try:
            return [None if ticket is None else self._row(ticket, on_error) for ticket in tickets]
        except TeacherError:
            wait(self._open())
            raise

    def drain(self, tickets: Iterable[PendingAdvice] | None = None) -> None:
        """Give up rows: calls in flight end, so that their answers are stored; what was not sent yet is not asked.

        Args:
            tickets: those of the rows; by default everybody's. A question that other rows want goes on.
        """
        self._after_fork()
        unwanted = []
        for ticket in [*self._tickets] if tickets is None else tickets:
            ticket.rows = 0 if tickets is None else ticket.rows - 1
            if ticket.rows == 0 and ticket in self._tickets:
                unwanted.append(ticket)
        if unwanted:
            submit(self._give_up(unwanted)).result()

    def wait_below(self, most: int) -> None:
        """Wait until at most ``most`` questions are open."""
        self._after_fork()
        while len(self._tickets) > most:
            wait(self._open(), return_when="FIRST_COMPLETED")

    async def _give_up(self, tickets: Sequence[PendingAdvice]) -> None:
        tasks = [ticket.task for ticket in tickets if ticket.task is not None]  # all have begun: they came before this
        for task in tasks:
            self._client.give_up(task)
        await asyncio.wait(tasks, timeout=self._client_options["timeout_s"])

    def _open(self) -> list[Future[Advice]]:
        return [ticket.advice for ticket in self._tickets.copy()]

    def _row(self, ticket: PendingAdvice, on_error: OnError) -> NDArray[np.float32] | None:
        error = ticket.advice.exception()
        seen_before, ticket.counted = ticket.counted, True
        if isinstance(error, BudgetError):
            self._counts["unasked"] += 1
            return None
        if error is not None:
            if on_error == "raise" or not isinstance(error, BadReplyError | TransportError):
                raise error.with_traceback(None)
            if not (seen_before or error.remembered):
                self._note(error)
            return None
        advice = ticket.advice.result()
        self._note(None)
        self._counts["labels"] += 1
        self._counts["cached"] += advice.cached or seen_before
        return advice.probs

    def _note(self, error: TeacherError | None) -> None:
        """Note how a row ended; where too many ended without a label, call no more and end the run."""
        problem = self._reliability.note(failed=error is not None)
        if problem:
            self._client.stop(problem)
            raise TeacherError(f"{self.model}: {problem}. The last: {error}")

    def _submit(self, view: View) -> PendingAdvice:
        self._after_fork()
        prompts = self.prompts(view.env_info)
        self._unread.acquire()
        ticket = PendingAdvice(rows=1)
        ticket.advice = submit(self._advise(view, prompts, ticket))
        self._tickets.add(ticket)
        ticket.advice.add_done_callback(lambda _: self._tickets.discard(ticket))
        return ticket

    async def _advise(self, view: View, prompts: PromptSet, ticket: PendingAdvice) -> Advice:
        """Both stages of one view."""
        ticket.task = asyncio.current_task()
        self._unread.release()
        started = time.perf_counter()
        view = replace(view, picture=self._pictures.setdefault(view.picture.digest, view.picture))
        self._views.add(hash((view.env_info, view.picture.digest, view.mission, view.carrying, view.history)))
        answers: list[Answered] = []
        try:
            if prompts.options.stages == 2:
                answers.append(await self._answers.to(prompts.analysis(view)))
            analysis = answers[0].text if answers else ""
            answers.append(await self._answers.to(prompts.action(view, analysis)))
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

    def _begin(self) -> None:
        """What belongs to this process: its client, and what is under way, known or counted in it."""
        self._pid = os.getpid()
        self._client = Client(budget=Budget(*self._budget), **self._client_options)
        self._answers = Answers(
            self._models, self._sampling, client=self._client, store=self._store, offline=self._offline
        )
        self._reliability = Reliability()
        self._counts: Counter[str] = Counter()
        self._views: set[int] = set()
        self._known: OrderedDict[Hashable, PendingAdvice] = OrderedDict()
        self._tickets: set[PendingAdvice] = set()  # of open questions
        self._unread = threading.Semaphore(UNREAD_VIEWS)
        # Those of open questions: equal ones, as from worker processes, are one.
        self._pictures: WeakValueDictionary[str, Picture] = WeakValueDictionary()

    def _after_fork(self) -> None:
        if self._pid != os.getpid():
            self._begin()


def _may_pass(future: Future[Advice]) -> bool:
    """Whether it failed and asking again may help; a reply that stayed bad is not asked for again in a run."""
    if future.cancelled():
        return True
    return future.done() and future.exception() is not None and not isinstance(future.exception(), BadReplyError)
