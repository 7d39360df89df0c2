"""``lvlm2p store``: the answers and calls of a store in numbers and one by one, shared, and pruned."""

from __future__ import annotations

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
from lvlm2p_wrappers.cli.arguments import (
    Force,
    Json,
    Positive,
    StoreFile,
    Switch,
    number_from_0,
    optional,
    whole_from_1,
)
from lvlm2p_wrappers.cli.printing import moment, say, say_facts, say_json, say_table
from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.output_file import output_file
from lvlm2p_wrappers.records import LoggedCall, Outcome
from lvlm2p_wrappers.store import DEFAULT, Store, is_there, locate
from lvlm2p_wrappers.units import money

OutcomeFlag = Annotated[Outcome | None, optional(help="only calls that ended so")]
ModelFlag = Annotated[str | None, optional("M", help="only what this model was asked, or answered")]


@contextmanager
def opened(location: str, *, read_only: bool = True) -> Iterator[Store]:
    """The store, which has to exist: looking into one must not make it.

    Raises:
        UsageError: if it does not.
    """
    place = locate(location)
    if not is_there(place):
        raise UsageError(
            f"there is no store {place}. A teacher makes it with its first question; "
            "name another one with --store or LVLM2P_STORE."
        )
    with Store(place, read_only=read_only) as store:
        yield store


@dataclass(kw_only=True)
class Stats:
    """Print what the store holds, in numbers."""

    store: StoreFile = DEFAULT
    json: Json = False

    def run(self) -> None:
        """See ``Command``."""
        with opened(self.store) as store:
            found = stores.stats(store)
        if self.json:
            say_json({**dataclasses.asdict(found), "models": [use._asdict() for use in found.models]})
            return
        unpriced = sum(use.unpriced for use in found.models)
        spent = money(sum(use.cost_usd for use in found.models))
        facts = [
            ("store", found.path),
            ("size", humanize.naturalsize(found.size_bytes)),
            ("answers", _tally(found.answers)),
            ("calls", _tally(found.calls)),
            ("spent", spent + (f", and {unpriced:,} calls of unknown price" if unpriced else "")),
        ]
        if found.shared_calls:
            facts.append(("shared budget", f"{money(found.shared_usd)}, {found.shared_calls:,} calls"))
        say_facts(facts)
        if found.models:
            say("")
            header = ("model", "calls", "prompt tokens", "reply tokens", "cost")
            uses = (
                (
                    use.model,
                    *(f"{n:,}" for n in (use.calls, use.prompt_tokens, use.completion_tokens)),
                    money(use.cost_usd if use.calls > use.unpriced else None),
                )
                for use in found.models
            )
            say_table(uses, header=header, numbers=(1, 2, 3, 4))


@dataclass(kw_only=True)
class List:
    """List the newest calls."""

    outcome: OutcomeFlag = None
    model: ModelFlag = None
    env: Annotated[str | None, optional("GLOB")] = None  # only these environments, such as 'MiniGrid-Lava*'
    limit: Positive = 20  # at most so many calls
    store: StoreFile = DEFAULT
    json: Json = False

    def run(self) -> None:
        """See ``Command``."""
        with opened(self.store) as store:
            found = stores.calls(store, outcome=self.outcome, model=self.model)
            wanted = (entry for entry in found if fnmatch.fnmatchcase(entry.call.env_id, self.env or "*"))
            logged = list(itertools.islice(wanted, self.limit))
        if self.json:
            say_json([_as_json(entry, exclude={"messages", "schema_text", "reply"}) for entry in logged])
        elif logged:
            header = ("id", "at", "env", "stage", "model", "outcome", "cost", "problem")
            say_table(map(_row, logged), header=header, numbers=(0, 6), whole=(1, 3, 5))
        else:
            say("no such calls")


@dataclass(kw_only=True)
class Show:
    """Show a whole call: messages, reply, problem, cost."""

    id: Annotated[int, whole_from_1, Positional, arg(metavar="ID")]  # the call's number in lvlm2p store list
    picture: Annotated[Path | None, optional("FILE")] = None  # save the picture that was sent as a PNG file
    force: Force = False
    store: StoreFile = DEFAULT
    json: Json = False

    def run(self) -> None:
        """See ``Command``."""
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
            say_json(_as_json(entry))
        else:
            _print_call(entry)


@dataclass(kw_only=True)
class Export:
    """Write the store as JSON Lines, for others to import.

    One JSON object a line: texts and pictures (PNG, base64), calls, answers.
    With the file, or with a part of it, anybody can repeat the run without key
    or network (offline=True).
    """

    file: Annotated[str, Positional, arg(metavar="FILE")]  # where to; - for standard output
    no_pictures: Switch = False  # leave the pictures out; answers do not need them
    force: Force = False
    store: StoreFile = DEFAULT
    json: Json = False

    def run(self) -> None:
        """See ``Command``."""
        to_stdout = self.file == "-"
        with opened(self.store) as store:
            if to_stdout:
                lines = stores.export(store, _utf8(sys.stdout), pictures=not self.no_pictures)
            else:
                file = output_file(Path(self.file), kind="export", force=self.force)
                with file as fp, io.TextIOWrapper(fp, encoding="utf-8") as text:
                    lines = stores.export(store, text, pictures=not self.no_pictures)
        if self.json and not to_stdout:
            say_json({"file": self.file, "lines": lines})
        else:
            say(f"{lines:,} lines written to {'standard output' if to_stdout else self.file}", stderr=to_stdout)


@dataclass(kw_only=True)
class Import:
    """Add what an export holds; what the store has already stays as it is."""

    file: Annotated[str, Positional, arg(metavar="FILE")]  # an export; - for standard input
    store: StoreFile = DEFAULT
    json: Json = False

    def run(self) -> None:
        """See ``Command``."""
        if Path(self.file).is_dir():
            raise UsageError(f"{self.file!r} is a folder: name a file that `lvlm2p store export` has written")
        if self.file == "-":
            loaded, path = self._load(_utf8(sys.stdin))
        else:
            with Path(self.file).open(encoding="utf-8", errors="surrogateescape") as lines:
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

    key: Annotated[str | None, optional("K")] = None  # only the answer to this question, and its calls
    older_than_days: Annotated[float | None, number_from_0, optional("X")] = None  # only what arrived so long ago
    outcome: OutcomeFlag = None
    model: ModelFlag = None
    keep_answers: Switch = False  # delete calls only: nothing has to be paid for again
    yes: Switch = False  # really delete
    store: StoreFile = DEFAULT
    json: Json = False

    def run(self) -> None:
        """See ``Command``."""
        conditions = {name: getattr(self, name) for name in ("key", "older_than_days", "model", "outcome")}
        if not any(value is not None for value in conditions.values()):
            raise UsageError("say what to delete: --key, --older-than-days, --model or --outcome")
        with opened(self.store, read_only=not self.yes) as store:
            pruned = stores.prune(store, **conditions, keep_answers=self.keep_answers, dry_run=not self.yes)
        if self.json:
            freed = {"parts": pruned.parts} if self.yes else {}
            say_json({"deleted": self.yes, "answers": pruned.answers, "calls": pruned.calls, **freed})
        elif self.yes:
            say(f"deleted {pruned.answers:,} answers, {pruned.calls:,} calls, {pruned.parts:,} texts and pictures")
        else:
            say(f"would delete {pruned.answers:,} answers and {pruned.calls:,} calls; add --yes to do it")


def _row(entry: LoggedCall) -> tuple[str, ...]:
    call = entry.call
    problem = " ".join(((f"HTTP {call.status}: " if call.status else "") + call.problem).split())
    told = (call.env_id, call.stage, call.requested_model, call.outcome, money(call.cost_usd))
    return str(entry.id), moment(entry.at), *told, problem if len(problem) <= 60 else problem[:57] + "..."


def _print_call(entry: LoggedCall) -> None:
    call = entry.call
    facts = call.model_dump(exclude={"messages", "schema_text", "reply", "problem"})
    facts |= {"latency_s": f"{call.latency_s:.2f}", "cost_usd": money(call.cost_usd)}
    told = {"id": entry.id, "at": moment(entry.at)} | facts
    say_facts((name, "unknown" if value is None else str(value)) for name, value in told.items())
    texts: list[tuple[str, str]] = [(f"{m.role}{', with a picture' * bool(m.picture)}", m.text) for m in call.messages]
    for title, text in (*texts, ("reply", call.reply or "(none)"), ("problem", call.problem or "(none)")):
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


def _as_json(entry: LoggedCall, exclude: set[str] | None = None) -> dict[str, Any]:
    return {"id": entry.id, "at": entry.at} | entry.call.model_dump(mode="json", exclude=exclude)
