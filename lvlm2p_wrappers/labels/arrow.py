"""pyarrow, imported at first use; and Parquet files that may come from anybody."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.redaction import printable

MAX_BYTES = 2**34
"""A file that says that it holds more, unpacked, is not read."""


@functools.cache
def load_pyarrow() -> Any:
    """pyarrow, with its module ``parquet``.

    Raises:
        UsageError: if it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError("label sets are Parquet files, which need pyarrow: pip install 'lvlm2p[labels]'") from None
    return pyarrow


@contextmanager
def parquet_file(file: Path) -> Iterator[Any]:
    """A Parquet file, opened to be read.

    Raises:
        UsageError: if it is none, is damaged, or says that it holds more than ``MAX_BYTES``; also within the block.
    """
    pa = load_pyarrow()
    try:
        with pa.parquet.ParquetFile(file) as opened:
            groups = (opened.metadata.row_group(i) for i in range(opened.metadata.num_row_groups))
            if sum(group.total_byte_size for group in groups) > MAX_BYTES:
                raise UsageError(f"{file} holds more than {MAX_BYTES // 2**30} GB, unpacked")
            yield opened
    except (pa.ArrowException, OSError) as error:
        why = " ".join(printable(str(error)).split())[:300]
        raise UsageError(f"{file} is no Parquet file, is damaged, or was cut off: {why}") from None


def parquet_files(path: Path) -> list[Path]:
    """The Parquet files that a path means: itself, or those of a label set's folder, in the order of their names.

    Raises:
        UsageError: if there is none, or one is no plain file of its folder.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"{path}: there is no such folder or file; `lvlm2p label` makes label sets")
    files = sorted((path / "data").glob("*.parquet"))
    if not files:
        raise UsageError(f"{path} is no label set: it has no data/*.parquet; `lvlm2p label` makes label sets")
    for file in files:
        is_inside = Path(os.path.realpath(file)).is_relative_to(os.path.realpath(path))
        if not (is_inside and file.is_file()):
            raise UsageError(f"{file} is no plain file of this folder; a label set has no other")
    return files
