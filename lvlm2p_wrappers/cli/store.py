"""``lvlm2p store``: what a teacher has said, and looking after it."""

from __future__ import annotations

import argparse
import base64
import dataclasses
import fnmatch
import io
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, get_args

from lvlm2p_wrappers import store as stores
from lvlm2p_wrappers.cli.arguments import Commands, add_command, add_json, add_store, at_least_one, not_negative
from lvlm2p_wrappers.cli.printing import moment, money, say, say_json, say_table, size
from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.records import LoggedCall, Message, Outcome
from lvlm2p_wrappers.store import Store, locate

_OUTCOMES = get_args(Outcome)

_MORE = """\
Every answer of a teacher is kept, and never paid for again; every call is logged with what was sent and what came back.

examples:
  lvlm2p store stats
  lvlm2p store list --outcome bad_reply
  lvlm2p store show 17 --picture view.png
  lvlm2p store export labels.jsonl          and, elsewhere, lvlm2p store import labels.jsonl
  lvlm2p store prune --outcome error --yes"""

_EXPORT = """\
One JSON object a line: texts and pictures (PNG, base64), calls, answers. With the file, or with a part of it, anybody
can repeat the run without key or network (offline=True)."""

_PRUNE = """\
Calls that meet every condition are deleted, and with them the answers of that age and model; deleted answers have to be
paid for again. --outcome deletes calls only. Without --yes nothing is deleted, and what would be is said."""


def add_parser(commands: Commands) -> None:
    """Add ``store`` and what it can do to the command line."""
    parser = add_command(
        commands, "store", summary="look into the store of answers and calls, share it, prune it", more=_MORE
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    def add(name: str, run: Any, summary: str, more: str = "") -> argparse.ArgumentParser:
        action = add_command(actions, name, summary=summary, more=more)
        action.set_defaults(run=run)
        add_store(action)
        add_json(action)
        return action

    add("stats", _stats, "say what the store holds, in numbers")

    listing = add("list", _list, "list the newest calls")
    _add_conditions(listing)
    listing.add_argument("--env", metavar="GLOB", help="only calls about these environments, such as 'MiniGrid-Lava*'")
    listing.add_argument("--limit", metavar="N", type=at_least_one, default=20, help="at most so many (default: 20)")

    showing = add("show", _show, "show a whole call: messages, reply, problem, cost")
    showing.add_argument("id", metavar="ID", type=at_least_one, help="the call's number in `lvlm2p store list`")
    showing.add_argument("--picture", metavar="FILE", type=Path, help="save the picture that was sent as a PNG file")

    exporting = add("export", _export, "write the store as JSON Lines", _EXPORT)
    exporting.add_argument("file", metavar="FILE", help="where to; - for standard output")
    exporting.add_argument(
        "--no-pictures", action="store_true", help="leave the pictures out; answers do not need them"
    )

    importing = add("import", _import, "add what an export holds; what the store has already stays as it is")
    importing.add_argument("file", metavar="FILE", help="an export; - for standard input")

    pruning = add("prune", _prune, "delete old or useless calls and answers", _PRUNE)
    pruning.add_argument("--key", metavar="K", help="only the answer to this question, and its calls")
    pruning.add_argument("--older-than-days", metavar="D", type=not_negative, help="only what arrived so long ago")
    _add_conditions(pruning)
    pruning.add_argument("--keep-answers", action="store_true", help="delete calls only: nothing is paid for again")
    pruning.add_argument("--yes", action="store_true", help="really delete")


def _add_conditions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--outcome", choices=_OUTCOMES, help="only calls that ended so")
    parser.add_argument("--model", metavar="M", help="only what this model was asked, or answered")


def _stats(args: argparse.Namespace) -> None:
    with _opened(args) as store:
        found = stores.stats(store)
    uses = [use._asdict() for use in found.models]
    if args.json:
        say_json({**dataclasses.asdict(found), "models": uses})
        return
    spent = sum(use.cost_usd for use in found.models)
    unpriced = sum(use.unpriced for use in found.models)
    rows = [
        ("store", found.path),
        ("size", size(found.size_bytes)),
        ("answers", _tally(found.answers)),
        ("calls", _tally(found.calls)),
        ("spent", money(spent) + (f", and {unpriced:,} calls of unknown price" if unpriced else "")),
    ]
    say_table(rows)
    if found.models:
        say("")
        say_table(
            (
                (
                    use.model,
                    f"{use.calls:,}",
                    f"{use.prompt_tokens:,}",
                    f"{use.completion_tokens:,}",
                    money(use.cost_usd if use.calls > use.unpriced else None),
                )
                for use in found.models
            ),
            header=("model", "calls", "prompt tokens", "reply tokens", "cost"),
            numbers=(1, 2, 3, 4),
        )


def _list(args: argparse.Namespace) -> None:
    with _opened(args) as store:
        found = stores.calls(store, outcome=args.outcome, model=args.model, limit=None if args.env else args.limit)
        wanted = (entry for entry in found if fnmatch.fnmatchcase(entry.call.env_id, args.env or "*"))
        logged = list(itertools.islice(wanted, args.limit))
    if args.json:
        say_json([_as_json(entry, whole=False) for entry in logged])
    elif logged:
        header = ("id", "at", "env", "stage", "model", "outcome", "cost", "problem")
        say_table(map(_row, logged), header=header, numbers=(0, 6), whole=(1, 3, 5))
    else:
        say("no such calls")


def _row(entry: LoggedCall) -> tuple[str, ...]:
    call = entry.call
    status = f"HTTP {call.status}: " if call.status else ""
    problem = " ".join((status + call.problem).split())
    return (
        str(entry.id),
        moment(entry.at),
        call.env_id,
        call.stage,
        call.requested_model,
        call.outcome,
        money(call.cost_usd),
        problem if len(problem) <= 60 else problem[:57] + "...",
    )


def _show(args: argparse.Namespace) -> None:
    with _opened(args) as store:
        entry = stores.call(store, args.id)
        if entry is None:
            raise UsageError(f"the store {store.path} has no call {args.id}; `lvlm2p store list` tells which it has")
    if args.picture is not None:
        _save_picture(entry, args.picture)
    if args.json:
        say_json(_as_json(entry, whole=True))
    else:
        _print_call(entry)


def _save_picture(entry: LoggedCall, file: Path) -> None:
    picture = next((turn.picture for turn in entry.call.messages if turn.picture is not None), None)
    if picture is None:
        raise UsageError(f"call {entry.id} was logged without a picture")
    with _using(file):
        file.write_bytes(picture.png)


def _print_call(entry: LoggedCall) -> None:
    call = entry.call
    sent, received = (
        ("?" if count is None else f"{count:,}") for count in (call.prompt_tokens, call.completion_tokens)
    )
    rows = [
        ("call", f"{entry.id}, {moment(entry.at)}"),
        ("env", call.env_id or "?"),
        ("stage", call.stage),
        ("asked", call.requested_model),
        ("answered", call.answered_model or "nobody"),
        ("outcome", call.outcome + (f", HTTP {call.status}" if call.status else "") + f", attempt {call.attempt}"),
        ("took", f"{call.latency_s:.2f} s"),
        ("tokens", f"{sent} sent, {received} received"),
        ("cost", money(call.cost_usd)),
        ("options", call.options),
        ("key", call.key),
    ]
    say_table(rows)
    for turn in call.messages:
        say(f"\n--- {turn.role} ---", style="bold")
        say(turn.text)
        if turn.picture is not None:
            say(f"[picture, {size(len(turn.picture.png))}: --picture FILE saves it]", style="dim")
    say("\n--- reply ---", style="bold")
    say(call.reply if call.reply is not None else "(none)")
    if call.problem:
        say("\n--- problem ---", style="bold")
        say(call.problem)


def _export(args: argparse.Namespace) -> None:
    to_stdout = args.file == "-"
    with _opened(args) as store:
        if to_stdout:
            lines = stores.export(store, _utf8(sys.stdout), pictures=not args.no_pictures)
        else:
            lines = _export_to(Path(args.file), store, pictures=not args.no_pictures)
    if args.json and not to_stdout:
        say_json({"file": args.file, "lines": lines})
    else:
        say(f"{lines:,} lines written to {'standard output' if to_stdout else args.file}", stderr=to_stdout)


def _export_to(file: Path, store: Store, *, pictures: bool) -> int:
    """Write a file, which is there in whole or not at all."""
    part = file.with_name(file.name + ".part")
    with _using(file):
        try:
            with part.open("w", encoding="utf-8") as fp:
                lines = stores.export(store, fp, pictures=pictures)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
    return lines


def _import(args: argparse.Namespace) -> None:
    if args.file == "-":
        loaded, path = _import_from(_utf8(sys.stdin), args)
    else:
        file = Path(args.file)
        with _using(file), file.open(encoding="utf-8", errors="surrogateescape") as fp:
            loaded, path = _import_from(fp, args)
    if args.json:
        say_json({"store": path, **loaded._asdict()})
    else:
        new = f"{loaded.answers:,} answers and {loaded.calls:,} calls are new"
        say(f"{new} in {path}; {loaded.known:,} were there already")


def _import_from(lines: TextIO, args: argparse.Namespace) -> tuple[stores.Loaded, str]:
    with Store(args.store) as store:
        return stores.load(store, lines), store.path


def _prune(args: argparse.Namespace) -> None:
    conditions = {name: getattr(args, name) for name in ("key", "older_than_days", "model", "outcome")}
    if not any(value is not None for value in conditions.values()):
        raise UsageError("say what to delete: --key, --older-than-days, --model or --outcome")
    with _opened(args, read_only=not args.yes) as store:
        pruned = stores.prune(store, **conditions, keep_answers=args.keep_answers, dry_run=not args.yes)
    answers, calls = pruned.answers, pruned.calls
    freed = {"parts": pruned.parts} if args.yes else {}
    if args.json:
        say_json({"deleted": args.yes, "answers": answers, "calls": calls, **freed})
    elif args.yes:
        say(f"deleted {answers:,} answers, {calls:,} calls, {freed['parts']:,} texts and pictures")
    else:
        say(f"would delete {answers:,} answers and {calls:,} calls; add --yes to do it")


@contextmanager
def _opened(args: argparse.Namespace, *, read_only: bool = True) -> Iterator[Store]:
    """The store, which has to exist: looking into one must not make it.

    Raises:
        UsageError: if it does not.
    """
    file = locate(args.store)
    if file is None or not file.exists():
        raise UsageError(
            f"there is no store {file}. A teacher makes it with its first question; "
            "name another one with --store or LVLM2P_STORE."
        )
    with Store(file, read_only=read_only) as store:
        yield store


@contextmanager
def _using(file: Path) -> Iterator[None]:
    """Make it the user's mistake that a file cannot be read or written."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None


def _utf8(stream: TextIO) -> TextIO:
    """Standard input or output in the encoding of an export, whatever the user's locale."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    return stream


def _tally(counts: dict[str, int]) -> str:
    each = ", ".join(f"{name}: {count:,}" for name, count in counts.items())
    return f"{sum(counts.values()):,}" + (f" ({each})" if each else "")


def _as_json(entry: LoggedCall, *, whole: bool) -> dict[str, Any]:
    call = vars(entry.call) | {"id": entry.id, "at": entry.at}
    if not whole:
        return {name: value for name, value in call.items() if name not in ("messages", "schema_text", "reply")}
    return call | {"messages": [_turn_as_json(turn) for turn in entry.call.messages]}


def _turn_as_json(turn: Message) -> dict[str, str | None]:
    return {
        "role": turn.role,
        "text": turn.text,
        "png": None if turn.picture is None else base64.b64encode(turn.picture.png).decode(),
    }
