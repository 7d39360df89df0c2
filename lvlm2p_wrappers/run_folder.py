"""The folder of a training run: made anew, or somebody else's, whose files may be anything."""

from __future__ import annotations

import os
import time
from pathlib import Path

from lvlm2p_wrappers.errors import UsageError

MOST_BYTES = 64 * 2**20
"""The most bytes of a table of a run."""


def new_folder(name: str) -> Path:
    """Make a run's folder. Where another run has begun in the same second, wait for the next one."""
    while True:
        folder = Path("runs", f"{name.replace('/', '-')}__{int(time.time())}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            time.sleep(0.1)
        else:
            return folder


def refuse_odd(file: Path) -> None:
    """Refuse a file that is there and is none of a run's.

    Raises:
        UsageError: if it is a link, a folder, a pipe or a device.
    """
    if os.path.lexists(file) and (file.is_symlink() or not file.is_file()):
        raise UsageError(f"{file} is a link or no plain file; a run has no other, remove it")


def lines_of(file: Path) -> list[str]:
    """The lines of a table of a run; none of what a link points to, which may be outside of the folder.

    Raises:
        UsageError: if it is too large.
    """
    is_there = file.is_file() and not file.is_symlink()
    if is_there and file.stat().st_size > MOST_BYTES:
        raise UsageError(f"{file} is larger than {MOST_BYTES // 2**20} MB; no run's is")
    return file.read_text(errors="replace").splitlines(keepends=True) if is_there else []
