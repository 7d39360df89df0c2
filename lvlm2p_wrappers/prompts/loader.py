"""Where a prompt set's files are: a user's folder stands in front of a bundled one."""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lvlm2p_wrappers.errors import PromptError


def bundled_prompts() -> Path:
    """The folder of the bundled sets: inside the package when installed, at the top of a checkout when editable."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_prompts", package.parent / "prompts"):
        if folder.is_dir():
            return folder
    raise PromptError(f"there is no prompt folder beside {package}; reinstall the package")


def folders_of(folder: str | Path | None, family: str) -> list[Path]:
    """Where a set's files are looked for, in this order.

    Args:
        folder: a user's folder, the name of a bundled set, or None for the bundled set that fits.
        family: the bundled set that stands behind a user's folder.

    Raises:
        PromptError: if the folder does not exist, or is a user's with nothing in it that would be read.
    """
    bundled = bundled_prompts()
    if folder is None:
        return [bundled / family]
    if Path(folder).is_dir():
        _check(Path(folder), bundled / family)
        return [Path(folder), bundled / family]
    if (bundled / str(folder)).is_dir():
        return [bundled / str(folder)]
    sets = ", ".join(sorted(path.name for path in bundled.iterdir() if path.is_dir()))
    raise PromptError(
        f"there is no prompt folder {str(folder)!r}. Give a folder with your own templates, or one of: {sets}."
    )


def _check(folder: Path, bundled: Path) -> None:
    """Refuse a folder that would change nothing: none of its files, or a misspelt one, has the name of a set's."""
    names = {path.name for path in bundled.iterdir()} | {"analysis.schema.json"}
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    text = "".join(path.read_text(encoding="utf-8", errors="replace") for path in files if path.name in names)
    for file in files:
        meant = difflib.get_close_matches(file.name, names, n=1, cutoff=0.8)
        # Whatever has the file beside it is a copy kept aside, and a partial is named where it is included.
        if file.name not in names and meant and not (folder / meant[0]).exists() and file.name not in text:
            raise PromptError(f"{file} is read by nothing; did you mean {meant[0]}?")
    if not any((folder / name).exists() for name in names):
        raise PromptError(f"{folder} has none of a prompt set's files, which are {', '.join(sorted(names))}")


def find(folders: Sequence[Path], name: str) -> Path:
    """The file of this name that wins, or, where there is none, the last place that it could be in."""
    return next((folder / name for folder in folders if (folder / name).is_file()), folders[-1] / name)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; none if there is no such file.

    Raises:
        PromptError: if it is broken.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PromptError(f"{path}: {error}") from None


def fingerprint(folders: Sequence[Path]) -> str:
    """A short digest of every file in some folders, names included."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
