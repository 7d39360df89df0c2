"""The files of a prompt set: found, checked before any is read, and fingerprinted.

A prompt folder may come from a stranger, so nothing outside of it is read: no link may lead out of it, and templates
get files by name from the list made here. A user's folder stands in front of a bundled one.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import tomllib
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lvlm2p_wrappers.errors import PromptError

MOST_FILES = 1_000
MOST_BYTES = 16_000_000  # of all files
MOST_BYTES_OF_FILE = 256_000  # of a file that is read
MOST_DOTS = 1_000  # in a line of a TOML file: reading a name with dots takes time in the square of their number


def bundled_prompts() -> Path:
    """The folder of the bundled sets: inside the package when installed, at the top of a checkout when editable."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_prompts", package.parent / "prompts"):
        if folder.is_dir():
            return folder
    raise PromptError(f"there is no prompt folder beside {package}; reinstall the package")


class PromptFiles:
    """The files of a prompt set by their names, such as ``rules/lava.jinja``; a user's win over bundled ones.

    Args:
        folder: a user's folder, the name of a bundled set, or None for the bundled set that fits.
        family: the bundled set that stands behind a user's folder.

    Attributes:
        folders: where the files are, in this order.
        fingerprint: a short digest of all files; hidden ones do not count.
        is_bundled: whether none of them is a user's.

    Raises:
        PromptError: if the folder does not exist, holds nothing that would be read, or what no prompt set may hold.
    """

    def __init__(self, folder: str | Path | None, family: str) -> None:
        bundled = bundled_prompts()
        first = _folder(folder, bundled, family)
        self.is_bundled = first.parent == bundled
        listed = [_listed(first, trusted=self.is_bundled)]
        self.folders = [first]
        if not self.is_bundled:
            self.folders.append(_base(listed[0].get("set.toml"), bundled, family))
            listed.append(_listed(self.folders[1], trusted=True))
        self._files = ChainMap(*listed)
        self.fingerprint = self._digest()
        if len(self.folders) == 2:
            self._check_names(*self._files.maps)

    def path(self, name: str) -> Path:
        """The file of this name that wins or, where there is none, the last place it could be in."""
        return self._files.get(name, self.folders[-1] / name)

    def text(self, name: str) -> str | None:
        """The text of the file that wins; None if there is none.

        Raises:
            PromptError: if it is too large, or not in UTF-8.
        """
        return _text(self._files[name]) if name in self._files else None

    def tables(self, name: str) -> list[dict[str, Any]]:
        """The content of each TOML file of this name, the bundled one first.

        Raises:
            PromptError: if one is broken.
        """
        return [_toml(files[name]) for files in reversed(self._files.maps) if name in files]

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for files in self._files.maps:
            for name, path in files.items():
                try:
                    digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
                except OSError as error:
                    raise PromptError(f"{path} cannot be read: {error.strerror}") from None
        return digest.hexdigest()[:12]

    def _check_names(self, own: Mapping[str, Path], bundled: Mapping[str, Path]) -> None:
        """Refuse a folder that would change nothing: none of its files, or a misspelt one, has the name of a set's."""
        names = {name for name in bundled if "/" not in name} | {"analysis.schema.json"}
        used = names | {name for name in bundled if "/" in name}
        text = "".join(_text(path) for name, path in own.items() if name in names)
        for name, path in own.items():
            meant = difflib.get_close_matches(name, names, n=1, cutoff=0.8)
            # Whatever has the file beside it is a copy kept aside, and a partial is named where it is included.
            if "/" not in name and name not in names and meant and meant[0] not in own and name not in text:
                raise PromptError(f"{path} is read by nothing; did you mean {meant[0]}?")
        if not used & own.keys():
            raise PromptError(
                f"{self.folders[0]} has none of a prompt set's files, which are {', '.join(sorted(names))}"
            )


def _folder(folder: str | Path | None, bundled: Path, family: str) -> Path:
    """The user's folder, or that of a bundled set."""
    if folder is None:
        return bundled / family
    with contextlib.suppress(OSError):  # a name that is too long for a folder
        if Path(folder).is_dir():
            return Path(folder)
    if str(folder) in _sets(bundled):
        return bundled / str(folder)
    raise PromptError(
        f"there is no prompt folder {str(folder)!r}. Give a folder with your own templates, or one of: "
        f"{', '.join(_sets(bundled))}."
    )


def _base(options: Path | None, bundled: Path, family: str) -> Path:
    """The bundled set behind a user's folder: the one that its options name, else the one that fits."""
    name = family if options is None else _toml(options).get("base", family)
    if name not in _sets(bundled):
        raise PromptError(f"{options}: base: there is no bundled set {name!r}; there are {', '.join(_sets(bundled))}")
    return bundled / str(name)


def _sets(bundled: Path) -> list[str]:
    return sorted(path.name for path in bundled.iterdir() if path.is_dir())


def _listed(folder: Path, *, trusted: bool) -> dict[str, Path]:
    """Every file in a folder by its name, sorted; hidden files and folders are left out."""
    found, size, root = [], 0, os.path.realpath(folder)
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(place, name) for name in [*folders, *names] if not name.startswith(".")):
            if not (trusted or Path(os.path.realpath(path)).is_relative_to(root)):
                raise PromptError(f"{path} is a link out of the folder; put what it points to in its place")
            if path.is_dir():
                continue
            if not path.is_file():
                raise PromptError(f"{path} is no plain file; a prompt set has nothing else")
            found.append(path)
            size += path.stat().st_size
            if len(found) > MOST_FILES or size > MOST_BYTES:
                most = f"{MOST_FILES:,} files or {MOST_BYTES // 1_000_000} MB"
                raise PromptError(f"{folder} holds more than {most}; give the prompt set a folder of its own")
    return {path.relative_to(folder).as_posix(): path for path in sorted(found)}


def _text(path: Path) -> str:
    if path.stat().st_size > MOST_BYTES_OF_FILE:
        raise PromptError(f"{path} has more than {MOST_BYTES_OF_FILE // 1000} kB; a model would not read it all")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PromptError(f"{path} is not in UTF-8: {error}; save it in that encoding") from None


def _toml(path: Path) -> dict[str, Any]:
    text = _text(path)
    if any(line.count(".") > MOST_DOTS for line in text.split("\n")):
        raise PromptError(f"{path} has a line with more than {MOST_DOTS:,} dots; break it")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise PromptError(f"{path} is nested too deep") from None
    except ValueError as error:
        raise error if isinstance(error, PromptError) else PromptError(f"{path}: {error}") from None
