"""How the commands print: tables for people, JSON for scripts, and never a model's control characters."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

# C0 and C1 control characters but for tab and newline, lone surrogates, and the signs that turn text around.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_WIDTH_OF_A_FILE = 160


def plain(text: str) -> str:
    r"""The text without what a terminal would obey: what a model says is shown, never done.

    >>> plain("\x1b[2Jall\tis\nwell\x07")
    '[2Jall\tis\nwell'
    """
    return _UNSAFE.sub("", text)


def console(*, stderr: bool = False) -> Console:
    """A console that takes text as it is: no markup, no emoji codes, no colours of its own."""
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if is_terminal or "COLUMNS" in os.environ else _WIDTH_OF_A_FILE
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


def say(text: str, *, style: str = "", stderr: bool = False) -> None:
    """Print a text as it is, wrapped by the terminal only."""
    console(stderr=stderr).print(Text(plain(text), style=style), soft_wrap=True)


def complain(problem: str) -> None:
    """Print what went wrong to standard error."""
    say(f"lvlm2p: {problem}", stderr=True)


def say_json(value: Any) -> None:
    """Print a value as JSON, every character outside ASCII escaped."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def say_table(
    rows: Iterable[Sequence[str]],
    *,
    header: Sequence[str] = (),
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
    table = Table(box=None, show_header=bool(header), pad_edge=False, header_style="bold")
    rows = list(rows)
    for i in range(len(header) or len(rows[0])):
        title = Text(header[i]) if header else ""
        justify: JustifyMethod = "right" if i in numbers else "left"
        table.add_column(title, justify=justify, no_wrap=i in (*numbers, *whole), overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    console().print(table)


def money(usd: float | None) -> str:
    """US dollars, with as many digits as matter.

    >>> [money(usd) for usd in (None, 0, 0.00012345, 0.0421, 3.14159, 1234.5)]
    ['unpriced', '$0', '$0.00012', '$0.042', '$3.14', '$1,234.50']
    """
    if usd is None:
        return "unpriced"
    if usd == 0:
        return "$0"
    return f"${usd:,.2f}" if usd >= 1 else f"${float(f'{usd:.2g}'):.12f}".rstrip("0")


def duration(seconds: float) -> str:
    """A time in the unit that fits.

    >>> [duration(seconds) for seconds in (4, 90, 5400, 200_000)]
    ['4 s', '1.5 min', '1.5 h', '2.3 days']
    """
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} s"


def moment(at: float) -> str:
    """A time since 1970 as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def size(count: int) -> str:
    """Bytes in the unit that fits.

    >>> [size(count) for count in (0, 2048, 5_300_000)]
    ['0 B', '2.0 kB', '5.3 MB']
    """
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
