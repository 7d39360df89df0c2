"""How many tokens a call takes, before any is made: rules of thumb, and what the store says was billed."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lvlm2p_wrappers import store as stores
from lvlm2p_wrappers.cli.estimate.discovery import Range
from lvlm2p_wrappers.prompts import Question
from lvlm2p_wrappers.records import Stage
from lvlm2p_wrappers.store import Store

REPLY_TOKENS = {"analysis": Range(80, 300), "action": Range(80, 250)}
"""Of a reply without thoughts, by stage."""

_CHARACTERS_A_TOKEN = Range(4.2, 3.3)  # the bundled prompts have 3.5 to 4.1 in GPT-4o's tokenizer
_LOGGED_CALLS = 500  # how many of the last calls are looked at


class CallTokens(NamedTuple):
    """What one call takes.

    Attributes:
        prompt: tokens sent, picture included.
        reply: tokens received.
        rule: where the numbers are from, in words.
    """

    prompt: Range
    reply: Range
    rule: str


class PictureRule(NamedTuple):
    """A provider's rule for pictures, for the models whose name matches.

    ``tokens`` takes width and height in pixels.
    """

    models: str
    says: str
    tokens: Callable[[int, int], Range]


def _gemini_2(width: int, height: int) -> Range:
    unit = min(768, max(256, math.floor(min(width, height) / 1.5)))
    tiles = 1 if max(width, height) <= 384 else math.ceil(width / unit) * math.ceil(height / unit)
    return Range(258 * tiles, 258 * tiles)


def _tiles(base: int, tile: int) -> Callable[[int, int], Range]:
    """OpenAI's tiles of 512 pixels; the low end is for ``detail: low``, which it may choose for a small picture."""

    def tokens(width: int, height: int) -> Range:
        scale = min(1.0, 2048 / max(width, height))
        scale = min(scale, 768 / min(width, height))
        return Range(base, base + tile * math.ceil(width * scale / 512) * math.ceil(height * scale / 512))

    return tokens


def _patches(factor: float) -> Callable[[int, int], Range]:
    """OpenAI's patches of 32 pixels, at most 1,536 of them, times a factor that depends on the model."""

    def tokens(width: int, height: int) -> Range:
        patches = min(1536, math.ceil(width / 32) * math.ceil(height / 32))
        return Range(factor * patches, factor * patches)

    return tokens


def _claude(width: int, height: int) -> Range:
    tokens = min(1600, math.ceil(width * height / 750))
    return Range(tokens, tokens)


PICTURE_RULES = (
    PictureRule(r"^embedded/", "258 a picture", lambda _width, _height: Range(258, 258)),
    PictureRule(r"gemini-3", "280 to 1,120 a picture (Google, by media resolution)", lambda _w, _h: Range(280, 1120)),
    PictureRule(r"gemini", "258 up to 384 x 384 pixels, else 258 a tile (Google)", _gemini_2),
    PictureRule(r"gpt-(4\.1|5)-nano", "2.46 a patch of 32 x 32 pixels (OpenAI)", _patches(2.46)),
    PictureRule(r"gpt-(4\.1|5)-mini", "1.62 a patch of 32 x 32 pixels (OpenAI)", _patches(1.62)),
    PictureRule(r"o4-mini", "1.72 a patch of 32 x 32 pixels (OpenAI)", _patches(1.72)),
    PictureRule(r"gpt-4o-mini", "2,833 and 5,667 a tile (OpenAI; without the tiles at low detail)", _tiles(2833, 5667)),
    PictureRule(r"gpt-5", "70 and 140 a tile (OpenAI; without the tiles at low detail)", _tiles(70, 140)),
    PictureRule(r"gpt-4", "85 and 170 a tile (OpenAI; without the tiles at low detail)", _tiles(85, 170)),
    PictureRule(r"\bo[13]\b", "75 and 150 a tile (OpenAI; without the tiles at low detail)", _tiles(75, 150)),
    PictureRule(r"claude", "width x height / 750 (Anthropic)", _claude),
    PictureRule(
        r"", "256 to 1,200 a picture (a guess: no rule is known for this model)", lambda _w, _h: Range(256, 1200)
    ),
)
"""The first one whose pattern is found in the model string holds."""


def tokens_of(model: str, questions: Sequence[Question]) -> CallTokens:
    """What a call takes by rules of thumb, for questions of one stage.

    Args:
        model: the model string.
        questions: typical ones.
    """
    rule = next(rule for rule in PICTURE_RULES if re.search(rule.models, model))
    low = high = 0.0
    for question in questions:
        characters = sum(len(message.text) for message in question.messages)
        pictures = [message.picture.pixels for message in question.messages if message.picture is not None]
        sizes = [rule.tokens(pixels.shape[1], pixels.shape[0]) for pixels in pictures]
        low += characters / _CHARACTERS_A_TOKEN.low + sum(size.low for size in sizes)
        # Some providers count the schema of the reply, too.
        high += (characters + len(question.schema.text)) / _CHARACTERS_A_TOKEN.high + sum(size.high for size in sizes)
    says = (
        f"text: {_CHARACTERS_A_TOKEN.high:g} to {_CHARACTERS_A_TOKEN.low:g} characters a token; picture: {rule.says}; "
        "replies: a guess, without thoughts"
    )
    return CallTokens(Range(low / len(questions), high / len(questions)), REPLY_TOKENS[questions[0].stage], says)


def billed(store: Store, model: str, env_id: str) -> dict[Stage, CallTokens]:
    """What calls took according to the log, by stage: averages over this model's last calls about this environment."""
    counts: dict[Stage, list[tuple[int, int]]] = {"analysis": [], "action": []}
    for logged in itertools.islice(stores.calls(store, model=model, outcome="ok"), _LOGGED_CALLS):
        call = logged.call
        if call.env_id == env_id and call.requested_model == model and call.prompt_tokens and call.completion_tokens:
            counts["action" if call.stage == "action" else "analysis"].append(
                (call.prompt_tokens, call.completion_tokens)
            )
    found: dict[Stage, CallTokens] = {}
    for stage, pairs in counts.items():
        if pairs:
            sent, received = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
            rule = f"as billed for {len(pairs)} calls in the store"
            found[stage] = CallTokens(Range(sent, sent), Range(received, received), rule)
    return found
