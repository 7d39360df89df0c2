"""Asks the questions of many views in batches: the first stage as one, the second as the next.

Which batches there are stands in the store, so that the command can be stopped, and called again hours later, from
another machine. What fails in its batch is asked once more in another one; what fails there is left to be asked singly.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from lvlm2p_wrappers.client import Request, pricing
from lvlm2p_wrappers.client.batches import (
    DISCOUNT,
    MOST_BYTES,
    MOST_REQUESTS,
    BatchClient,
    BatchResult,
    BatchState,
    size_of,
)
from lvlm2p_wrappers.errors import BadReplyError, BudgetError, TransportError, UsageError
from lvlm2p_wrappers.records import Answer, Call, Reply, Stage, View
from lvlm2p_wrappers.store import Batch, add_batch, batches_of, update_batch
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.teacher.bad_replies import described

MOST_TRIES = 2
"""In how many batches a question is asked."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""The pauses between looks at a batch: each is half as long again as the last."""

_SUBMITTING_S = 3600.0
"""How long the batches of a job are left to a process that has fallen silent; one that died is passed over at once."""

Told = Callable[[str], object]


class BatchJob:
    """The batches of one command.

    Args:
        teacher: whose questions they are, and in whose store they stand.
        name: what tells the command from others: the same one goes on with its batches.
        budget_usd: the most that its batches may cost, all its calls together; None for no limit.
        budget_calls: the most questions in its batches, likewise.
        told: is told what happens, in words.

    Raises:
        ModelError: if the model's provider has no batches, or its key is missing.
    """

    def __init__(
        self, teacher: Teacher, name: str, *, budget_usd: float | None, budget_calls: int | None, told: Told
    ) -> None:
        self._teacher, self._store, self._told = teacher, teacher.store, told
        self._job = hashlib.sha256(name.encode()).hexdigest()[:32]
        self._budget_usd, self._budget_calls = budget_usd, budget_calls
        self._client = BatchClient(teacher.model)
        if budget_usd is not None and budget_calls is None and pricing.rates(teacher.model) is None:
            raise UsageError(
                f"{teacher.model} has no known price, so budget_usd cannot hold; limit it with budget_calls as well"
            )
        self._worst_case = pricing.WorstCase()

    @property
    def spent(self) -> tuple[float, int]:
        """US dollars charged or reserved so far, and questions asked."""
        batches = [batch for batch in batches_of(self._store, self._job) if batch.status != "lost"]
        return sum(batch.usd for batch in batches), sum(len(batch.keys) for batch in batches)

    def is_answered(self, view: View) -> bool:
        """Whether the store has the answers to all questions about a view."""
        return any(self._store.get(request.key) for _, request in self._requests("action", [view]))

    def run(self, views: Sequence[View]) -> None:
        """Ask about views, and wait for the answers, which are in the store then.

        Raises:
            BudgetError: if the budget does not allow all of it; what was asked is answered by then.
            TransportError: if the provider refused a whole batch, or does not answer.
            ModelError: if the user has to mend something.
        """
        stages: tuple[Stage, ...] = ("analysis", "action")
        for stage in stages[-self._teacher.prompts(views[0].env_info).options.stages :]:
            self._ask(stage, {request.key: view for view, request in self._requests(stage, views)})

    def _requests(self, stage: Stage, views: Iterable[View]) -> Iterator[tuple[View, Request]]:
        """The requests of a stage; a second stage has one where the first one is answered."""
        for view in views:
            prompts = self._teacher.prompts(view.env_info)
            question = None
            if stage == "analysis":
                question = prompts.analysis(view)
            elif prompts.options.stages == 1:
                question = prompts.action(view, "")
            elif (first := self._answer(prompts.analysis(view))) is not None:
                question = prompts.action(view, first)
            if question is not None:
                yield view, self._teacher.requests(question)[0]
            view.pack()

    def _answer(self, question: object) -> str | None:
        answer = self._store.get(self._teacher.requests(question)[0].key)  # type: ignore[arg-type]
        return None if answer is None else answer.text

    def _ask(self, stage: Stage, views: dict[str, View]) -> None:
        """Ask the questions of a stage, until each is answered or has been asked often enough."""
        while True:
            with self._claimed():
                self._find_lost()
                batches = [batch for batch in batches_of(self._store, self._job) if batch.stage == stage]
                tries = Counter(key for batch in batches if batch.status != "lost" for key in batch.keys)
                is_open = {key for batch in batches if batch.status == "open" for key in batch.keys}
                missing = [
                    key
                    for key in views
                    if key not in is_open and tries[key] < MOST_TRIES and self._store.get(key) is None
                ]
                self._submit_all(stage, [views[key] for key in missing], can_wait=bool(is_open))
            pending = [batch for batch in batches_of(self._store, self._job) if self._is_open(batch, stage)]
            if not pending:
                return
            for batch in pending:
                self._collect(batch, views)

    def _is_open(self, batch: Batch, stage: Stage) -> bool:
        return batch.status == "open" and batch.stage == stage

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        """Keep other processes from submitting or collecting the same batches."""
        key, pause = f"batches {self._job}", FIRST_PAUSE_S
        while not self._store.get_or_claim(key, seconds=_SUBMITTING_S):
            self._told("another process is submitting or collecting these batches")
            time.sleep(pause)
            pause = min(LONGEST_PAUSE_S, 1.5 * pause)
        try:
            yield
        finally:
            self._store.release(key)

    def _find_lost(self) -> None:
        """Find out whether the batches of a process that died while it submitted them are at the provider."""
        for batch in batches_of(self._store, self._job):
            if batch.status == "submitting":
                found = self._client.find(batch.token)
                status = "open" if found else "lost"
                update_batch(self._store, batch._replace(batch_id=found, status=status))  # type: ignore[arg-type]

    def _submit_all(self, stage: Stage, views: Sequence[View], *, can_wait: bool) -> None:
        """Submit questions, as far as the budget reaches, each batch within the provider's limits.

        Raises:
            BudgetError: if it reaches for none of them, and no open batch may turn out cheaper than was reserved.
        """
        part, size, usd, submitted = list[Request](), 0, 0.0, 0
        spent_usd, calls = self.spent
        for _, request in self._requests(stage, views):
            worst, bytes_ = self._worst_case.usd(request) * DISCOUNT, size_of(request)
            if not self._is_allowed(spent_usd + usd + worst, calls + submitted + 1):
                break
            if part and (len(part) == MOST_REQUESTS or size + bytes_ > MOST_BYTES):
                self._submit(stage, part, usd)
                spent_usd, part, size, usd = spent_usd + usd, [], 0, 0.0
            part.append(request)
            size, usd, submitted = size + bytes_, usd + worst, submitted + 1
        if part:
            self._submit(stage, part, usd)
        elif views and not can_wait:
            raise BudgetError(
                f"the budget does not reach for a batch of the {len(views):,} questions that are left "
                f"(${spent_usd:.4f} and {calls:,} calls are spent); what was answered is kept"
            )

    def _is_allowed(self, usd: float, calls: int) -> bool:
        within_usd = self._budget_usd is None or usd <= self._budget_usd
        return within_usd and (self._budget_calls is None or calls <= self._budget_calls)

    def _submit(self, stage: Stage, requests: Sequence[Request], usd: float) -> None:
        keys = tuple(request.key for request in requests)
        batch = Batch(uuid.uuid4().hex, None, self._job, stage, keys, "submitting", time.time(), usd)
        add_batch(self._store, batch)  # before it is paid for: if this process dies now, the next one looks for it
        batch_id = self._client.submit(requests, batch.token)
        update_batch(self._store, batch._replace(batch_id=batch_id, status="open"))
        self._told(f"batch {batch_id}: {len(keys):,} questions of stage {stage}; stop and come back whenever you like")

    def _collect(self, batch: Batch, views: dict[str, View]) -> None:
        """Wait for the end of a batch, and store what it brought."""
        assert batch.batch_id is not None
        pause = FIRST_PAUSE_S
        while not (state := self._client.state(batch.batch_id)).is_over:
            done = f"{state.answered + state.failed:,} of {len(batch.keys):,}"
            self._told(f"batch {batch.batch_id}: {state.status}, {done} questions")
            time.sleep(pause)
            pause = min(LONGEST_PAUSE_S, 1.5 * pause)
        with self._claimed():
            current = {one.token: one for one in batches_of(self._store, self._job)}[batch.token]
            if current.status != "open":  # another process has collected it meanwhile
                return
            usd = self._stored(batch, state, views)
            update_batch(self._store, batch._replace(status="done", usd=usd))
        if state.status == "failed":
            raise TransportError(f"{self._client.model}: the provider refused batch {batch.batch_id}: {state.problem}")

    def _stored(self, batch: Batch, state: BatchState, views: dict[str, View]) -> float:
        """Store the results of a batch, each once; returns what is charged for it in US dollars."""
        own = [views[key] for key in batch.keys if key in views]
        requests = {request.key: request for _, request in self._requests(batch.stage, own)}
        charged, failed = 0.0, dict[str, BatchResult]()
        waiting = set(batch.keys)
        for key, result in self._client.results(state, requests):
            if key not in waiting:
                continue  # it is there twice, and was paid for once
            if result.reply is None:
                failed[key] = result
                continue
            waiting.discard(key)
            charged += self._record(requests[key], result)
        for key in waiting & requests.keys():
            request = requests[key]
            if state.status == "completed" and key not in failed:  # whether it was billed is not known
                charged += self._worst_case.usd(request) * DISCOUNT
            result = failed.get(key) or BatchResult(None, f"batch {batch.batch_id} {state.status} without its result")
            told = {"problem": result.problem, "status": result.status}
            self._store.record(_call(request).model_copy(update=told))
        return charged

    def _record(self, request: Request, result: BatchResult) -> float:
        """Store an answer, or what was wrong with it; returns what it cost."""
        assert result.reply is not None
        call, answer = _call(request, result.reply), None
        try:
            answer = Answer(request.question.read(result.reply.usable()), result.reply.model)
        except (BadReplyError, RecursionError) as error:
            error = described(error, result.reply)
            call = call.model_copy(update={"outcome": "bad_reply", "problem": f"{error.kind}: {error}"})
        self._store.record(call, answer)
        if result.reply.cost_usd is None:
            return self._worst_case.usd(request) * DISCOUNT
        self._worst_case.learn(request, result.reply.usage, within=True)
        return result.reply.cost_usd


def _call(request: Request, reply: Reply | None = None) -> Call:
    return Call.of(request.model, request.question, request.sampling, key=request.key, reply=reply)
