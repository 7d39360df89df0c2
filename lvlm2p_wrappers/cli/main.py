"""The command ``lvlm2p``: know what a teacher will cost, and look after what it has said.

One module per command; each has an ``add_parser`` and the function that runs it. Only the package ``cli`` prints.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from lvlm2p_wrappers.cli import ask, compare, estimate, evaluate, preview, report, store
from lvlm2p_wrappers.cli.printing import complain
from lvlm2p_wrappers.errors import TeacherError, UsageError

__all__ = ["main"]

_COMMANDS = (preview, ask, estimate, evaluate, compare, report, store)

_DESCRIPTION = """\
Large vision-language models as teachers for small reinforcement-learning agents.

A teacher is named by a LiteLLM model string, such as gemini/gemini-2.5-flash-lite; its key is read from the
environment (GEMINI_API_KEY). embedded/minigrid-planner needs neither key nor network."""

_EPILOG = """\
lvlm2p COMMAND --help tells all about a command.

exit codes:
  0    done
  1    the teacher or its provider failed
  2    a mistake in what was given: a flag, a name, a file
  130  interrupted (Ctrl-C)"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments, by default those of the process.

    Returns:
        The exit code: 0, 1 for an error at run time, 2 for the user's mistake, 130 for Ctrl-C.
    """
    args = _parser().parse_args(argv)
    try:
        args.run(args)
        sys.stdout.flush()
    except UsageError as error:
        complain(str(error))
        return 2
    except TeacherError as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except BrokenPipeError:
        # Whoever read the output (`| head`) has enough. Python would complain at exit about what cannot be flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lvlm2p",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"lvlm2p {importlib.metadata.version('lvlm2p')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser
