"""Where a store is: what a location that a user gives means."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from lvlm2p_wrappers.errors import StoreError

DEFAULT = "default"


def locate(location: str | Path | None) -> Path | None:
    """Return the file that a store's location means; None for a store in memory.

    Raises:
        StoreError: it cannot be the name of a file.
    """
    if location is None:
        return None
    if location == DEFAULT:
        location = os.environ.get("LVLM2P_STORE") or platformdirs.user_cache_path("lvlm2p") / "teacher.sqlite"
    if "://" in str(location):
        raise StoreError(f"the store {str(location)!r} is a URL: give the path of a file, or None to keep nothing.")
    try:
        if "\0" in str(location):
            raise ValueError("it has a zero byte")
        file = Path(location).expanduser().absolute()
        is_folder = file.is_dir()
    except (OSError, ValueError, RuntimeError) as problem:  # it may be too long, or name an unknown user's home
        raise StoreError(f"the store {str(location)[:400]!r} is no path of a file: {problem}.") from None
    if is_folder:
        raise StoreError(
            f"the store {file} is a folder: give the path of a file in it, such as {file / 'teacher.sqlite'}."
        )
    return file
