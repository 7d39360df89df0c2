"""Arguments that several commands share, and their types."""

from __future__ import annotations

import argparse
import math
from typing import Any

from lvlm2p_wrappers.store import DEFAULT

Commands = Any  # what argparse's add_subparsers returns has no public name


def add_command(commands: Commands, name: str, *, summary: str, more: str = "") -> argparse.ArgumentParser:
    """Add a parser for a command, whose help begins with its summary and ends with ``more``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add ``--store``."""
    parser.add_argument(
        "--store",
        metavar="PATH",
        default=DEFAULT,
        help="the store's file (default: $LVLM2P_STORE, else teacher.sqlite in your cache folder)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")


def at_least_one(text: str) -> int:
    """A whole number from 1 on, as argparse wants its types.

    >>> at_least_one("20_000")
    20000
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return value


def not_negative(text: str) -> float:
    """A number from 0 on, as argparse wants its types."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return value
