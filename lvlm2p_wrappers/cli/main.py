"""The command ``lvlm2p``: finds the command that is meant, runs it, and turns errors into a line and an exit code."""

from __future__ import annotations

import difflib
import importlib.metadata
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TextIO

from lvlm2p_wrappers.cli.arguments import Command, parse
from lvlm2p_wrappers.cli.ask import Ask
from lvlm2p_wrappers.cli.compare import Compare
from lvlm2p_wrappers.cli.doctor import Doctor
from lvlm2p_wrappers.cli.estimate import Estimate
from lvlm2p_wrappers.cli.evaluate import Evaluate
from lvlm2p_wrappers.cli.label import Label
from lvlm2p_wrappers.cli.play import Play
from lvlm2p_wrappers.cli.preview import Preview
from lvlm2p_wrappers.cli.printing import complain, say
from lvlm2p_wrappers.cli.report import Report
from lvlm2p_wrappers.cli.scripts import Scripts
from lvlm2p_wrappers.cli.store import Export, Import, List, Prune, Show, Stats
from lvlm2p_wrappers.errors import TeacherError, UsageError

NARROWEST = 40
"""Columns to print for where the terminal has fewer: tyro wraps its help without an end there."""
WIDTH_OF_A_FILE = 160
"""Columns to print for where there is no terminal."""


class Group(NamedTuple):
    """Commands under one name, and what stands below their list; its first line stands beside the name."""

    commands: Mapping[str, type[Command] | Group]
    about: str


STORE = Group(
    {"stats": Stats, "list": List, "show": Show, "export": Export, "import": Import, "prune": Prune},
    "Look into the store of answers and calls, share it, prune it.",
)
LVLM2P = Group(
    {
        "preview": Preview,
        "ask": Ask,
        "estimate": Estimate,
        "evaluate": Evaluate,
        "compare": Compare,
        "label": Label,
        "report": Report,
        "store": STORE,
        "scripts": Scripts,
        "play": Play,
        "doctor": Doctor,
    },
    """\
Large vision-language models as teachers for small reinforcement-learning agents.
A LiteLLM model string names a teacher, such as gemini/gemini-2.5-flash-lite; its
key is read from the environment (GEMINI_API_KEY). The embedded teacher needs
neither key nor network:

  lvlm2p ask MiniGrid-LavaGapS5-v0 --model embedded/minigrid-planner

exit codes:
  0    done
  1    the teacher or its provider failed, or the output cannot be written
  2    a mistake in what was given: a flag, a name, a file
  130  interrupted (Ctrl-C or SIGTERM); what was answered is kept
  141  whoever read the output has closed it""",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments, by default those of the process.

    Returns:
        The exit code, as ``lvlm2p --help`` lists them.
    """
    if argv is None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        sys.path.append(os.getcwd())  # where my_envs:Maze-v0 is looked for, too  # noqa: PTH109
    sys.stderr = _encodable(sys.stderr) or open(os.devnull, "w")  # noqa: PTH123, SIM115 -- closed: nobody is told
    if _encodable(sys.stdout) is None:
        complain("standard output is closed: nothing can be printed")
        return 1
    os.environ["COLUMNS"] = str(max(shutil.get_terminal_size((WIDTH_OF_A_FILE, 0)).columns, NARROWEST))
    try:
        _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except SystemExit as end:  # after --help
        return int(end.code or 0)
    except UsageError as error:
        complain(str(error))
        return 2
    except TeacherError as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except BrokenPipeError:  # whoever read the output (`| head`) has enough
        _drop_output()
        return 141
    except OSError as error:
        if error.filename is not None:
            complain(f"{error.filename}: {error.strerror}")
            return 2
        complain(f"the output cannot be written: {error.strerror or error}")
        _drop_output()
        return 1
    return 0


def _run(words: list[str]) -> None:
    if words == ["--version"]:
        say(f"lvlm2p {importlib.metadata.version('lvlm2p')}")
        return
    found: type[Command] | Group = LVLM2P
    prog = "lvlm2p"
    while isinstance(found, Group):
        if not words or words[0] in ("-h", "--help"):
            return _explain(prog, found)
        name = words.pop(0)
        if name not in found.commands:
            meant = difflib.get_close_matches(name, found.commands, n=1)
            way_out = f"did you mean {prog} {meant[0]}?" if meant else f"{prog} alone lists what there is."
            raise UsageError(f"there is no command {name!r} of {prog}; {way_out}")
        prog, found = f"{prog} {name}", found.commands[name]
    parse(found, prog, words).run()


def _explain(prog: str, group: Group) -> None:
    say(f"usage: {prog} COMMAND ...\n\ncommands (`{prog} COMMAND --help` explains one):")
    for name, command in group.commands.items():
        about = command.about if isinstance(command, Group) else command.__doc__ or ""
        say(f"  {name:<9} {about.splitlines()[0]}")
    say(f"\n{group.about}")


def _encodable(stream: TextIO | None) -> TextIO | None:
    """The stream, which shows what its encoding does not have as question marks; None if it is closed."""
    if stream is not None and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
    return stream


def _drop_output() -> None:
    """Keep Python from trying at its exit to write what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
