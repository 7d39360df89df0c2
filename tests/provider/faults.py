"""Everything that goes wrong between a client and a provider, by name."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .conversation import Outcome, Refused, Seen

INVALID_BYTES = "\ue000"
"""Stands for bytes that are not UTF-8 until a reply is encoded."""


@dataclass(frozen=True)
class Fault:
    """One way in which a request goes wrong.

    Attributes:
        name: its name in `FAULTS`.
        kind: ``"http"``: the provider refuses, with a status. ``"socket"``: the connection fails while or instead of
            answering. ``"reply"``: an ordinary answer with status 200 that says the wrong thing.
        refused: the refusal of an ``"http"`` fault.
        spoil: what a ``"reply"`` fault makes of the model's good outcome.
        headers: what a ``"reply"`` fault adds to the reply's headers.
        fields: what it adds to the fields of the reply's body.
    """

    name: str
    kind: Literal["http", "socket", "reply"]
    refused: Refused | None = None
    spoil: Callable[[Outcome], Outcome] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)


def _http(name: str, status: int, message: str, retry_after: float | None = None) -> Fault:
    return Fault(name, "http", refused=Refused(status, message, retry_after))


def _reported(name: str, report: Callable[[tuple[int, int]], tuple[Any, Any] | None]) -> Fault:
    """A fault of the usage that the provider reports; the reply is good."""
    return Fault(name, "reply", spoil=lambda outcome: replace(outcome, report=report))


def _finish(name: str, **changes: Any) -> Fault:
    return Fault(name, "reply", spoil=lambda outcome: replace(outcome, **changes))


def _text(name: str, rewrite: Callable[[str], str]) -> Fault:
    return Fault(name, "reply", spoil=lambda outcome: replace(outcome, text=rewrite(outcome.text)))


def _probabilities(name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Fault:
    """A fault of the distribution; a reply without one is left as it is."""

    def rewrite(text: str) -> str:
        value = json.loads(text)
        if "probabilities" in value:
            value["probabilities"] = change(value["probabilities"])
        return json.dumps(value)

    return _text(name, rewrite)


def _scaled(total: float) -> Callable[[dict[str, float]], dict[str, float]]:
    return lambda probabilities: {name: value * total for name, value in probabilities.items()}


def _first(value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda probabilities: probabilities | {next(iter(probabilities)): value}


def _without_first(probabilities: dict[str, Any]) -> dict[str, Any]:
    return dict(list(probabilities.items())[1:])


def _wrong_keys(text: str) -> str:
    return json.dumps({f"the_{name}": value for name, value in json.loads(text).items()})


def _with_invalid_bytes(text: str) -> str:
    return text.replace("{", "{" + f'"note": "{INVALID_BYTES}", ', 1)


def _half(outcome: Outcome) -> Outcome:
    return replace(outcome, text=outcome.text[: len(outcome.text) // 2], finish="length")


_ALL = (
    _http("400", 400, "Request contains an invalid argument."),
    _http("401", 401, "The credentials are not valid."),
    _http("401_echoing_key", 401, "Incorrect API key provided: {key}. You can find your API key on your account page."),
    _http("403", 403, "You are not allowed to use this model from your region."),
    _http("404", 404, "The model does not exist."),
    _http("408", 408, "The request took too long to arrive."),
    _http("413", 413, "The request is too large."),
    _http("429", 429, "Rate limit reached. Please slow down."),
    _http("429_retry_after", 429, "Rate limit reached. Please slow down.", retry_after=1.0),
    _http("500", 500, "The server had an error while processing your request."),
    _http(
        "500_in_other_words", 500, "Rate limit reached: quota 429, missing API key, maximum context length, not found"
    ),
    _http("503", 503, "The model is overloaded. Please try again later."),
    _http("529", 529, "Overloaded"),
    _http("escape_sequences", 503, "\x1b]0;owned\x07Try \x1b[31mlater\x1b[0m\u202e.\x9b2J"),
    _http("redirect", 307, "Temporary Redirect"),  # to another host, which would get the request with all its headers
    Fault("gzip_bomb", "socket"),  # a few bytes that mean hundreds of megabytes
    Fault("endless_body", "socket"),  # as fast as they are read
    Fault("html", "socket"),  # a gateway's page in place of the reply, with status 200
    Fault("reset", "socket"),
    Fault("dropped_mid_body", "socket"),
    Fault("time_out", "socket"),
    Fault("slow_drip", "socket"),
    Fault("endless_drip", "socket"),
    _reported("usage_missing", lambda _: None),
    _reported("usage_zero", lambda _: (0, 0)),
    _reported("usage_negative", lambda honest: (-honest[0], -honest[1])),
    _reported("usage_absurd", lambda _: (2**63, 2**63)),
    _reported("usage_beyond_max_tokens", lambda honest: (honest[0], 16_000)),
    Fault(
        "own_price",
        "reply",
        headers={"x-litellm-response-cost": "-10.0"},
        fields={"_hidden_params": {"response_cost": -10.0}, "response_cost": -10.0},
    ),
    _finish("other_model", model="gpt-4.1-nano"),
    _finish("key_as_model", model="models/{key}"),
    _finish("empty_choices", finish="empty"),
    _finish("content_none", finish="none"),
    _finish("refusal", finish="refusal"),
    _finish("content_filter", finish="filter"),
    Fault("truncated", "reply", spoil=_half),
    _finish("thinking_ate_the_tokens", text="", finish="length", thinking_tokens=100_000),
    _text("malformed_json", lambda text: text.replace(":", " ", 1)),
    _text("fenced_json", lambda text: f"```json\n{text}\n```"),
    _text("json_after_prose", lambda text: f"Here is what I see in the picture:\n\n{text}"),
    _text("wrong_keys", _wrong_keys),
    _text("ten_megabytes", lambda _: "and then the agent turns, " * (10 * 2**20 // 26)),
    _text("invalid_utf8", _with_invalid_bytes),
    _probabilities("missing_action", _without_first),
    _probabilities("unknown_action", lambda probabilities: probabilities | {"teleport": 0.25}),
    _probabilities("negative", _first(-0.25)),
    _probabilities("nan", _first(float("nan"))),
    _probabilities("infinity", _first(float("inf"))),
    _probabilities("strings", lambda probabilities: {name: str(value) for name, value in probabilities.items()}),
    _probabilities("sum_0", _scaled(0.0)),
    _probabilities("sum_0.97", _scaled(0.97)),
    _probabilities("sum_1.3", _scaled(1.3)),
    _probabilities("sum_7", _scaled(7.0)),
)

FAULTS: dict[str, Fault] = {fault.name: fault for fault in _ALL}


def random_faults(rate: float, *, seed: int = 0, names: Sequence[str] = tuple(FAULTS)) -> Iterator[Fault | None]:
    """Endless faults: each request fails with probability ``rate``, in one of the ways in ``names``."""
    source = random.Random(seed)
    while True:
        yield FAULTS[source.choice(names)] if source.random() < rate else None


class RateLimit:
    """Refuses with 429 whatever comes faster than ``per_second``, and says when to come back (a token bucket)."""

    def __init__(self, per_second: float, burst: int = 1, *, tells_when: bool = True) -> None:
        self.per_second, self.burst, self.tells_when = per_second, burst, tells_when
        self._level, self._at = float(burst), time.monotonic()

    def __call__(self, seen: Seen) -> Fault | None:  # noqa: ARG002
        now = time.monotonic()
        self._level = min(self.burst, self._level + (now - self._at) * self.per_second)
        self._at = now
        if self._level >= 1:
            self._level -= 1
            return None
        wait = round((1 - self._level) / self.per_second, 3)
        return _http("429", 429, "Rate limit reached. Please slow down.", wait if self.tells_when else None)
