"""How advice came about: what was sent, what came back and what it took, read from the store. No call is made."""

from __future__ import annotations

from collections.abc import Sequence

from lvlm2p_wrappers.client import Request
from lvlm2p_wrappers.records import Answer, Call, Exchange, LoggedCall, Question, View, total
from lvlm2p_wrappers.store import calls
from lvlm2p_wrappers.teacher import Teacher


def conversation(teacher: Teacher, view: View) -> tuple[Exchange, ...]:
    """The stages of a teacher's conversation about a view, as the store knows them.

    Args:
        teacher: who was, or would be, asked: its models, prompts and sampling options say which calls are meant.
        view: what it was shown.

    Returns:
        One exchange for each stage that is known: the second follows from the first one's answer, and is missing
        without it. None of a teacher that is a Python function.

    Raises:
        PromptError: if the prompt set is missing or broken.
    """
    if teacher.function is not None:
        return ()
    prompts = teacher.prompts(view.env_info)
    view = prompts.as_told(view)
    if prompts.options.stages == 1:
        return (_exchange(teacher, prompts.action(view, "")),)
    first = _exchange(teacher, prompts.analysis(view))
    if first.answer is None:
        return (first,)
    return first, _exchange(teacher, prompts.action(view, first.answer))


def _exchange(teacher: Teacher, question: Question) -> Exchange:
    """From the first model with an answer, as the teacher would take it; else from the last one that was asked."""
    requests = teacher.requests(question)
    told = [(request, teacher.store.get(request.key), _last_attempts(teacher, request)) for request in requests]
    answered = [row for row in told if row[1] is not None]
    asked = [row for row in told if row[2]]
    return _told(*(answered or asked[::-1] or told)[0])


def _last_attempts(teacher: Teacher, request: Request) -> list[LoggedCall]:
    """The calls of the last time that a question was put, the last one first: its retries and its repair turn."""
    attempts = []
    for logged in calls(teacher.store, key=request.key):
        attempts.append(logged)
        is_repair = len(logged.call.messages) > len(request.question.messages)
        if logged.call.attempt == 1 and not is_repair:
            break
    return attempts


def _told(request: Request, answer: Answer | None, attempts: Sequence[LoggedCall]) -> Exchange:
    made = [logged.call for logged in attempts]
    last = made[0] if made else Call.of(request.model, request.question, request.sampling, key=request.key)
    replied = [call for call in made if call.reply is not None]
    return Exchange(
        stage=request.question.stage,
        messages=last.messages,
        reply=last.reply,
        answer=answer.text if answer else None,
        model=answer.model if answer else last.answered_model,
        outcome="ok" if answer else last.outcome if made else None,
        problem=last.problem if made and answer is None else "",
        latency_s=sum(call.latency_s for call in made) if made else None,
        prompt_tokens=_sum([call.prompt_tokens for call in replied]),
        completion_tokens=_sum([call.completion_tokens for call in replied]),
        cost_usd=total([call.cost_usd for call in replied]) if replied else None,
        at=attempts[0].at if attempts else None,
    )


def _sum(counts: Sequence[int | None]) -> int | None:
    """The sum of what the provider counted; None if it never did."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
