"""What a report is made from."""

from __future__ import annotations

from pathlib import Path

from lvlm2p_wrappers.report.folder import read_episodes, read_evaluation, read_labels, read_picture
from lvlm2p_wrappers.report.from_store import read_calls
from lvlm2p_wrappers.report.html import Report
from lvlm2p_wrappers.store import Store


def from_evaluation(folder: Path) -> Report:
    """A report on an evaluation, finished or not.

    Raises:
        UsageError: if the folder is none of an evaluation, or a file in it is damaged.
    """
    evaluation = read_evaluation(folder)
    env = {"env_id": evaluation.env_id}
    return Report(
        title=evaluation.env_id,
        labels=[label.model_copy(update=env) for label in read_labels(folder)],
        png_of=lambda digest: read_picture(folder, digest),
        evaluation=evaluation,
        episodes=read_episodes(folder),
    )


def from_store(store: Store, *, env: str = "*", last: int = 200) -> Report:
    """A report on the views that were asked about last.

    Args:
        store: whose log to read.
        env: only environments whose id matches this glob.
        last: how many views at most.
    """
    labels, pictures = read_calls(store, env=env, last=last)
    return Report(title="What the teacher was asked", labels=labels, png_of=pictures.get)
