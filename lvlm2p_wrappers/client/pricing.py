"""What calls cost, and the most they can cost, by LiteLLM's price list and by tokens that were checked."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from lvlm2p_wrappers.client.litellm_loader import LOCAL, load_litellm
from lvlm2p_wrappers.records import Usage

if TYPE_CHECKING:
    from lvlm2p_wrappers.client.litellm_backend import Request

FIRST_PICTURE_TOKENS = 3000
"""Reserved for a picture until a bill tells what the model takes (gpt-4o-mini: 2,833 for a small one)."""

MOST_TOKENS = 2**31 - 1
"""More than this is no count of tokens, whatever the model."""


_SEARCHES = re.compile("search|sonar")  # the models that search without being told to, at a price of its own for each


class Rates(NamedTuple):
    """US dollars per token: sent, received, sent but read from or written to the prompt cache; per call and picture."""

    prompt: float
    completion: float
    cached: float = 0.0
    written: float = 0.0
    call: float = 0.0
    picture: float = 0.0


def rates(model: str, prompt_tokens: int = 0) -> Rates | None:
    """The list's rates for a model string, and for a prompt of so many tokens; None where it has not all of them.

    The list has a 0 for what is free, and for much that is not.
    """
    if model.startswith(LOCAL):
        return Rates(0.0, 0.0)
    entry = _entry(model)
    two = [entry.get(f"{kind}_cost_per_token") for kind in ("input", "output")]
    if None in two or not any(two) or _SEARCHES.search(model):
        return None
    prompt = _rate(entry, "input_cost_per_token", prompt_tokens)
    completion = max(
        _rate(entry, "output_cost_per_token", prompt_tokens),
        _rate(entry, "output_cost_per_reasoning_token", prompt_tokens),
    )
    cached = _rate(entry, "cache_read_input_token_cost", prompt_tokens) or prompt
    written = max(prompt, _rate(entry, "cache_creation_input_token_cost", prompt_tokens))
    fees = (float(entry.get(f"input_cost_per_{each}") or 0.0) for each in ("request", "image"))
    return Rates(prompt, completion, min(prompt, cached), written, *fees)


def cost(model: str, usage: Usage | None, pictures: int = 0) -> float | None:
    """US dollars for a call with so many pictures; None where the model has no rate, or the tokens are not known.

    Nothing that a provider says about prices counts, nor the name of the model that it says it used.
    """
    each = rates(model, usage.prompt if usage else 0)
    if each is None or (usage is None and any(each)):
        return None
    if usage is None:
        return 0.0
    tokens = usage.prompt - usage.cached - usage.written, usage.completion, usage.cached, usage.written, 1, pictures
    return sum(rate * count for rate, count in zip(each, tokens, strict=True))


def checked(usage: Any, request: Request, text: str) -> Usage | None:
    """The tokens of a reply, by what the provider says; None where that cannot be true.

    Every request has words in it, a text has tokens, and no model reads or writes more than it can. Where the counts
    contradict each other, as where thinking is in the total alone, the dearest reading holds.
    """
    entry = {} if request.model.startswith(LOCAL) else _entry(request.model)
    prompt, completion, total = (_count(usage, f"{name}_tokens") for name in ("prompt", "completion", "total"))
    thinking = _count(getattr(usage, "completion_tokens_details", None), "reasoning_tokens")
    details = getattr(usage, "prompt_tokens_details", None)
    cached, written = (_count(details, f"{name}_tokens") or 0 for name in ("cached", "cache_creation"))
    if prompt is None or completion is None or cached < 0:
        return None
    most = max(completion, thinking or 0, (total or 0) - prompt)
    reads, writes = (entry.get(f"max_{way}_tokens") or MOST_TOKENS for way in ("input", "output"))
    if not (1 <= prompt <= reads and (1 if text else 0) <= completion <= most <= writes):
        return None
    cached = cached if cached <= prompt else 0
    return Usage(prompt, most, cached, min(max(written, 0), prompt - cached))


def _count(usage: Any, name: str) -> int | None:
    count = getattr(usage, name, None)
    return count if type(count) is int else None


class WorstCase:
    """The most that calls can cost, learned from bills.

    What a picture takes is the provider's secret until the first bill. From then on calls with as many pictures of the
    same sizes are expected to take at most a fifth more for these.
    """

    def __init__(self) -> None:
        self._most: dict[Hashable, int] = {}
        self._sure: set[Hashable] = set()

    def usd(self, request: Request) -> float:
        """US dollars for a call in the worst case; 0 where the model has no rate."""
        # No token of a text is shorter than a byte.
        words = sum(len(message.text.encode("utf-8", "replace")) for message in request.question.messages)
        pictures = FIRST_PICTURE_TOKENS * len(_sizes(request))
        known = self._most.get(kind(request))
        prompt = words + len(request.question.schema.text) + (pictures if known is None else known * 6 // 5)
        each = rates(request.model, prompt) or Rates(0.0, 0.0)
        reply = each.completion * int(request.sampling.get("max_tokens", 4096))
        return each.written * prompt + reply + each.call + each.picture * len(_sizes(request))

    def is_sure(self, request: Request) -> bool:
        """Whether the last bill for such a call was within what had been expected, so that many may be made at once."""
        return kind(request) in self._sure

    def learn(self, request: Request, usage: Usage | None, *, within: bool) -> None:
        """Take note of a bill, and whether it was within what was expected."""
        if usage is not None:
            kind_ = kind(request)
            self._most[kind_] = max(usage.prompt, self._most.get(kind_, 0))
            (self._sure.add if within else self._sure.discard)(kind_)


def kind(request: Request) -> Hashable:
    """What calls have in common whose pictures take the same tokens."""
    return request.model, _sizes(request)


def _sizes(request: Request) -> tuple[tuple[int, int], ...]:
    pictures = (message.picture for message in request.question.messages)
    return tuple(picture.size for picture in pictures if picture is not None)


def _rate(entry: Mapping[str, Any], name: str, prompt_tokens: int) -> float:
    """A rate from the list; for a long prompt the dearest of those that may hold."""
    found = [float(entry.get(name) or 0.0)]
    if prompt_tokens > 100_000:
        tiers = ((re.fullmatch(rf"{name}_above_(\d+)k_tokens", key), rate) for key, rate in entry.items())
        found += [float(rate or 0.0) for tier, rate in tiers if tier and prompt_tokens > 1000 * int(tier[1])]
    return max(found)


def _entry(model: str) -> Mapping[str, Any]:
    """The list's entry: under the model string, or under its end if it is the same provider's."""
    listed: dict[str, dict[str, Any]] = load_litellm().model_cost
    if model in listed:
        return listed[model]
    provider, _, name = model.partition("/")
    entry = listed.get(name, {})
    return entry if str(entry.get("litellm_provider", "")).startswith(provider) else {}
