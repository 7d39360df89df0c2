"""What a teacher's process holds for it: its store, client, prompts, open questions and counters, until it ends."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 -- its own end is registered before ours, and so comes after it
import os
import threading
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack
from weakref import WeakSet

import gymnasium as gym

from lvlm2p_wrappers.client import Budget, Client, LedgerThread, Request, SharedBudget, submit
from lvlm2p_wrappers.errors import TeacherError, UsageError
from lvlm2p_wrappers.prompts import PromptSet
from lvlm2p_wrappers.records import Advice, EnvInfo, Family, Question, View
from lvlm2p_wrappers.store import Ledger, Store, is_there, locate
from lvlm2p_wrappers.teacher.config import TeacherConfig, TeacherOptions
from lvlm2p_wrappers.teacher.counters import WINDOW, Counters, why_to_stop
from lvlm2p_wrappers.teacher.resolver import Resolver
from lvlm2p_wrappers.views import OwnView, Viewer, viewer
from lvlm2p_wrappers.views.minigrid import MiniGridViewer

if TYPE_CHECKING:
    from lvlm2p_wrappers.teacher.python_function import PythonFunction

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


class Session(AbstractContextManager["Session"]):
    """What a teacher holds in a process, from its first question to its end; a forked process begins anew.

    Arguments and attributes are those of :class:`Teacher`.
    """

    _shared: ClassVar[dict[Hashable, Any]] = {}

    def __init__(self, model: str, **options: Unpack[TeacherOptions]) -> None:
        self.model = model
        self._config = config = TeacherConfig.of(options)
        self.own_view = OwnView(config.render, config.facts)
        self.own_view.check()
        self.function = self._python_function() if model.startswith("python:") else None
        # What a Python function says is kept only if it declares which version of it says so.
        place = locate(config.store if self.function is None or self.function.version else None)
        if config.offline and place is not None and not is_there(place):
            raise UsageError(
                f"offline, and there is no store {place} to answer from; give the store of an earlier run, "
                "or none (store=None) where nothing needs an answer"
            )
        self.store = Store(place, read_only=config.offline and place is not None)
        self._prompts: dict[Family, PromptSet] = {}
        self._begin()
        _SESSIONS.add(self)

    @classmethod
    def shared(cls, model: str, options: TeacherOptions) -> Self:
        """The one teacher of this process for these arguments: its budget, counters and open questions are common."""
        key = (model, TeacherConfig.of(options).located())
        if key not in cls._shared:
            cls._shared.setdefault(key, cls(model, **options))  # another thread's may be first
        teacher: Self = cls._shared[key]
        return teacher

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
            charged_usd=client.budget.charged_usd,
        )

    @property
    def store_path(self) -> str:
        """Where the answers are kept, for people to read."""
        return self.store.path

    def viewer(self, env: gym.Env[Any, Any]) -> Viewer:
        """What draws an environment for this teacher.

        Raises:
            UsageError: if it gives no picture or has no Discrete actions.
        """
        look = viewer(env, self.own_view)
        if isinstance(look, MiniGridViewer) and self.prompts(look.env_info).options.picture_style == "lines":
            look.draw_lines()
        return look

    def frames_of(self, env: gym.Env[Any, Any]) -> int:
        """How many of an environment's last pictures are shown.

        Raises:
            UsageError: if it gives no picture, has no Discrete actions, or its prompt set is broken.
        """
        env_info = self.viewer(env).env_info
        return self.prompts(env_info).options.frames_of(env_info.env_id)

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

    def resume(self) -> None:
        """Ask again after too many questions failed, or a model refused: what only the user can mend may be mended."""
        self._client.go_on()
        self._failed.clear()

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
            self._resolver.claims.close()

    def close(self) -> None:
        """Give up all open questions and close the store's files; counters can be read, and it can ask again."""
        self.drain()
        self.free_store()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __copy__(self) -> Self:
        return self  # two would have two budgets

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> Any:
        return type(self).shared, (self.model, asdict(self._config))

    def _called(self, view: View, observation: Any) -> PendingAdvice:
        """What the Python function says at once, with the actions named as the prompts name them."""
        assert self.function is not None
        told = self.prompts(view.env_info).actions(view.env_info)
        names = {action: one.own for action, one in zip(view.actions, told, strict=True)}
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

    def _python_function(self) -> PythonFunction:
        from lvlm2p_wrappers.teacher.python_function import PythonFunction

        if self._config.fallback_models:
            raise UsageError(f"{self.model} is a Python function: fallback_models would never be asked")
        return PythonFunction(self.model, offline=self._config.offline)

    def _note_failure(self, error: TeacherError) -> None:
        """Note a question without an answer; where there are too many, call no more and end the run."""
        self._failed.append(True)
        if problem := why_to_stop(self._failed):
            self._client.stop(problem)
            raise TeacherError(f"{self.model}: {problem}. The last: {error}")

    async def _give_up(self, rows: Sequence[PendingAdvice]) -> None:
        tasks = [row.task for row in rows if row.task is not None]  # all have begun: they came before this
        for task in tasks:
            self._client.give_up(task)
        await asyncio.wait(tasks, timeout=self._config.timeout_s)
        await self._resolver.finish()

    def _futures(self) -> list[Future[Advice]]:
        return [pending.future for pending in self._pending.copy()]

    def _begin(self) -> None:
        """Begin anew, as in a new process: nothing is open, remembered or counted."""
        config = self._config
        ledger = LedgerThread(Ledger(self.store))
        if config.budget_scope == "store":  # what earlier parts of a run have spent is counted there
            budget: Budget = SharedBudget(config.budget_usd, config.budget_calls, ledger)
        else:
            before = config.spent_usd, config.spent_calls
            budget = Budget(config.budget_usd, config.budget_calls, spent_usd=before[0], spent_calls=before[1])
        self._client = Client(
            concurrency=config.concurrency,
            rpm=config.rpm,
            starts=ledger if config.rpm_scope == "store" else None,
            budget=budget,
            timeout_s=config.timeout_s,
            max_retries=config.max_retries,
            api_bases={self.model: config.api_base} if config.api_base else {},
        )
        self._resolver = Resolver(self.model, config, client=self._client, store=self.store)
        self._failed: deque[bool] = deque(maxlen=WINDOW)  # of the last questions, in the order of their rows
        self._counts: Counter[str] = Counter()
        self._views: set[int] = set()
        self._memory: dict[Hashable, PendingAdvice] = {}
        self._pending: set[PendingAdvice] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unread = threading.Semaphore(MOST_UNREAD)
        self._turns = asyncio.Semaphore(config.concurrency)


_SESSIONS: WeakSet[Session] = WeakSet()


def _begin_anew() -> None:
    """A forked child has none of its parent's threads, and asks nothing of what was open there."""
    for session in tuple(_SESSIONS):
        session._begin()


def _drain_all() -> None:
    """Where a script ends without closing its teacher, calls in flight end, so that what was paid for is stored."""
    for session in tuple(_SESSIONS):
        with suppress(KeyboardInterrupt):
            session.drain()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
# Before the threads of executors end and LiteLLM closes its connections: `atexit` alone would come after both.
getattr(threading, "_register_atexit", atexit.register)(_drain_all)
