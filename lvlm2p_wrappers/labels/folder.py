"""The folder of a label set that is made or resumed.

* ``data/labels-00000.parquet``, ...: the rows, ``ROWS`` a file.
* ``README.md``: the card, whose head tells ``datasets`` where the rows are.
* ``.lock``: locked by the process that writes into the folder.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.labels.arrow import load_pyarrow, parquet_file, parquet_files
from lvlm2p_wrappers.labels.card import card
from lvlm2p_wrappers.labels.labelling import LabelRow
from lvlm2p_wrappers.labels.layout import LabelSetInfo, info_of_schema
from lvlm2p_wrappers.output_file import output_file

ROWS = 2000
"""Rows of a file."""

_EVERY_S = 60.0
"""Seconds after which rows that fill no file yet are written all the same."""


class LabelFolder:
    """The folder of a label set that is made or resumed. No other process can open it for writing meanwhile.

    Args:
        path: where it is, or will be.
        info: what its labels have in common.

    Attributes:
        views: the digests of the views that it has labels of.

    Raises:
        UsageError: if the folder holds something else, or labels of another environment, model, prompt set or kind of
            observation; or if another process writes into it.
    """

    def __init__(self, path: Path, info: LabelSetInfo) -> None:
        self.path, self.info = path, info
        self.views: set[str] = set()
        self._schema, self._rows, self._number = info.arrow_schema(), list[dict[str, Any]](), 0
        self._is_written, self._written_at = True, time.monotonic()
        self._usd: list[float | None] = []
        self._models: set[str] = set()
        try:
            if path.exists() and any(path.iterdir()) and not (path / "data").is_dir():
                raise UsageError(f"{path} holds something else than a label set; name another folder with --out")
            (path / "data").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}; name another folder with --out") from None
        self._lock = FileLock(path / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            message = f"{path} is being written by another `lvlm2p label`: wait for its end, or name another with --out"
            raise UsageError(message) from None
        try:
            self._resume()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.write()
        finally:
            self._lock.release()

    def __len__(self) -> int:
        return len(self.views)

    def add(self, row: LabelRow) -> None:
        """Add a row; it is on the disk within a minute of labelling, or when the ``with`` block ends.

        Raises:
            UsageError: if the files cannot be written.
        """
        self._note(row.view, row.cost_usd, row.model)
        values = row._asdict()
        if self.info.observation is None:
            del values["observation"]
        self._rows.append(values)
        self._is_written = False
        if len(self._rows) >= ROWS or time.monotonic() - self._written_at > _EVERY_S:
            self.write()

    def write(self) -> None:
        """Write the rows that are not on the disk yet, and the card.

        Raises:
            UsageError: if that fails.
        """
        if self._is_written:
            return
        pa = load_pyarrow()
        table = pa.Table.from_pylist(self._rows, schema=self._schema)
        with output_file(self._file(), force=True) as fp:
            # Most pictures of a set share rows of pixels, which are found again within a page.
            options = {"compression_level": 3, "data_page_size": 2**24, "use_dictionary": False}
            pa.parquet.write_table(table, fp, compression="zstd", **options)
        if len(self._rows) >= ROWS:
            self._rows, self._number = [], self._number + 1
        text = card(self.info, labels=len(self), models=self._models, usd=self._usd)
        with output_file(self.path / "README.md", force=True) as fp:
            fp.write(text.encode())
        self._is_written, self._written_at = True, time.monotonic()

    def _resume(self) -> None:
        if not any((self.path / "data").iterdir()):
            return
        files = parquet_files(self.path)
        for file in files:
            with parquet_file(file) as opened:
                self._refuse_another(info_of_schema(opened.schema_arrow, file))
                for row in opened.read(columns=["view", "cost_usd", "model"]).to_pylist():
                    self._note(row["view"], row["cost_usd"], row["model"])
                # Only the last file grows.
                rows = opened.read().to_pylist() if opened.metadata.num_rows < ROWS and file == files[-1] else []
        self._number = len(files) - 1
        if rows and files[-1] == self._file():
            self._rows = rows
        while not self._rows and self._file().exists():
            self._number += 1

    def _refuse_another(self, found: LabelSetInfo) -> None:
        mine, other = self.info.model_dump(mode="json"), found.model_dump(mode="json")
        differing = [f"{name} {other[name]!r}, not {mine[name]!r}" for name in mine if mine[name] != other[name]]
        if differing:
            raise UsageError(
                f"{self.path} holds labels with {'; '.join(differing)}. "
                "Give the same arguments to add to it, or name another folder with --out."
            )

    def _note(self, view: str, usd: float | None, model: str) -> None:
        self.views.add(view)
        self._usd.append(usd)
        self._models.add(model)

    def _file(self) -> Path:
        return self.path / "data" / f"labels-{self._number:05}.parquet"
