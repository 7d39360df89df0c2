"""The flags that several commands share, numbers that are checked as they are read, and the reading itself."""

from __future__ import annotations

import inspect
import math
import textwrap
from typing import Annotated, Any, Protocol, TypeVar

import tyro
from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from lvlm2p_wrappers.command_line import parsed
from lvlm2p_wrappers.records import Scope

MOST = 10**9
"""The largest number that a flag takes: more than any run needs, and less than what a database refuses."""


class Command(Protocol):
    """A dataclass: its docstring and the comments of its fields are the manual, and ``run`` does it."""

    def run(self) -> None:
        """Do it, and print what came of it.

        Raises:
            UsageError: if something that was given cannot be used.
            TeacherError: if the teacher failed; what there is has been printed, and kept.
        """


AnyCommand = TypeVar("AnyCommand", bound=Command)


def optional(metavar: str | None = None, *aliases: str, **options: Any) -> Any:
    """A flag whose help does not tell its default, which is nothing."""
    return arg(metavar=metavar, aliases=aliases, help_behavior_hint="", **options)


def _number(kind: type[int | float], least: int, words: str) -> Any:
    def read(args: list[str]) -> int | float:
        try:
            value = kind(args[0])
        except ValueError:
            value = math.nan
        if not least <= value <= MOST:
            raise ValueError(f"{args[0]!r} is not {words} from {least} to {MOST:,}")
        return value

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="N" if kind is int else "X",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, kind | int),
        str_from_instance=lambda value: [str(value)],
    )


whole_from_0, whole_from_1 = (_number(int, least, "a whole number") for least in (0, 1))
number_from_0 = _number(float, 0, "a number")

Whole = Annotated[int, whole_from_0]
Positive = Annotated[int, whole_from_1]
Switch = Annotated[bool, optional()]

EnvId = Annotated[str, Positional, arg(metavar="ENV_ID", help="the environment; MODULE:ID where a module registers it")]
Model = Annotated[str, arg(metavar="M", help="the teacher, as a LiteLLM model string")]
Prompts = Annotated[str | None, optional("P", help="folder of your own templates, or the name of a bundled set")]
Concurrency = Annotated[int, whole_from_1, arg(help="calls in flight at most")]
BudgetUsd = Annotated[float | None, number_from_0, optional("X", help="spend at most so many US dollars")]
BudgetCalls = Annotated[int | None, whole_from_0, optional("N", help="make at most so many calls")]
BudgetScope = Annotated[Scope, optional(help="whose spending: of this process, or of all that share the store")]
StoreFile = Annotated[
    str,
    optional(
        "PATH", help="the store's file or URL; without it $LVLM2P_STORE, else teacher.sqlite in your cache folder"
    ),
]
Json = Annotated[bool, optional(help="print JSON, for scripts")]
Force = Annotated[bool, optional(help="replace files that exist; a store is never replaced")]


def parse(command: type[AnyCommand], prog: str, words: list[str]) -> AnyCommand:
    """Read a command's flags.

    Raises:
        UsageError: if one is missing, unknown, or has a value that it does not take.
        SystemExit: after ``--help``.
    """
    manual = textwrap.indent(inspect.cleandoc(command.__doc__ or ""), "  ")  # tyro joins lines that are not indented
    markers = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
    return parsed(command, prog=prog, description=manual, args=words, config=markers)
