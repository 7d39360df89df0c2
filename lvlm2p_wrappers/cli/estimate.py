"""``lvlm2p estimate``: what a run may cost, before anything is paid for.

Every distinct view is paid for once. A random policy acts for a while, and the range of views for the whole run is:

* low: the views that it saw.
* high: these, and a new view with probability *p* for each frame in which it saw nothing new to its episode, and for
  each frame that the run is longer. *p* is the share of never-seen views among those that were new in their episode,
  in the second half of the frames. A student that never comes back to a view within an episode sees at most so many.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, NamedTuple

import gymnasium as gym
from rich.progress import track
from tyro.conf import arg

from lvlm2p_wrappers import store as stores
from lvlm2p_wrappers.cli.arguments import Concurrency, EnvId, Model, Positive, Whole, optional, whole_from_1
from lvlm2p_wrappers.cli.environments import in_silence, make
from lvlm2p_wrappers.cli.printing import console, say, say_json, say_table
from lvlm2p_wrappers.cli.teacher_flags import TeacherFlags
from lvlm2p_wrappers.client import catalogue, pricing
from lvlm2p_wrappers.records import Question, Stage, View
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.teacher.history import conversation
from lvlm2p_wrappers.units import duration, money
from lvlm2p_wrappers.views import viewer

FRAMES = {True: 10_000, False: 2_000}
"""Frames of the rollout at most, where views are told apart by the state and where each has to be drawn."""

_LOGGED_CALLS = 500  # how many of the last calls tell what was billed
_SAMPLES = 16  # views at most whose messages are rendered to count their characters


@dataclass(frozen=True)
class Range:
    """An estimate: it is likely to be between these."""

    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)

    def __mul__(self, other: Range | float) -> Range:
        low, high = (other.low, other.high) if isinstance(other, Range) else (other, other)
        return Range(self.low * low, self.high * high)


# Rules of thumb, for calls that nobody has made yet.
CHARACTERS_A_TOKEN = Range(4.2, 3.3)  # the bundled prompts have 3.5 to 4.1 in GPT-4o's tokenizer
PICTURE_TOKENS = Range(85, 1200)  # what most providers bill for a picture of a few hundred pixels
REPLY_TOKENS = Range(80, 300)  # without thoughts
LATENCY_S = Range(1, 3)
RULE_OF_THUMB = (
    f"a rule of thumb, {CHARACTERS_A_TOKEN.high} to {CHARACTERS_A_TOKEN.low} characters a token, {PICTURE_TOKENS.low} "
    f"to {PICTURE_TOKENS.high:,} tokens a picture (gpt-4o-mini bills 8,500), {REPLY_TOKENS.low} to "
    f"{REPLY_TOKENS.high} a reply"
)


@dataclass
class Rollout:
    """What a random policy saw.

    Attributes:
        frames: how many observations there were.
        firsts: how many of them were the first of their view in their episode.
        views: the distinct views, by the number of the frame that showed them first.
        stored: the numbers of those frames whose views the store can answer.
        late_firsts: as ``firsts``, in the second half.
        samples: some views, early and late ones.
    """

    frames: int
    firsts: int = 0
    views: list[int] = field(default_factory=list)
    stored: set[int] = field(default_factory=set)
    late_firsts: int = 0
    samples: list[View] = field(default_factory=list)

    def distinct_views(self, frames: int, *, unpaid: bool = False) -> Range:
        """The distinct views of a run of so many frames; with ``unpaid`` only those that the store cannot answer."""
        views = [frame for frame in self.views if not (unpaid and frame in self.stored)]
        probability = sum(frame >= self.frames / 2 for frame in views) / max(1, self.late_firsts)
        return Range(len(views), round(len(views) + probability * (frames - self.firsts)))


def roll_out(
    env: gym.Env[Any, Any],
    frames: Sequence[int],
    *,
    seed: int,
    history: int,
    is_stored: Callable[[View], bool] = lambda _: False,
) -> Rollout:
    """Act at random.

    Args:
        env: the environment.
        frames: the numbers of the frames, from 0 on.
        seed: of the environment and of the policy.
        history: how many of the last actions belong to a view.
        is_stored: whether the store can answer a view.
    """
    screen = console(stderr=True)
    watched = track(frames, "Looking at it", console=screen, transient=True, disable=not screen.is_terminal)
    found, seen = Rollout(len(frames)), set[Hashable]()
    for frame, (key, is_first, view) in zip(watched, _walk(env, seed, history), strict=False):
        found.firsts += is_first
        found.late_firsts += is_first and frame >= len(frames) / 2
        if key in seen:
            continue
        seen.add(key)
        found.views.append(frame)
        if is_stored(view()):
            found.stored.add(frame)
        if len(found.views).bit_count() == 1 and len(found.samples) < _SAMPLES:  # views 1, 2, 4, 8, ...
            found.samples.append(view())
    return found


def _walk(env: gym.Env[Any, Any], seed: int, history: int) -> Iterator[tuple[Hashable, bool, Callable[[], View]]]:
    """The views of a random policy: what tells each from others, whether it is new in its episode, the view itself."""
    look, last, in_episode = viewer(env), deque[str](maxlen=history), set[Hashable]()
    env.action_space.seed(seed)
    env.reset(seed=seed)
    while True:
        view = functools.cache(functools.partial(look.view, tuple(last)))
        state = look.key()
        key = ((view().picture.digest, view().mission, view().carrying) if state is None else state, tuple(last))
        yield key, key not in in_episode, view
        in_episode.add(key)
        action = env.action_space.sample()
        _, _, terminated, truncated, _ = env.step(action)
        last.append(look.env_info.actions[int(action) - int(env.action_space.start)])  # type: ignore[attr-defined]
        if terminated or truncated:
            env.reset()
            last.clear()
            in_episode.clear()


class CallTokens(NamedTuple):
    """What one call takes: tokens sent with the picture, tokens received, and where the numbers are from."""

    prompt: Range
    reply: Range
    source: str


def tokens_of(questions: Sequence[Question]) -> CallTokens:
    """What a call takes by rules of thumb, on average over some questions of one stage."""
    total = Range(0, 0)
    for question in questions:
        text = sum(len(message.text) for message in question.messages)
        with_schema = text + len(question.schema.text)  # some providers bill it, too
        total += Range(text / CHARACTERS_A_TOKEN.low, with_schema / CHARACTERS_A_TOKEN.high)
        total += PICTURE_TOKENS * sum(message.picture is not None for message in question.messages)
    return CallTokens(total * (1 / len(questions)), REPLY_TOKENS, RULE_OF_THUMB)


def _billed(teacher: Teacher, env_id: str) -> dict[Stage, CallTokens]:
    """What this model's last calls about this environment took on average, by stage."""
    counts: dict[Stage, list[tuple[int, int]]] = {}
    for entry in itertools.islice(stores.calls(teacher.store, model=teacher.model, outcome="ok"), _LOGGED_CALLS):
        call = entry.call
        if (call.env_id, call.requested_model) == (env_id, teacher.model) and call.prompt_tokens:
            counts.setdefault(call.stage, []).append((call.prompt_tokens, call.completion_tokens or 0))
    found: dict[Stage, CallTokens] = {}
    for stage, pairs in counts.items():
        sent, received = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
        source = f"as billed for {len(pairs)} calls in the store"
        found[stage] = CallTokens(Range(sent, sent), Range(received, received), source)
    return found


def _tokens(teacher: Teacher, views: Sequence[View]) -> dict[Stage, CallTokens]:
    """What a call of each stage takes; a text of its length stands for the first stage's answer."""
    prompts = teacher.prompts(views[0].env_info)
    analysis = "four" * int((REPLY_TOKENS.low + REPLY_TOKENS.high) / 2) if prompts.options.stages == 2 else ""
    found: dict[Stage, CallTokens] = {}
    if analysis:
        found["analysis"] = tokens_of([prompts.analysis(view) for view in views])
    found["action"] = tokens_of([prompts.action(view, analysis) for view in views])
    billed = _billed(teacher, views[0].env_id)
    return {stage: billed.get(stage, tokens) for stage, tokens in found.items()}


@dataclass(frozen=True)
class Cost:
    """What a run may cost. Token counts are of all calls; ``usd`` is None where LiteLLM has no price for the model."""

    distinct_views: Range
    new_views: Range
    calls: Range
    prompt_tokens: Range
    reply_tokens: Range
    usd: Range | None
    usd_at_most: float | None
    seconds: Range
    tokens_from: dict[Stage, str]


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
    frames: Annotated[int | None, whole_from_1, optional("N")] = None
    """frames of the random policy; without it those of the run, at most 10,000 (2,000 where each has to be drawn)"""

    def run(self) -> None:
        """See ``Command``."""
        file = self.store_if_there()
        teacher = self.teacher(self.model, store=file)
        with in_silence():
            rollout = self._roll_out(teacher, look_up=file is not None)
        tokens = _tokens(teacher, rollout.samples)
        new = rollout.distinct_views(self.total_timesteps, unpaid=True)
        calls = new * len(tokens)
        sent, received = Range(0, 0), Range(0, 0)
        for call in tokens.values():
            sent, received = sent + new * call.prompt, received + new * call.reply
        usd, at_most = None, None
        if (prices := pricing.rates(self.model)) is not None:
            usd = sent * prices[0] + received * prices[1]
            max_tokens = teacher.prompts(rollout.samples[0].env_info).options.sampling.max_tokens
            at_most = sent.high * prices[0] + calls.high * max_tokens * prices[1]
        cost = Cost(
            distinct_views=rollout.distinct_views(self.total_timesteps),
            new_views=new,
            calls=calls,
            prompt_tokens=sent,
            reply_tokens=received,
            usd=usd,
            usd_at_most=at_most,
            seconds=calls * LATENCY_S * (1 / self.concurrency),
            tokens_from={stage: call.source for stage, call in tokens.items()},
        )
        if self.json:
            told = {name: getattr(self, name) for name in ("env_id", "model", "total_timesteps", "concurrency")}
            measured = {"frames": rollout.frames, "views": len(rollout.views), "stored": len(rollout.stored)}
            say_json({**told, "measured": measured, **asdict(cost)})
        else:
            self._print(rollout, cost)

    def _roll_out(self, teacher: Teacher, *, look_up: bool) -> Rollout:
        env = make(self.env_id)
        look = viewer(env)
        prompts = teacher.prompts(look.env_info)
        prompts.check(look.env_info)

        def is_stored(view: View) -> bool:
            held = conversation(teacher, view) if look_up else ()
            return len(held) == prompts.options.stages and all(exchange.answer is not None for exchange in held)

        env.reset(seed=self.seed)
        frames = range(min(self.total_timesteps, self.frames or FRAMES[look.key() is not None]))
        rollout = roll_out(env, frames, seed=self.seed, history=prompts.options.history, is_stored=is_stored)
        env.close()
        return rollout

    def _print(self, rollout: Rollout, cost: Cost) -> None:
        say(f"{self.env_id}, {self.total_timesteps:,} frames, {self.model}", style="bold")
        usd, seconds = cost.usd, cost.seconds
        rows = [
            _row("distinct views", cost.distinct_views),
            _row("  not in the store", cost.new_views),
            _row(f"calls ({len(cost.tokens_from)} a view)", cost.calls),
            _row("prompt tokens", cost.prompt_tokens),
            _row("reply tokens", cost.reply_tokens),
            ("US dollars", *((money(usd.low), money(usd.high)) if usd else ("unpriced", "unpriced"))),
            (f"time, {self.concurrency} calls in flight", duration(seconds.low), duration(seconds.high)),
        ]
        say_table(rows, header=("", "low", "high"), numbers=(1, 2))
        say(f"- A random policy saw {len(rollout.views):,} distinct views in {rollout.frames:,} frames.")
        for source in dict.fromkeys(cost.tokens_from.values()):
            stages = " and ".join(stage for stage in cost.tokens_from if cost.tokens_from[stage] == source)
            say(f"- Tokens, {stages}: {source}.")
        say(f"- Time: {LATENCY_S.low} to {LATENCY_S.high} s a call. Retries and repairs come on top.")
        if usd is None:
            free = "it may be free, as one of your own server is, or not."
            say(f"- LiteLLM has no price for this model: {catalogue.retired(self.model) or free}")
        elif cost.usd_at_most:
            say(f"- A model that thinks bills its thoughts: {money(cost.usd_at_most)} if each reply filled max_tokens.")


def _row(name: str, numbers: Range) -> tuple[str, str, str]:
    """A row of the table, to three digits: more would look like knowledge."""
    return name, f"{float(f'{numbers.low:.3g}'):,.0f}", f"{float(f'{numbers.high:.3g}'):,.0f}"
