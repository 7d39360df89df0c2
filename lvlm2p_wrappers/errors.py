"""The errors of the package: the user's mistake, the model's bad reply, the transport, the budget."""

from __future__ import annotations

import copy
from typing import TypeVar

from lvlm2p_wrappers.redaction import printable, without_keys


class TeacherError(Exception):
    """Anything that keeps a teacher from answering; its message holds no key and nothing that steers a terminal."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(without_keys(message)))


class UsageError(TeacherError, ValueError):
    """The user can mend it: a value that was given cannot work."""


class ModelError(UsageError):
    """The model string cannot be used: unknown provider, retired model, missing or refused key."""


class PromptError(UsageError):
    """A prompt set is missing, or one of its files is broken."""


class StoreError(UsageError):
    """The store cannot be opened, or was written by a newer version."""


class BadReplyError(TeacherError):
    """The model answered, and its answer cannot be used.

    Attributes:
        replies: every raw reply of the conversation that failed, oldest first.
        kind: one word for what is wrong: ``"json"``, ``"too_long"``, ``"keys"``, ``"number"``, ``"sum"``,
            ``"refusal"``, ``"truncated"`` or ``"empty"``.
        remembered: whether another row's question failed, and none was asked for this one.
    """

    # With a default, so that worker processes can send the error back (pickle gives the message only).
    def __init__(
        self, message: str, *, kind: str = "invalid", replies: tuple[str, ...] = (), remembered: bool = False
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.replies = replies
        self.remembered = remembered


class TransportError(TeacherError):
    """The request did not bring an answer, after its retries.

    Attributes:
        status: the HTTP status, where there was one.
        remembered: whether nothing was asked: another row's question failed, or the teacher is offline.
    """

    def __init__(self, message: str, *, status: int | None = None, remembered: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.remembered = remembered


class BudgetError(TeacherError):
    """The question was not asked: the budget is spent, or the run is over."""


Failed = TypeVar("Failed", bound=BadReplyError | TransportError)


def repeated(error: Failed) -> Failed:
    """The same error for another row: nothing was asked for it, and nothing new failed."""
    again = copy.copy(error)
    again.__traceback__ = None
    again.remembered = True
    return again
