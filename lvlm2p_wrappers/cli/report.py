"""``lvlm2p report``: an evaluation, or what a store has logged, as one HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import humanize
from tyro.conf import Positional

from lvlm2p_wrappers import report
from lvlm2p_wrappers.cli.arguments import Force, Json, optional, whole_from_1
from lvlm2p_wrappers.cli.printing import say, say_json
from lvlm2p_wrappers.cli.store import opened
from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.evaluation import inside
from lvlm2p_wrappers.output_file import output_file
from lvlm2p_wrappers.store import DEFAULT


@dataclass(kw_only=True)
class Report:
    """Make one HTML page of an evaluation, or of what a store has logged.

    The page is one file that needs no network: open it in a browser, pass it
    on. On top are the metrics of an evaluation; below them every view with its
    picture, the teacher's answers and the whole conversation. A model's words
    are shown as text and cannot do anything.

    Examples:
      lvlm2p report evaluations/MiniGrid-LavaGapS7-v0__gemini-gemini-2.5-flash-lite
      lvlm2p report --store --env 'MiniGrid-Fetch*' --last 50 -o fetch.html
    """

    folder: Annotated[Path | None, Positional, optional("FOLDER")] = None  # what lvlm2p evaluate has written
    store: Annotated[tuple[str, ...] | None, optional("[PATH]")] = None
    """show a store's calls instead; without PATH those of the default store"""
    env: Annotated[str | None, optional("GLOB")] = None  # with --store: only these environments, as 'MiniGrid-Lava*'
    last: Annotated[int | None, whole_from_1, optional("N")] = None
    """with --store: the N views asked about last; without it 200"""
    out: Annotated[Path | None, optional("FILE", "-o")] = None  # the page; without it FOLDER/report.html or report.html
    force: Force = False
    json: Json = False

    def run(self) -> None:
        """See ``Command``."""
        if (self.folder is None) == (self.store is None):
            raise UsageError("say what to report on: the FOLDER of an evaluation, or --store")
        if self.folder is None:
            found, file = self._of_store(), self.out or Path("report.html")
        elif self.env is not None or self.last is not None:
            raise UsageError("--env and --last choose from a store; an evaluation is shown in whole, and has filters")
        else:
            found, file = report.from_evaluation(self.folder), self.out or inside(self.folder, "report.html")
        page = report.render(found).encode()
        with output_file(file, kind="report", force=self.force) as fp:
            fp.write(page)
        if self.json:
            say_json({"file": str(file), "views": len(found.labels), "bytes": len(page)})
        else:
            say(f"{file}: {len(found.labels):,} views, {humanize.naturalsize(len(page))}; open it in a browser")

    def _of_store(self) -> report.Report:
        if self.store is not None and len(self.store) > 1:
            raise UsageError(f"--store takes one file, not {' and '.join(self.store)}")
        with opened(*(self.store or [DEFAULT])) as store:
            found = report.from_store(store, env=self.env or "*", last=self.last or 200)
            if not found.labels:
                about = f" about {self.env}" if self.env else ""
                raise UsageError(f"the store {store.path} has logged no call{about}; see `lvlm2p store list`")
        return found
