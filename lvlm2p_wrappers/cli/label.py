"""``lvlm2p label``: a label set."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tyro.constructors import PrimitiveConstructorSpec

from lvlm2p_wrappers.cli.arguments import EnvId, Model, Positive, Switch, optional, whole_from_1
from lvlm2p_wrappers.cli.environments import in_silence, info_of, make
from lvlm2p_wrappers.cli.evaluate import LabellingFlags, default_folder
from lvlm2p_wrappers.cli.printing import console, say, say_facts, say_json
from lvlm2p_wrappers.client import batches
from lvlm2p_wrappers.errors import BadReplyError, BudgetError, TeacherError, UsageError
from lvlm2p_wrappers.evaluation.players import MIXED
from lvlm2p_wrappers.evaluation.states import sample_states
from lvlm2p_wrappers.labels import LabelFolder, LabelRow, frames_of, label_views
from lvlm2p_wrappers.labels.arrow import load_pyarrow
from lvlm2p_wrappers.labels.batch import BatchJob
from lvlm2p_wrappers.labels.cluster import LOCAL, ClusterLabelling
from lvlm2p_wrappers.labels.labelling import Frame, as_told, info_of_set
from lvlm2p_wrappers.labels.layout import view_digest
from lvlm2p_wrappers.observations import AgentCentredObservation
from lvlm2p_wrappers.records import Scope, View
from lvlm2p_wrappers.store import locate
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.teacher.counters import Counters
from lvlm2p_wrappers.units import duration, money

Observation = Literal["auto", "grid", "env", "none"]

_SAY_EVERY_S = 60.0
"""Seconds between two lines of progress where there is no terminal, as in a batch job's log."""


ray_address = PrimitiveConstructorSpec(
    nargs="*",
    metavar="[ADDRESS]",
    instance_from_str=lambda args: args[0] if args else LOCAL,
    is_instance=lambda value: isinstance(value, str),
    str_from_instance=lambda value: [value],
)


@dataclass(kw_only=True)
class Label(LabellingFlags):
    """Have a teacher label many states, and keep the labels as a label set.

    A label set is a folder of Parquet files with a README.md, which Hugging
    Face's datasets reads as it is. Students train from it without a key.

    --states-from says where the states are from: random, student, expert, or
    mixed (all three); a folder of PNG files (missions in a metadata.jsonl), a
    Parquet file with a column image, the folder of another label set, or
    minari:DATASET.

    --batch asks in batches, at half the price, which may take hours: stop it
    whenever you like, the same command goes on, also on another machine that
    has the same store. What fails in two batches is asked singly.

    After a spent budget, a fault or Ctrl-C the same command goes on where it
    was; answers come from the store where they are there, and go into it.

    Examples:
      lvlm2p label MiniGrid-LavaGapS7-v0 --model embedded/minigrid-planner --states 300
      lvlm2p label MiniGrid-DoorKey-8x8-v0 --model gemini/gemini-2.5-flash-lite --states 5000 --budget-usd 5
      lvlm2p label ALE/Freeway-v5 --model openai/gpt-4o-mini --states-from minari:atari/freeway/expert-v0
    """

    env_id: EnvId
    model: Model
    states_from: Annotated[str, optional("WHERE")] = "mixed"  # mixed, random, noisy_expert, expert; a path; minari:X
    observation: Annotated[Observation, optional()] = "auto"
    """what the student sees: grid (the scripts' observation of a MiniGrid), env (the environment's own), none; auto
    takes the first of these that the environment has"""
    rpm: Annotated[int | None, whole_from_1, optional("N")] = None  # the most calls a minute
    rpm_scope: Annotated[Scope, optional()] = "process"  # whose calls: this process's, or of all that share the store
    batch: Switch = False  # ask in batches, which some providers answer within a day, at half the price
    ray: Annotated[str | None, ray_address] = None
    """label on a Ray cluster: at this address, or without one on this machine"""
    actors: Positive = 2  # with --ray: how many actors ask, each with --concurrency calls in flight
    out: Annotated[Path | None, optional("FOLDER")] = None  # the label set; without it label_sets/ENV__MODEL

    def run(self) -> None:
        """See ``Command``."""
        load_pyarrow()
        self._check()
        path = self.out or Path("label_sets") / default_folder(self.env_id, self.model, self.prompts).name
        teacher = self.teacher(self.model, **self._on_cluster())
        with in_silence(), contextlib.closing(teacher):
            frames = self._frames(teacher)
            if (first := next(frames, None)) is None:
                raise UsageError(f"{self.states_from} holds no frames")
            with LabelFolder(path, info_of_set(teacher, first.view, self.prompts)) as folder:
                tally = _Tally(teacher, folder, self.states)
                new = _unlabelled(teacher, itertools.chain([first], frames), folder)
                try:
                    if self.batch:
                        new = self._in_batches(tally, [*new])
                    with _progress(tally) as show, self._labelling(tally) as labelling:
                        for outcome in labelling(tally.teacher, new, width=4 * self.concurrency):
                            tally.add(outcome)
                            show()
                except (TeacherError, KeyboardInterrupt) as error:
                    tally.unfinished = error
        self._print(folder, tally)
        if tally.unfinished is not None:
            if isinstance(tally.unfinished, TeacherError):
                say("Incomplete. The same command goes on.", stderr=True)
            raise tally.unfinished

    def _frames(self, teacher: Teacher) -> Iterator[Frame]:
        sources = MIXED
        if self.states_from in ("mixed", *sources):
            env = self._make()
            chosen = [name for name in sources if self.states_from in ("mixed", name)]
            frames, own = teacher.frames_of(env), teacher.own_view
            found = sample_states(
                env, self.states, seed=self.seed, sources=chosen, judged=False, frames=frames, own=own
            )
            for state in found:
                where = f"{state.source} seed {state.seed} step {state.step}"
                yield Frame(where, self._as_kept(state.view))
            env.close()
            return
        of_files = frames_of(self.states_from, info_of(self.env_id, self.own_view), self._make)
        for source, view in itertools.islice(of_files, self.states):
            yield Frame(source, self._as_kept(view))

    def _make(self) -> gym.Env[Any, Any]:
        """The environment, whose observations are those that the set keeps."""
        env = make(self.env_id)
        if self.observation == "grid" or (self.observation == "auto" and hasattr(env.unwrapped, "agent_pos")):
            env = AgentCentredObservation(env)
        return env

    def _in_batches(self, tally: _Tally, new: Sequence[Frame]) -> Iterator[Frame]:
        """Have the store filled by batches; what is left is asked singly, within what they have left of the budget.

        Returns:
            The frames to be labelled now: all; where the budget did not reach for the batches, those that are answered.
        """
        teacher = tally.teacher
        parts = (self.env_id, self.model, self.prompts, self.states_from, self.seed, tally.folder.info.fingerprint)
        job = BatchJob(
            teacher,
            json.dumps(parts),
            budget_usd=self.budget_usd,
            budget_calls=self.budget_calls,
            told=_Told(),
        )
        try:
            if new:
                job.run([as_told(teacher, frame.view) for frame in new])
        except BudgetError as error:
            new = [frame for frame in new if job.is_answered(as_told(teacher, frame.view))]
            tally.unfinished = error
        tally.batch_usd, tally.batch_calls = job.spent
        tally.teacher = self.teacher(self.model, spent_usd=tally.batch_usd, spent_calls=tally.batch_calls)
        return iter(new)

    @contextlib.contextmanager
    def _labelling(self, tally: _Tally) -> Iterator[Any]:
        """What labels the views: this process, or a cluster."""
        if self.ray is None:
            yield label_views
            return
        cluster = ClusterLabelling(self.ray, self.actors)
        tally.cluster = cluster
        try:
            yield cluster.label_views
        finally:
            cluster.close()

    def _on_cluster(self) -> dict[str, Any]:
        """The options of each actor's teacher: the limits hold for all of them together."""
        if self.ray is None:
            return {}
        if (place := locate(self.store)) is None:
            raise UsageError("--ray needs a store that all actors share: name one with --store")
        parts = 1 if self.budget_scope == "store" else self.actors
        return {
            "store": str(place) if isinstance(place, Path) else self.store,
            "budget_usd": None if self.budget_usd is None else self.budget_usd / parts,
            "budget_calls": None if self.budget_calls is None else self.budget_calls // parts,
            "rpm_scope": "store",
        }

    def _check(self) -> None:
        """Refuse flags that exclude each other, before anything is begun."""
        if self.batch:
            batches.check(self.model)
            if self.ray is not None:
                raise UsageError("--batch asks nobody while it waits: leave out --ray")
            if self.budget_scope == "store":
                raise UsageError("--batch has a budget of its own: leave out --budget-scope store")

    def _as_kept(self, view: View) -> View:
        """The view with the observation that the set keeps, if any."""
        drop = self.observation == "none" or (
            self.observation == "auto" and not isinstance(view.observation, np.ndarray)
        )
        return replace(view, observation=None) if drop else view

    def _print(self, folder: LabelFolder, tally: _Tally) -> None:
        counters = tally.counters
        told = {
            "folder": str(folder.path),
            "labels": len(folder),
            "new": tally.labelled,
            "without_label": sum(tally.failures.values()),
            "calls": tally.batch_calls + counters.calls,
            "in_batches": tally.batch_calls,
            "cost_usd": tally.spent,
        }
        if self.json:
            say_json({**told, "failures": tally.failures, "complete": tally.unfinished is None})
            return
        kinds = ", ".join(f"{kind}: {n}" for kind, n in tally.failures.items())
        facts = [
            ("labels in the set", f"{len(folder):,}"),
            ("new ones", f"{tally.labelled:,}"),
            ("views without a label", f"{told['without_label']:,}" + (f" ({kinds})" if kinds else "")),
            ("calls", f"{told['calls']:,}" + (f", {tally.batch_calls:,} in batches" if self.batch else "")),
            ("spent", money(tally.spent) + (" and unpriced calls" if counters.unpriced_calls else "")),
        ]
        say_facts(facts)
        say(f"kept in {folder.path}")


@dataclass
class _Tally:
    """What has become of the frames so far."""

    teacher: Teacher
    folder: LabelFolder
    wanted: int
    labelled: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    batch_usd: float = 0.0
    batch_calls: int = 0
    cluster: ClusterLabelling | None = None
    unfinished: TeacherError | KeyboardInterrupt | None = None
    started: float = field(default_factory=time.monotonic)

    def add(self, outcome: LabelRow | TeacherError) -> None:
        if isinstance(outcome, LabelRow):
            self.folder.add(outcome)
            self.labelled += 1
            return
        kind = outcome.kind if isinstance(outcome, BadReplyError) else type(outcome).__name__.removesuffix("Error")
        self.failures[kind] = self.failures.get(kind, 0) + 1
        if not isinstance(outcome, BadReplyError):
            self.unfinished = outcome

    @property
    def counters(self) -> Counters:
        return self.teacher.counters if self.cluster is None else self.cluster.counters

    @property
    def done(self) -> int:
        return len(self.folder) + sum(self.failures.values())

    @property
    def spent(self) -> float:
        return self.batch_usd + self.counters.cost_usd

    @property
    def price(self) -> str:
        """What has been spent, and what all of it may come to."""
        spent = self.spent
        asked = self.labelled + sum(self.failures.values())
        in_all = spent * (1 + max(self.wanted - self.done, 0) / max(asked, 1))
        return f"{money(spent)} spent, about {money(in_all)} in all"

    @property
    def line(self) -> str:
        asked = self.labelled + sum(self.failures.values())
        left = (time.monotonic() - self.started) / max(asked, 1) * max(self.wanted - self.done, 0)
        return f"{self.done:,} of {self.wanted:,} states, {self.price}, about {duration(left)} left"


def _unlabelled(teacher: Teacher, frames: Iterable[Frame], folder: LabelFolder) -> Iterator[Frame]:
    """The frames that the set has no label of, each once."""
    known = set(folder.views)
    for frame in frames:
        if (digest := view_digest(as_told(teacher, frame.view))) not in known:
            known.add(digest)
            yield frame


class _Told:
    """Says what happens to batches on standard error, each thing once."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, text: str) -> None:
        if text != self._last:
            say(text, stderr=True)
        self._last = text


@contextlib.contextmanager
def _progress(tally: _Tally) -> Iterator[Any]:
    """A bar on a terminal, else a line a minute; on standard error."""
    screen = console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task, told = bar.add_task("", total=tally.wanted, completed=len(tally.folder)), time.monotonic()

        def show() -> None:
            nonlocal told
            bar.update(task, completed=tally.done, description=tally.price)
            if bar.disable and time.monotonic() - told > _SAY_EVERY_S:
                told = time.monotonic()
                say(tally.line, stderr=True)

        yield show
