"""The flags that several commands share, and numbers that are checked as they are read."""

from __future__ import annotations

import contextlib
import inspect
import io
import math
import re
import textwrap
from typing import Annotated, Any, Protocol, TypeVar

import tyro
from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.store import DEFAULT

MOST = 10**9
"""The largest whole number that a flag takes: more than any run needs, and less than what a database refuses."""


class Command(Protocol):
    """A command is a dataclass: its docstring and its fields are the manual, ``run`` does it."""

    def run(self) -> None:
        """Do it, and print what came of it."""


AnyCommand = TypeVar("AnyCommand", bound=Command)


def optional(metavar: str = "", *aliases: str, **options: Any) -> Any:
    """A flag whose help does not tell its default, which is nothing."""
    return arg(metavar=metavar or None, aliases=aliases, help_behavior_hint="", **options)


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


whole_from_1 = _number(int, 1, "a whole number")
whole_from_0 = _number(int, 0, "a whole number")
number_from_0 = _number(float, 0, "a number")

EnvId = Annotated[
    str,
    Positional,
    arg(metavar="ENV_ID", help="The environment; MODULE:ID where a module registers it."),
]
Model = Annotated[str, arg(metavar="M", help="The teacher, as a LiteLLM model string.")]
Prompts = Annotated[
    str | None, optional("P", help="A folder of your own templates, or the name of a bundled prompt set.")
]
Seed = Annotated[int, whole_from_0]
Count = Annotated[int, whole_from_1]
CountOrNone = Annotated[int, whole_from_0]
Concurrency = Annotated[int, whole_from_1, arg(help="Calls in flight at most.")]
BudgetUsd = Annotated[
    float | None, number_from_0, optional("X", help="Spend at most X US dollars; no call is made that may cost more.")
]
BudgetCalls = Annotated[int | None, whole_from_0, optional("N", help="Make at most N calls.")]
StoreFile = Annotated[
    str,
    optional("PATH", help="The store's file; without it $LVLM2P_STORE, else teacher.sqlite in your cache folder."),
]
Json = Annotated[bool, optional(help="Print JSON, for scripts.")]
Force = Annotated[bool, optional(help="Replace files that exist. A store is never replaced.")]
Trust = Annotated[bool, optional(help="Import the modules that the prompt set's examples name. They may run any code.")]

STORE = DEFAULT


def parse(command: type[AnyCommand], prog: str, words: list[str]) -> AnyCommand:
    """Read a command's flags.

    Raises:
        UsageError: if one is missing, unknown, or has a value that it does not take.
        SystemExit: after ``--help``.
    """
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(
                command,
                prog=prog,
                description=textwrap.indent(inspect.cleandoc(command.__doc__ or ""), "  "),  # tyro joins other lines
                args=words,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise UsageError(f"{_unboxed(told.getvalue())}. {prog} --help tells all flags.") from None


def _unboxed(box: str) -> str:
    """The problem that tyro has drawn a box around, in one line, without the manual that follows it."""
    lines = [line.strip("│╭╮╰╯| ") for line in box.splitlines()[1:]]
    parts = re.split(r"^[─-]*$", "\n".join(lines), flags=re.MULTILINE)
    wanted = [
        part for part in map(str.strip, parts) if part and not part.startswith(("For full help", "Argument help"))
    ]
    return "; ".join(" ".join(part.split()) for part in wanted).rstrip(". ")
