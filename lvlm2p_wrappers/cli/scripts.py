"""``lvlm2p scripts``: the training scripts, copied to where they can be run and changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lvlm2p_wrappers.cli.arguments import Force, Json
from lvlm2p_wrappers.cli.printing import say, say_facts, say_json
from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.output_file import output_file


@dataclass(kw_only=True)
class Scripts:
    """Copy the training scripts into a folder, to run and to change.

    Each script is one file that imports nothing of ours but public names of
    lvlm2p_wrappers. They need the extra algos: pip install 'lvlm2p[algos]'.

    Examples:
      lvlm2p scripts my_experiment
      python my_experiment/ppo_lvlm2p_replay.py --total-timesteps 12000
    """

    folder: Annotated[Path, Positional, arg(metavar="FOLDER", help="it is made where it is missing")]
    force: Force = False
    json: Json = False

    def run(self) -> None:
        """See ``Command``."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.folder}: {error.strerror}: give a folder that can be written") from None
        scripts = sorted(bundled_scripts().glob("*.py"))
        copies = [self.folder / script.name for script in scripts]
        if there := [str(copy) for copy in copies if copy.exists() and not self.force]:
            raise UsageError(f"{there[0]} exists: give another folder, or --force to replace it")
        for script, copy in zip(scripts, copies, strict=True):
            with output_file(copy, force=self.force) as fp:
                fp.write(script.read_bytes())
        if self.json:
            say_json([str(copy) for copy in copies])
        else:
            say_facts((str(copy), _about(script)) for script, copy in zip(scripts, copies, strict=True))
            say("\n`python FILE --help` lists the flags of each.")


def bundled_scripts() -> Path:
    """The folder of the scripts: inside the package when installed, at the top of a checkout when editable."""
    package = Path(__file__).resolve().parents[1]
    return next(folder for folder in (package / "_algos", package.parent / "algos") if folder.is_dir())


def _about(script: Path) -> str:
    """The first line of a script's docstring."""
    return script.read_text(encoding="utf-8").partition("\n")[0].strip('"')
