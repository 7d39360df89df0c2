"""A label set, read and checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.labels.arrow import load_pyarrow, parquet_file, parquet_files
from lvlm2p_wrappers.labels.layout import LabelSetInfo, info_of_schema
from lvlm2p_wrappers.png import png_size
from lvlm2p_wrappers.records import View
from lvlm2p_wrappers.saved_picture import SavedPicture
from lvlm2p_wrappers.views import vector_viewer

_ROUNDING = 1e-3
"""How far from 1 the probabilities of a row may add up: they are float32."""


def read_labels(folder: str | Path) -> LabelSet:
    """Read a label set that ``lvlm2p label`` has made, and check every row. No model is asked.

    Args:
        folder: the set's folder, or one of its Parquet files.

    Raises:
        UsageError: if it is no label set, is damaged or cut off, or holds what is no label: probabilities that are not
            finite or do not add up to 1, a picture that is none. The file and the row are named.

    Example:
        >>> labels = read_labels("label_sets/MiniGrid-LavaGapS7-v0")  # doctest: +SKIP
        >>> labels.probs.shape, labels.observations.shape  # doctest: +SKIP
        ((300, 7), (300, 58, 11, 11))
    """
    pa = load_pyarrow()
    tables, infos = [], []
    for file in parquet_files(Path(folder)):
        with parquet_file(file) as opened:
            infos.append(info_of_schema(opened.schema_arrow, file))
            tables.append(opened.read())
        if infos[-1] != infos[0]:
            raise UsageError(f"{file} holds labels of another kind than the files before it: it belongs to another set")
        _check(tables[-1], infos[-1], file)
    return LabelSet(infos[0], pa.concat_tables(tables))


class LabelSet:
    """Labels with what they are of; :func:`read_labels` makes it.

    Args:
        info: what all labels have in common.
        table: an Arrow table, its rows checked.

    Attributes:
        info: what all labels have in common.
        table: the rows as an Arrow table; the set's README.md tells its columns.
        probs: (labels, actions) float32: the distributions.
    """

    def __init__(self, info: LabelSetInfo, table: Any) -> None:
        self.info, self.table = info, table
        self.probs: NDArray[np.float32] = _probs(table, info)

    def __len__(self) -> int:
        return len(self.probs)

    @property
    def observations(self) -> NDArray[Any]:
        """(labels, ...): what a student sees, with the shape and dtype of its observation space.

        Raises:
            UsageError: if the set was made without them.
        """
        kind = self.info.observation
        if kind is None:
            raise UsageError(
                "the label set holds no observations of a student: make it with `lvlm2p label --observation`"
            )
        content = b"".join(self.table["observation"].to_pylist())
        return np.frombuffer(content, kind.dtype).reshape(len(self), *kind.shape)

    def views(self) -> Iterator[View]:
        """What the teacher was shown and told, in the order of the rows."""
        names = ("image", "earlier_images", "mission", "carrying", "history")
        for batch in self.table.select(names).to_batches(max_chunksize=256):
            for row in batch.to_pylist():
                pictures = [SavedPicture(image["bytes"]) for image in (*row["earlier_images"], row["image"])]
                told = (row["mission"], row["carrying"], tuple(row["history"]))
                yield View(pictures, self.info.actions, *told, self.info.env_id, self.info.family)

    def for_student(self, envs: gym.vector.VectorEnv[Any, Any, Any]) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Observations and distributions, from which a student of these environments can learn.

        Args:
            envs: the student's environments.

        Returns:
            (labels, ...) observations as in the environments' observation space, and (labels, actions) float32.

        Raises:
            UsageError: if the set's actions or observations are not those of the environments.
        """
        actions, space = vector_viewer(envs).env_infos[0].actions, envs.single_observation_space
        if actions != self.info.actions:
            raise UsageError(
                f"the label set is of the actions {', '.join(self.info.actions)} ({self.info.env_id}), "
                f"and the environment has {', '.join(actions)}"
            )
        observations = self.observations
        if observations.shape[1:] != space.shape or observations.dtype != space.dtype:
            raise UsageError(
                f"the label set holds observations of shape {observations.shape[1:]} and dtype {observations.dtype} "
                f"({self.info.env_id}), and the student sees {space.shape}, {space.dtype}"
            )
        return observations, self.probs


def _probs(table: Any, info: LabelSetInfo) -> NDArray[np.float32]:
    flat = table["probs"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(table.num_rows, len(info.actions))


def _check(table: Any, info: LabelSetInfo, file: Path) -> None:
    """Refuse what is no label.

    Raises:
        UsageError: naming the first row that is none.
    """
    number = 0
    for batch in table.to_batches(max_chunksize=256):
        for row in batch.to_pylist():
            if problem := _problem_of(row, info):
                raise UsageError(f"{file}, row {number}: {problem}; the file is damaged, or edited")
            number += 1


def _problem_of(row: dict[str, Any], info: LabelSetInfo) -> str:
    missing = [name for name in row if row[name] is None and name != "cost_usd"]
    if missing:
        return f"{missing[0]} is missing"
    if (row["env_id"], tuple(row["actions"]), row["prompts"]) != (info.env_id, info.actions, info.fingerprint):
        return "it is of another environment, other actions or another prompt set than the file says"
    probs = [-1.0 if p is None else p for p in row["probs"]]
    if len(probs) != len(info.actions):
        return f"it has {len(probs)} probabilities for {len(info.actions)} actions"
    if not (all(p >= 0 for p in probs) and abs(sum(probs) - 1) < _ROUNDING):  # false for NaN and infinity, too
        return f"{[round(p, 3) for p in row['probs']]} is no distribution"
    if info.observation is not None:
        size = int(np.prod(info.observation.shape, dtype=np.int64)) * np.dtype(info.observation.dtype).itemsize
        if len(row["observation"]) != size:
            return f"its observation has {len(row['observation'])} bytes, not {size}"
    try:
        for image in (*row["earlier_images"], row["image"]):
            png_size((image or {}).get("bytes") or b"")
    except ValueError as error:
        return f"its picture cannot be used: {error}"
    return ""
