"""``lvlm2p report``: an evaluation, or what a store has logged, as one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path

from lvlm2p_wrappers.cli.arguments import Commands, add_command, add_json, at_least_one
from lvlm2p_wrappers.cli.printing import say, say_json, size
from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.report import Report, from_evaluation, from_store, render
from lvlm2p_wrappers.store import DEFAULT, Store, locate

_MORE = """\
The page is one file that needs no network: open it in a browser, pass it on. On top the report card, if it is about an
evaluation; below it every view with its picture, what the teacher said about it, and the whole conversation. What a
model said is shown as text and cannot do anything.

examples:
  lvlm2p report evaluations/MiniGrid-LavaGapS7-v0__gemini-gemini-2.5-flash-lite
  lvlm2p report --store --env 'MiniGrid-Fetch*' --last 50 -o fetch.html"""


def add_parser(commands: Commands) -> None:
    """Add ``report`` to the command line."""
    parser = add_command(
        commands, "report", summary="make one HTML page of an evaluation, or of what a store has logged", more=_MORE
    )
    parser.add_argument("folder", metavar="FOLDER", nargs="?", type=Path, help="what `lvlm2p evaluate` has written")
    parser.add_argument(
        "--store",
        metavar="PATH",
        nargs="?",
        const=DEFAULT,
        help="show a store's calls instead; without PATH $LVLM2P_STORE, else teacher.sqlite in your cache folder",
    )
    parser.add_argument("--env", metavar="GLOB", help="with --store: only these environments, such as 'MiniGrid-Lava*'")
    parser.add_argument(
        "--last", metavar="N", type=at_least_one, help="with --store: the N views asked about last (default: 200)"
    )
    parser.add_argument(
        "-o", "--out", metavar="FILE", type=Path, help="the page (default: FOLDER/report.html, or report.html)"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Make the page and say where it is.

    Raises:
        UsageError: if there is nothing to report on, it is damaged, or the page cannot be written.
    """
    if (args.folder is None) == (args.store is None):
        raise UsageError("say what to report on: the FOLDER of an evaluation, or --store")
    if args.folder is not None:
        if args.env is not None or args.last is not None:
            raise UsageError("--env and --last choose from a store; an evaluation is shown in whole, and has filters")
        report, file = from_evaluation(args.folder), args.out or args.folder / "report.html"
    else:
        report, file = _from_store(args), args.out or Path("report.html")
    page = render(report).encode()
    _write(file, page)
    if args.json:
        say_json({"file": str(file), "views": len(report.labels), "bytes": len(page)})
    else:
        say(f"{file}: {len(report.labels):,} views, {size(len(page))}; open it in a browser")


def _from_store(args: argparse.Namespace) -> Report:
    file = locate(args.store)
    if file is None or not file.exists():  # looking into a store must not make one
        raise UsageError(f"there is no store {file}. A teacher makes it with its first question.")
    with Store(file, read_only=True) as store:
        report = from_store(store, env=args.env or "*", last=args.last or 200)
    if not report.labels:
        raise UsageError(
            f"the store {file} has logged no call" + (f" about {args.env}" if args.env else "") + "; "
            "`lvlm2p store list` tells what it has"
        )
    return report


def _write(file: Path, page: bytes) -> None:
    """Write the page, which is there in whole or not at all."""
    part = file.with_name(file.name + ".part")
    try:
        part.write_bytes(page)
        part.replace(file)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
