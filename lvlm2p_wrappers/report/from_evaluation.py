"""What a report on an evaluation shows."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lvlm2p_wrappers.evaluation import read_folder, read_picture
from lvlm2p_wrappers.report.html import Report


def from_evaluation(folder: Path) -> Report:
    """A report on an evaluation, which need not be complete.

    Raises:
        UsageError: if the folder is not an evaluation's, or a file in it is damaged.
    """
    evaluation, labels, episodes = read_folder(folder)
    return Report(
        title=evaluation.env_id,
        labels=[label.model_copy(update={"env_id": evaluation.env_id}) for label in labels],
        png_of=partial(read_picture, folder),
        evaluation=evaluation,
        episodes=episodes,
    )
