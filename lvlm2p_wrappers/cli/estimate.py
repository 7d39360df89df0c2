"""``lvlm2p estimate``: what a run may cost, before anything is paid for.

Every distinct view is paid for once. A random policy acts for a while, and the range of views for the whole run is:

* low: the views that it saw.
* high: these, and a new view with probability *p* for each frame in which it saw nothing new to its episode, and for
  each frame that the run is longer. *p* is the share of never-seen views among those that were new in their episode,
  in the second half of the frames. A student that never comes back to a view within an episode sees at most so many.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, TypeAlias

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from tyro.conf import arg

from lvlm2p_wrappers import store as stores
from lvlm2p_wrappers.cli.arguments import Concurrency, EnvId, Model, Positive, Whole, optional, whole_from_1
from lvlm2p_wrappers.cli.environments import in_silence, make, walk
from lvlm2p_wrappers.cli.printing import console, say, say_json, say_table
from lvlm2p_wrappers.cli.teacher_flags import TeacherFlags
from lvlm2p_wrappers.client import batches, catalogue, pricing
from lvlm2p_wrappers.records import Question, Stage, View
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.teacher.history import conversation
from lvlm2p_wrappers.units import duration, money
from lvlm2p_wrappers.views import EpisodeMemory, Viewer

Range: TypeAlias = NDArray[np.float64]
"""The low and the high end of an estimate, shape (2,)."""

FRAMES = {True: 10_000, False: 2_000}
"""Frames of the rollout at most, where views are told apart by the state and where each has to be drawn."""

# Rules of thumb, for calls that nobody has made yet.
CHARACTERS_A_TOKEN = np.array([4.2, 3.3])  # the bundled prompts have 3.5 to 4.1 in GPT-4o's tokenizer
PICTURE_TOKENS = np.array([85.0, 1200.0])  # what most providers bill for a picture of a few hundred pixels
REPLY_TOKENS = np.array([80.0, 300.0])  # without thoughts
LATENCY_S = np.array([1.0, 3.0])
RULE_OF_THUMB = (
    "a rule of thumb, 3.3 to 4.2 characters a token, 85 to 1,200 tokens a picture (gpt-4o-mini bills 8,500), "
    "80 to 300 a reply"
)

_LOGGED_CALLS = 500  # how many of the last calls tell what was billed
_SAMPLES = 16  # views at most whose messages are rendered to count their characters


@dataclass
class Rollout:
    """What a random policy saw.

    Attributes:
        frames: how many observations there were.
        asked: how many of them a teacher would be asked about.
        firsts: how many of these were the first of their view in their episode.
        views: the distinct views, by the number of the frame that showed them first.
        stored: the numbers of those frames whose views the store can answer.
        late_firsts: as ``firsts``, in the second half.
        samples: some views, early and late ones.
    """

    frames: int
    asked: int = 0
    firsts: int = 0
    views: list[int] = field(default_factory=list)
    stored: set[int] = field(default_factory=set)
    late_firsts: int = 0
    samples: list[View] = field(default_factory=list)

    def distinct_views(self, frames: int, *, unpaid: bool = False) -> Range:
        """The distinct views of a run of so many frames; with ``unpaid`` only those that the store cannot answer."""
        views = [frame for frame in self.views if not (unpaid and frame in self.stored)]
        asked = frames * self.asked / self.frames
        probability = sum(frame >= self.frames / 2 for frame in views) / max(1, self.late_firsts)
        return np.array([len(views), round(len(views) + probability * (asked - self.firsts))], np.float64)


def roll_out(
    env: gym.Env[Any, Any],
    look: Viewer,
    frames: int,
    *,
    seed: int,
    memory: EpisodeMemory,
    ask_every: int = 1,
    is_stored: Callable[[View], bool] = lambda _: False,
) -> Rollout:
    """Act at random.

    Args:
        env: the environment.
        look: draws it.
        frames: for how many observations.
        seed: of the environment and of the policy.
        memory: remembers the pictures and actions that belong to a view.
        ask_every: how often a teacher is asked.
        is_stored: whether the store can answer a view.
    """
    screen = console(stderr=True)
    watched = track(range(frames), "Looking at it", console=screen, transient=True, disable=not screen.is_terminal)
    found, seen = Rollout(frames), set[Hashable]()
    for frame, (key, is_first, steps, view) in zip(watched, walk(env, look, seed, memory), strict=False):
        if steps % ask_every:
            continue
        found.asked += 1
        found.firsts += is_first
        found.late_firsts += is_first and frame >= frames / 2
        if key in seen:
            continue
        seen.add(key)
        found.views.append(frame)
        if is_stored(view()):
            found.stored.add(frame)
        if len(found.views).bit_count() == 1 and len(found.samples) < _SAMPLES:  # views 1, 2, 4, 8, ...
            found.samples.append(view())
    return found


class CallTokens(NamedTuple):
    """What one call takes: tokens sent with the picture, tokens received, and where the numbers are from."""

    prompt: Range
    reply: Range
    source: str


def tokens_of(questions: Sequence[Question]) -> CallTokens:
    """What a call takes by rules of thumb, on average over some questions of one stage."""
    total = np.zeros(2)
    for question in questions:
        text = sum(len(message.text) for message in question.messages)
        # Some providers bill the schema of the reply, too.
        total += np.array([text, text + len(question.schema.text)]) / CHARACTERS_A_TOKEN
        total += PICTURE_TOKENS * sum(message.picture is not None for message in question.messages)
    return CallTokens(total / len(questions), REPLY_TOKENS, RULE_OF_THUMB)


def _billed(teacher: Teacher, env_id: str) -> dict[Stage, CallTokens]:
    """What this model's last calls about this environment took on average, by stage."""
    counts: dict[Stage, list[tuple[int, int]]] = {}
    for entry in itertools.islice(stores.calls(teacher.store, model=teacher.model, outcome="ok"), _LOGGED_CALLS):
        call = entry.call
        if (call.env_id, call.requested_model) == (env_id, teacher.model) and call.prompt_tokens:
            counts.setdefault(call.stage, []).append((call.prompt_tokens, call.completion_tokens or 0))
    found: dict[Stage, CallTokens] = {}
    for stage, pairs in counts.items():
        sent, received = np.mean(pairs, axis=0)
        source = f"as billed for {len(pairs)} calls in the store"
        found[stage] = CallTokens(np.full(2, sent), np.full(2, received), source)
    return found


def _tokens(teacher: Teacher, views: Sequence[View]) -> dict[Stage, CallTokens]:
    """What a call of each stage takes; a text of its length stands for the first stage's answer."""
    prompts = teacher.prompts(views[0].env_info)
    found: dict[Stage, CallTokens] = {}
    analysis = ""
    if prompts.options.stages == 2:
        found["analysis"] = tokens_of([prompts.analysis(view) for view in views])
        analysis = "four" * int(REPLY_TOKENS.mean())
    found["action"] = tokens_of([prompts.action(view, analysis) for view in views])
    billed = _billed(teacher, views[0].env_id)
    return {stage: billed.get(stage, tokens) for stage, tokens in found.items()}


@dataclass(kw_only=True)
class Estimate(TeacherFlags):
    """Tell what a run may cost, asking nobody.

    A random policy acts in the environment. Low is the number of views that it
    saw; high adds a new view for every other frame with the probability that
    its last views were new. Answers that the store has already cost nothing:
    after a run, or an import, the estimate drops.

    Examples:
      lvlm2p estimate MiniGrid-LavaGapS7-v0 --model gemini/gemini-2.5-flash-lite --total-timesteps 20000
      lvlm2p estimate FrozenLake-v1 --model openai/gpt-4o-mini --total-timesteps 5000 --prompts my_prompts
    """

    env_id: EnvId
    model: Model
    total_timesteps: Annotated[Positive, arg(metavar="N")]  # frames of the run
    concurrency: Concurrency = 16
    seed: Whole = 1  # seed of the random policy and of the environment
    ask_every: Positive = 1  # as in the wrappers: every so many observations of an episode are asked about
    frames: Annotated[int | None, whole_from_1, optional("N")] = None
    """frames of the random policy; without it those of the run, at most 10,000 (2,000 where each has to be drawn)"""

    def run(self) -> None:
        """See ``Command``."""
        file = self.store_if_there()
        teacher = self.model_teacher(self.model)
        with in_silence():
            rollout = self._roll_out(teacher, look_up=file is not None)
        tokens = _tokens(teacher, rollout.samples)
        new = rollout.distinct_views(self.total_timesteps, unpaid=True)
        calls = new * len(tokens)
        cost: dict[str, Range] = {
            "distinct_views": rollout.distinct_views(self.total_timesteps),
            "new_views": new,
            "calls": calls,
            "prompt_tokens": new * np.sum([call.prompt for call in tokens.values()], axis=0),
            "reply_tokens": new * np.sum([call.reply for call in tokens.values()], axis=0),
            "seconds": calls * LATENCY_S / self.concurrency,
        }
        at_most = None
        if (prices := pricing.rates(self.model)) is not None:
            fees = calls * (prices.call + prices.picture)
            cost["usd"] = cost["prompt_tokens"] * prices.prompt + cost["reply_tokens"] * prices.completion + fees
            if any(prices) and batches.has_batches(self.model):
                cost["usd_in_batches"] = cost["usd"] * batches.DISCOUNT
            max_tokens = teacher.prompts(rollout.samples[0].env_info).options.sampling.max_tokens
            replies = max_tokens * prices.completion
            at_most = float(cost["prompt_tokens"][1] * prices.prompt + calls[1] * replies + fees[1])
        sources = {stage: call.source for stage, call in tokens.items()}
        if self.json:
            told = {name: getattr(self, name) for name in ("env_id", "model", "total_timesteps", "concurrency")}
            told["measured"] = {"frames": rollout.frames, "views": len(rollout.views), "stored": len(rollout.stored)}
            ranges = {name: {"low": float(ends[0]), "high": float(ends[1])} for name, ends in cost.items()}
            say_json({**told, "usd": None, **ranges, "usd_at_most": at_most, "tokens_from": sources})
            return
        say(f"{self.env_id}, {self.total_timesteps:,} frames, {self.model}", style="bold")
        say_table([_row(name, *ends) for name, ends in cost.items()], header=("", "low", "high"), numbers=(1, 2))
        say(f"- A random policy saw {len(rollout.views):,} distinct views in {rollout.frames:,} frames.")
        for source in dict.fromkeys(sources.values()):
            say(f"- Tokens, {' and '.join(stage for stage in sources if sources[stage] == source)}: {source}.")
        say(f"- Time: 1 to 3 s a call, {self.concurrency} in flight. Retries and repairs come on top.")
        if at_most is None:
            free = "it may be free, as one of your own server is, or not."
            say(f"- LiteLLM has no price for this model: {catalogue.retired(self.model) or free}")
        elif at_most:
            say(f"- A model that thinks bills its thoughts: {money(at_most)} if each reply filled max_tokens.")

    def _roll_out(self, teacher: Teacher, *, look_up: bool) -> Rollout:
        env = make(self.env_id)
        look = teacher.viewer(env)
        prompts = teacher.prompts(look.env_info)
        prompts.check(look.env_info)

        def is_stored(view: View) -> bool:
            held = conversation(teacher, view) if look_up else ()
            return len(held) == prompts.options.stages and all(exchange.answer is not None for exchange in held)

        memory = prompts.memory(look.env_info)
        env.reset(seed=self.seed)
        frames = min(self.total_timesteps, self.frames or FRAMES[look.key() is not None and memory.frames == 1])
        rollout = roll_out(
            env, look, frames, seed=self.seed, memory=memory, ask_every=self.ask_every, is_stored=is_stored
        )
        env.close()
        return rollout


def _row(name: str, low: float, high: float) -> tuple[str, str, str]:
    if name.startswith("usd"):
        return "US dollars" + ", by label --batch" * (name != "usd"), money(low), money(high)
    if name == "seconds":
        return "time", duration(low), duration(high)
    title = "  not in the store" if name == "new_views" else name.replace("_", " ")
    return title, f"{float(f'{low:.3g}'):,.0f}", f"{float(f'{high:.3g}'):,.0f}"  # more digits would look like knowledge
