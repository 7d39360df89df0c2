"""What the commands print: text and tables for people, JSON for scripts, and nothing that a terminal obeys."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from lvlm2p_wrappers.redaction import printable


class _Console(Console):
    """Leaves it to ``main`` what happens when nobody reads on; rich would end the process with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """A console that takes text as it is: no markup, no emoji codes, no colours of its own."""
    return _Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def say(text: str, *, style: str = "", stderr: bool = False) -> None:
    """Print a text as it is, wrapped by the terminal only."""
    console(stderr=stderr).print(Text(printable(text), style=style), soft_wrap=True)


def complain(problem: str) -> None:
    """Print what went wrong to standard error, in one line."""
    say(f"lvlm2p: {' '.join(problem.split())}", stderr=True)


def say_json(value: Any) -> None:
    """Print a value as JSON, every character outside ASCII escaped."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def say_facts(facts: Iterable[tuple[str, str]], *, indent: str = "") -> None:
    """Print named facts below each other, each on a line of its own, so that a path can be copied."""
    facts = list(facts)
    width = max((len(name) for name, _ in facts), default=0)
    for name, told in facts:
        say(f"{indent}{name:<{width}}  {told}")


def say_table(
    rows: Iterable[Sequence[str]],
    *,
    header: Sequence[str],
    numbers: Sequence[int] = (),
    whole: Sequence[int] = (),
) -> None:
    """Print a table.

    Args:
        rows: the cells' texts.
        header: the columns' titles.
        numbers: which columns hold numbers; they are set to the right, and whole.
        whole: which other columns are never broken into lines, however narrow the terminal.
    """
    table = Table(box=None, show_header=any(header), pad_edge=False, header_style="bold")
    for i, title in enumerate(header):
        justify: JustifyMethod = "right" if i in numbers else "left"
        table.add_column(Text(title), justify=justify, no_wrap=i in (*numbers, *whole), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console().print(table)


def moment(at: float) -> str:
    """A time since 1970 as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
