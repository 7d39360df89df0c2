"""``lvlm2p estimate``: what a run may cost, before anything is paid for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.progress import track

from lvlm2p_wrappers.cli.arguments import Commands, add_command, add_json, add_store, at_least_one
from lvlm2p_wrappers.cli.environments import in_silence, make
from lvlm2p_wrappers.cli.estimate.discovery import Range, Rollout, distinct_views, roll_out
from lvlm2p_wrappers.cli.estimate.tokens import REPLY_TOKENS, CallTokens, billed, tokens_of
from lvlm2p_wrappers.cli.printing import console, duration, money, say, say_json, say_table
from lvlm2p_wrappers.client import Request, catalogue, pricing
from lvlm2p_wrappers.prompts import PromptSet, Question
from lvlm2p_wrappers.records import Stage
from lvlm2p_wrappers.store import Store, locate
from lvlm2p_wrappers.views import View, viewer

LATENCY_S = Range(1, 3)
"""How long a provider is taken to need for a call."""

_EXAMPLES = """\
The environment is really run, by a random policy, for --frames frames; what a longer run shows is extrapolated. Low is
a student that stays random, high one that explores more. Nobody is asked and no key is needed. Answers that the store
has already are found, and do not count again: after a run, or an import, the estimate drops.

examples:
  lvlm2p estimate MiniGrid-LavaGapS7-v0 --model gemini/gemini-2.5-flash-lite --total-timesteps 20000
  lvlm2p estimate FrozenLake-v1 --model openai/gpt-4o-mini --total-timesteps 5000 --prompts my_prompts --json"""


@dataclass(frozen=True)
class Estimate:
    """What a run may cost. Token counts are of all calls together.

    Attributes:
        env_id: the environment.
        model: the teacher's model string.
        total_timesteps: frames of the run.
        num_envs: environments in parallel.
        measured_frames: frames of the rollout that was measured.
        measured_views: different views in it.
        measured_stored: how many of these the store can answer.
        distinct_views: different views in the run.
        new_views: those of them that the store cannot answer.
        stages: calls for a view.
        calls: calls that will be made.
        prompt_tokens: tokens sent.
        reply_tokens: tokens received.
        usd: their price in US dollars; None if LiteLLM has no price for the model.
        usd_at_most: the price if every reply filled ``max_tokens``.
        seconds: how long the calls take.
        concurrency: calls in flight.
        tokens_from: by stage, where the token counts are from.
    """

    env_id: str
    model: str
    total_timesteps: int
    num_envs: int
    measured_frames: int
    measured_views: int
    measured_stored: int
    distinct_views: Range
    new_views: Range
    stages: int
    calls: Range
    prompt_tokens: Range
    reply_tokens: Range
    usd: Range | None
    usd_at_most: float | None
    seconds: Range
    concurrency: int
    tokens_from: dict[Stage, str]


def add_parser(commands: Commands) -> None:
    """Add ``estimate`` to the command line."""
    parser = add_command(
        commands, "estimate", summary="say beforehand what a run may cost, asking nobody", more=_EXAMPLES
    )
    parser.add_argument("env_id", metavar="ENV_ID", help="the environment; MODULE:ID for one that a module registers")
    parser.add_argument("--model", metavar="M", required=True, help="the teacher, as a LiteLLM model string")
    parser.add_argument("--total-timesteps", metavar="N", type=at_least_one, required=True, help="frames of the run")
    parser.add_argument(
        "--num-envs", metavar="N", type=at_least_one, default=8, help="environments in parallel (default: 8)"
    )
    parser.add_argument("--prompts", metavar="P", help="folder of your own templates, or the name of a bundled set")
    parser.add_argument(
        "--concurrency", metavar="N", type=at_least_one, default=16, help="calls in flight (default: 16)"
    )
    parser.add_argument("--seed", metavar="S", type=int, default=1, help="of the rollout (default: 1)")
    parser.add_argument(
        "--frames", metavar="N", type=at_least_one, default=4000, help="frames of the rollout (default: 4000)"
    )
    add_store(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Estimate and print.

    Raises:
        UsageError: if the environment, the model, the prompt set or the store cannot be used.
    """
    estimated = estimate(args)
    if args.json:
        say_json(_as_json(estimated))
    else:
        _print(estimated)


def estimate(args: argparse.Namespace) -> Estimate:
    """Measure and extrapolate.

    Raises:
        UsageError: if the environment, the model, the prompt set or the store cannot be used.
    """
    measured = min(args.frames, args.total_timesteps)
    with in_silence():
        envs = [make(args.env_id) for _ in range(min(args.num_envs, measured))]
        env_info = viewer(envs[0]).env_info
    catalogue.recognise(args.model)
    prompts = PromptSet(args.prompts, env_info.family)
    prompts.check(env_info)
    file = locate(args.store)
    store = Store(file, read_only=True) if file is not None and file.exists() else None  # looking must not make one
    is_stored = None if store is None else _answered_by(store, args.model, prompts)
    with in_silence():
        frames = _with_progress(range(measured))
        rollout = roll_out(envs, frames, seed=args.seed, history=prompts.options.history, is_stored=is_stored)
        for env in envs:
            env.close()
    tokens = _tokens(rollout, prompts, args.model, store)
    max_tokens = prompts.options.sampling.max_tokens
    return _priced(args, rollout, tokens, max_tokens)


def _with_progress(frames: Iterable[int]) -> Iterable[int]:
    screen = console(stderr=True)
    return track(frames, "Looking at the environment", console=screen, transient=True, disable=not screen.is_terminal)


def _answered_by(store: Store, model: str, prompts: PromptSet) -> Callable[[View], bool]:
    """Whether a store can answer all stages of a view."""

    def answer(question: Question) -> str | None:
        stored = store.get(Request(model, question, question.sampling).key)
        return None if stored is None else stored.text

    def is_stored(view: View) -> bool:
        analysis = answer(prompts.analysis(view)) if prompts.options.stages == 2 else ""
        return analysis is not None and answer(prompts.action(view, analysis)) is not None

    return is_stored


def _tokens(rollout: Rollout, prompts: PromptSet, model: str, store: Store | None) -> dict[Stage, CallTokens]:
    """What a call of each stage takes: as billed before where the log knows, else by rules of thumb."""
    two_stages = prompts.options.stages == 2
    # In place of the first stage's answer, which nobody knows yet, a text of its length.
    analysis = "four" * int(sum(REPLY_TOKENS["analysis"]) / 2) if two_stages else ""
    tokens = {"action": tokens_of(model, [prompts.action(view, analysis) for view in rollout.samples])}
    if two_stages:
        tokens["analysis"] = tokens_of(model, [prompts.analysis(view) for view in rollout.samples])
    known = {} if store is None else billed(store, model, rollout.samples[0].env_info.env_id)
    by_stage: dict[Stage, CallTokens] = {}
    for stage in ("analysis", "action"):
        if stage in tokens:
            by_stage[stage] = known.get(stage, tokens[stage])
    return by_stage


def _priced(args: argparse.Namespace, rollout: Rollout, tokens: dict[Stage, CallTokens], max_tokens: int) -> Estimate:
    distinct = _whole(distinct_views(rollout, args.total_timesteps))
    new = _whole(distinct_views(rollout, args.total_timesteps, but=rollout.stored))
    calls = Range(new.low * len(tokens), new.high * len(tokens))
    sent = Range(*(new[end] * sum(call.prompt[end] for call in tokens.values()) for end in (0, 1)))
    received = Range(*(new[end] * sum(call.reply[end] for call in tokens.values()) for end in (0, 1)))
    prices = pricing.rates(args.model)
    usd = at_most = None
    if prices is not None:
        usd = Range(*(prices[0] * sent[end] + prices[1] * received[end] for end in (0, 1)))
        at_most = prices[0] * sent.high + prices[1] * calls.high * max_tokens
    return Estimate(
        env_id=rollout.samples[0].env_info.env_id,
        model=args.model,
        total_timesteps=args.total_timesteps,
        num_envs=args.num_envs,
        measured_frames=rollout.frames,
        measured_views=len(rollout.first_frames),
        measured_stored=len(rollout.stored),
        distinct_views=distinct,
        new_views=new,
        stages=len(tokens),
        calls=calls,
        prompt_tokens=_whole(sent),
        reply_tokens=_whole(received),
        usd=usd,
        usd_at_most=at_most,
        seconds=Range(*(calls[end] * LATENCY_S[end] / args.concurrency for end in (0, 1))),
        concurrency=args.concurrency,
        tokens_from={stage: call.rule for stage, call in tokens.items()},
    )


def _whole(numbers: Range) -> Range:
    return Range(round(numbers.low), round(numbers.high))


def _as_json(estimated: Estimate) -> dict[str, object]:
    return {name: value._asdict() if isinstance(value, Range) else value for name, value in vars(estimated).items()}


def _print(estimated: Estimate) -> None:
    e = estimated
    say(f"{e.env_id}, {e.total_timesteps:,} frames in {e.num_envs} envs, {e.model}", style="bold")
    rows = [
        ("distinct views", *_counts(e.distinct_views)),
        ("  not in the store", *_counts(e.new_views)),
        (f"calls ({e.stages} a view)", *_counts(e.calls)),
        ("prompt tokens", *_counts(e.prompt_tokens)),
        ("reply tokens", *_counts(e.reply_tokens)),
        ("US dollars", *((money(end) for end in e.usd) if e.usd else ("unpriced", "unpriced"))),
        (f"time, {e.concurrency} calls in flight", *(duration(end) for end in e.seconds)),
    ]
    say_table(rows, header=("", "low", "high"), numbers=(1, 2))
    for note in _notes(e):
        say(f"- {note}")


def _counts(numbers: Range) -> tuple[str, str]:
    """To three digits: more would look like knowledge."""
    low, high = (f"{float(f'{number:.3g}'):,.0f}" for number in numbers)
    return low, high


def _notes(e: Estimate) -> list[str]:
    """What the numbers rest on."""
    seen = f"{e.measured_views:,} distinct views in {e.measured_frames:,} frames"
    stored = f", {e.measured_stored:,} of them in the store" if e.measured_stored else ""
    rules = dict.fromkeys(e.tokens_from.values())
    notes = [
        f"An estimate from what a random policy saw: {seen}{stored}.",
        *(f"Tokens, {' and '.join(s for s in e.tokens_from if e.tokens_from[s] == rule)}: {rule}." for rule in rules),
        f"Time: {LATENCY_S.low:g} to {LATENCY_S.high:g} s a call. Retries and repairs come on top.",
    ]
    if e.usd is None:
        free = "it may be free, as one of your own server is, or not."
        notes.append(f"LiteLLM has no price for this model: {catalogue.retired(e.model) or free}")
    elif e.usd_at_most:
        notes.append(
            f"A model that thinks bills its thoughts as reply tokens: {money(e.usd_at_most)} if each filled max_tokens."
        )
    return notes
