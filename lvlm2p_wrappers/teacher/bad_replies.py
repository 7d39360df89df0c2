"""Replies that cannot be used: what is wrong with one, in a line, and the one turn that asks for a better one."""

from __future__ import annotations

from collections.abc import Sequence

from lvlm2p_wrappers.client import Request
from lvlm2p_wrappers.errors import BadReplyError
from lvlm2p_wrappers.records import Reply
from lvlm2p_wrappers.redaction import short

MOST_CHARS = 500
"""How long the description of a bad reply may get: a repair turn quotes it, and each call's row in the log."""

QUOTED_CHARS = 4000
"""How much of a bad reply its repair turn quotes."""


def described(error: BadReplyError | RecursionError, reply: Reply) -> BadReplyError:
    """What is wrong with a reply, said in one short line, whatever the reply holds."""
    if isinstance(error, RecursionError):
        return BadReplyError("the JSON is nested too deep", kind="json")
    cut_off = reply.finish == "length" and error.kind != "truncated"
    problem = f"the reply was cut off at max_tokens: {error}" if cut_off else str(error)
    return BadReplyError(" ".join(problem.split())[:MOST_CHARS], kind="truncated" if cut_off else error.kind)


def repair_turn(request: Request, error: BadReplyError, replies: Sequence[Reply]) -> Request:
    """The request with a turn that quotes what was wrong with its reply; one that was cut off gets twice the room.

    Args:
        request: the question.
        error: what was wrong with the last reply.
        replies: those that it got.

    Raises:
        BadReplyError: if this was a refusal, or the reply to such a turn.
    """
    last = replies[-1]
    if len(replies) == 1 and error.kind != "refusal":
        question = request.question.repair(request.question, last.text[:QUOTED_CHARS], str(error))
        sampling = dict(request.sampling)
        if last.finish == "length" and "max_tokens" in sampling:
            sampling["max_tokens"] *= 2
        return Request(request.model, question, sampling)
    said = f". It said: {short(last.text)}" if error.kind == "json" else ""
    texts = tuple(reply.text for reply in replies)
    raise BadReplyError(f"{request.model}: {error}{said}", kind=error.kind, replies=texts) from None
