"""``lvlm2p store``: the answers and calls of a store in numbers and one by one, shared, and pruned."""

from __future__ import annotations

import base64
import dataclasses
import fnmatch
import io
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO

import humanize
from tyro.conf import Positional, arg

from lvlm2p_wrappers import store as stores
from lvlm2p_wrappers.cli.arguments import STORE, Count, Force, Json, StoreFile, number_from_0, optional, whole_from_1
from lvlm2p_wrappers.cli.printing import moment, say, say_facts, say_json, say_table
from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.output_file import output_file
from lvlm2p_wrappers.records import LoggedCall, Outcome
from lvlm2p_wrappers.store import Store, locate
from lvlm2p_wrappers.units import money

OutcomeFlag = Annotated[Outcome | None, optional(help="Only calls that ended so.")]
ModelFlag = Annotated[str | None, optional("M", help="Only what this model was asked, or answered.")]


@dataclass(kw_only=True)
class Stats:
    """Print what the store holds, in numbers."""

    store: StoreFile = STORE
    json: Json = False

    def run(self) -> None:
        """Print answers, calls, tokens and cost.

        Raises:
            UsageError: if there is no such store.
        """
        with opened(self.store) as store:
            found = stores.stats(store)
        if self.json:
            say_json({**dataclasses.asdict(found), "models": [use._asdict() for use in found.models]})
            return
        unpriced = sum(use.unpriced for use in found.models)
        spent = money(sum(use.cost_usd for use in found.models))
        rows = [
            ("store", found.path),
            ("size", humanize.naturalsize(found.size_bytes)),
            ("answers", _tally(found.answers)),
            ("calls", _tally(found.calls)),
            ("spent", spent + (f", and {unpriced:,} calls of unknown price" if unpriced else "")),
        ]
        say_facts(rows)
        if found.models:
            say("")
            uses = [
                (
                    use.model,
                    *(f"{count:,}" for count in (use.calls, use.prompt_tokens, use.completion_tokens)),
                    money(use.cost_usd if use.calls > use.unpriced else None),
                )
                for use in found.models
            ]
            header = ("model", "calls", "prompt tokens", "reply tokens", "cost")
            say_table(uses, header=header, numbers=(1, 2, 3, 4))


@dataclass(kw_only=True)
class List:
    """List the newest calls."""

    outcome: OutcomeFlag = None
    model: ModelFlag = None
    env: Annotated[str | None, optional("GLOB")] = None
    """Only calls about these environments, such as 'MiniGrid-Lava*'."""
    limit: Count = 20
    """At most so many."""
    store: StoreFile = STORE
    json: Json = False

    def run(self) -> None:
        """Print a line a call.

        Raises:
            UsageError: if there is no such store.
        """
        with opened(self.store) as store:
            found = stores.calls(store, outcome=self.outcome, model=self.model)
            wanted = (entry for entry in found if fnmatch.fnmatchcase(entry.call.env_id, self.env or "*"))
            logged = list(itertools.islice(wanted, self.limit))
        if self.json:
            say_json([_as_json(entry, whole=False) for entry in logged])
        elif logged:
            header = ("id", "at", "env", "stage", "model", "outcome", "cost", "problem")
            say_table(map(_row, logged), header=header, numbers=(0, 6), whole=(1, 3, 5))
        else:
            say("no such calls")


@dataclass(kw_only=True)
class Show:
    """Show a whole call: messages, reply, problem, cost."""

    id: Annotated[int, whole_from_1, Positional, arg(metavar="ID")]
    """The call's number in `lvlm2p store list`."""
    picture: Annotated[Path | None, optional("FILE")] = None
    """Save the picture that was sent as a PNG file."""
    force: Force = False
    store: StoreFile = STORE
    json: Json = False

    def run(self) -> None:
        """Print the call.

        Raises:
            UsageError: if there is no such store or call, or the picture cannot be saved.
        """
        with opened(self.store) as store:
            entry = stores.call(store, self.id)
            if entry is None:
                raise UsageError(f"the store {store.path} has no call {self.id}; see `lvlm2p store list`")
        if self.picture is not None:
            picture = next((m.picture for m in entry.call.messages if m.picture is not None), None)
            if picture is None:
                raise UsageError(f"call {entry.id} was logged without a picture")
            with output_file(self.picture, force=self.force) as fp:
                fp.write(picture.png)
        if self.json:
            say_json(_as_json(entry, whole=True))
        else:
            _print_call(entry)


@dataclass(kw_only=True)
class Export:
    """Write the store as JSON Lines, for others to import.

    One JSON object a line: texts and pictures (PNG, base64), calls, answers.
    With the file, or with a part of it, anybody can repeat the run without key
    or network (offline=True).
    """

    file: Annotated[str, Positional, arg(metavar="FILE")]
    """Where to; - for standard output."""
    no_pictures: Annotated[bool, optional()] = False
    """Leave the pictures out; answers do not need them."""
    force: Force = False
    store: StoreFile = STORE
    json: Json = False

    def run(self) -> None:
        """Write the file.

        Raises:
            UsageError: if there is no such store, or the file cannot be written.
        """
        with opened(self.store) as store:
            if self.file == "-":
                lines = stores.export(store, _utf8(sys.stdout), pictures=not self.no_pictures)
            else:
                with (
                    output_file(Path(self.file), kind="export", force=self.force) as fp,
                    io.TextIOWrapper(fp, encoding="utf-8") as text,
                ):
                    lines = stores.export(store, text, pictures=not self.no_pictures)
        if self.json and self.file != "-":
            say_json({"file": self.file, "lines": lines})
        else:
            to_stdout = self.file == "-"
            say(f"{lines:,} lines written to {'standard output' if to_stdout else self.file}", stderr=to_stdout)


@dataclass(kw_only=True)
class Import:
    """Add what an export holds; what the store has already stays as it is."""

    file: Annotated[str, Positional, arg(metavar="FILE")]
    """An export; - for standard input."""
    store: StoreFile = STORE
    json: Json = False

    def run(self) -> None:
        """Read the file.

        Raises:
            UsageError: if the file cannot be read, or is no export.
        """
        if self.file == "-":
            loaded, path = self._load(_utf8(sys.stdin))
        else:
            file = Path(self.file)
            if file.is_dir():
                raise UsageError(f"{self.file!r} is a folder: name a file that `lvlm2p store export` has written")
            with file.open(encoding="utf-8", errors="surrogateescape") as lines:
                loaded, path = self._load(lines)
        if self.json:
            say_json({"store": path, **loaded._asdict()})
        else:
            new = f"{loaded.answers:,} answers and {loaded.calls:,} calls are new"
            say(f"{new} in {path}; {loaded.known:,} were there already")

    def _load(self, lines: TextIO) -> tuple[stores.Loaded, str]:
        with Store(self.store) as store:
            return stores.load(store, lines), store.path


@dataclass(kw_only=True)
class Prune:
    """Delete old or useless calls and answers.

    Calls that meet every condition are deleted, and with them the answers of
    that age and model; deleted answers have to be paid for again. --outcome
    deletes calls only. Without --yes nothing is deleted: it is only counted.

    Examples:
      lvlm2p store prune --outcome error --yes
      lvlm2p store prune --older-than-days 90 --keep-answers
    """

    key: Annotated[str | None, optional("K")] = None
    """Only the answer to this question, and its calls."""
    older_than_days: Annotated[float | None, number_from_0, optional("D")] = None
    """Only what arrived so long ago."""
    outcome: OutcomeFlag = None
    model: ModelFlag = None
    keep_answers: Annotated[bool, optional()] = False
    """Delete calls only: nothing has to be paid for again."""
    yes: Annotated[bool, optional()] = False
    """Really delete."""
    store: StoreFile = STORE
    json: Json = False

    def run(self) -> None:
        """Delete, or count what would be deleted.

        Raises:
            UsageError: if there is no such store, or no condition.
        """
        conditions = {name: getattr(self, name) for name in ("key", "older_than_days", "model", "outcome")}
        if not any(value is not None for value in conditions.values()):
            raise UsageError("say what to delete: --key, --older-than-days, --model or --outcome")
        with opened(self.store, read_only=not self.yes) as store:
            pruned = stores.prune(store, **conditions, keep_answers=self.keep_answers, dry_run=not self.yes)
        answers, calls = pruned.answers, pruned.calls
        freed = {"parts": pruned.parts} if self.yes else {}
        if self.json:
            say_json({"deleted": self.yes, "answers": answers, "calls": calls, **freed})
        elif self.yes:
            say(f"deleted {answers:,} answers, {calls:,} calls, {freed['parts']:,} texts and pictures")
        else:
            say(f"would delete {answers:,} answers and {calls:,} calls; add --yes to do it")


@contextmanager
def opened(location: str, *, read_only: bool = True) -> Iterator[Store]:
    """The store, which has to exist: looking into one must not make it.

    Raises:
        UsageError: if it does not.
    """
    file = locate(location)
    if file is None or not file.exists():
        raise UsageError(
            f"there is no store {file}. A teacher makes it with its first question; "
            "name another one with --store or LVLM2P_STORE."
        )
    with Store(file, read_only=read_only) as store:
        yield store


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


def _print_call(entry: LoggedCall) -> None:
    call = entry.call
    sent, received = ("?" if n is None else f"{n:,}" for n in (call.prompt_tokens, call.completion_tokens))
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
    say_facts(rows)
    texts: list[tuple[str, str]] = [(m.role, m.text) for m in call.messages]
    texts += [("reply", call.reply)] if call.reply is not None else []
    texts += [("problem", call.problem)] if call.problem else []
    for title, text in texts:
        say(f"\n--- {title} ---", style="bold")
        say(text)


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
    pictures = [None if m.picture is None else base64.b64encode(m.picture.png).decode() for m in entry.call.messages]
    messages = [
        {"role": m.role, "text": m.text, "png": png} for m, png in zip(entry.call.messages, pictures, strict=True)
    ]
    return call | {"messages": messages}
