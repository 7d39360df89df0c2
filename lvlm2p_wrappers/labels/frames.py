"""Frames to be labelled that others have drawn: a folder of PNG files, a Parquet file, a Minari dataset."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.labels.arrow import load_pyarrow, parquet_file, parquet_files
from lvlm2p_wrappers.labels.label_set import read_labels
from lvlm2p_wrappers.labels.labelling import Frame
from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.png import png_size
from lvlm2p_wrappers.records import EnvInfo, View
from lvlm2p_wrappers.records.view import SMALLEST
from lvlm2p_wrappers.redaction import printable
from lvlm2p_wrappers.saved_picture import SavedPicture
from lvlm2p_wrappers.views import viewer

MINARI = "minari:"
"""What the name of a Minari dataset begins with."""

MAX_BYTES = 64 * 2**20
"""A larger file is no picture that a model could be shown."""

_TOLD = ("mission", "carrying", "history")


def frames_of(where: str, env_info: EnvInfo, make: Callable[[], gym.Env[Any, Any]]) -> Iterator[Frame]:
    """The frames that somebody named.

    Args:
        where: a folder of PNG files, with their missions in a ``metadata.jsonl`` as in Hugging Face's ImageFolder; a
            Parquet file with a column ``image``, or the folder of a label set; ``minari:`` and a dataset's name.
        env_info: the environment that they are of.
        make: makes the environment, which is needed to draw what a Minari dataset does not hold.

    Raises:
        UsageError: if there is nothing of that kind, or one frame is no picture that can be labelled.
    """
    if where.startswith(MINARI):
        return _of_minari(where.removeprefix(MINARI), env_info, make)
    path = Path(where)
    if path.is_dir() and not (path / "data").is_dir():
        return _of_folder(path, env_info)
    return _of_parquet(path, env_info)


def _of_folder(folder: Path, env_info: EnvInfo) -> Iterator[Frame]:
    told = _metadata(folder / "metadata.jsonl")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".png")
    if not files:
        raise UsageError(f"{folder} holds neither PNG files nor a label set (data/*.parquet)")
    for file in files:
        if not file.is_file() or file.stat().st_size > MAX_BYTES:
            raise UsageError(f"{file} is no plain file of at most {MAX_BYTES // 2**20} MB")
        yield Frame(file.name, _view(env_info, [file.read_bytes()], told.get(file.name, {}), str(file)))


def _metadata(file: Path) -> dict[str, dict[str, Any]]:
    """What a ``metadata.jsonl`` tells of each file."""
    if not file.is_file():
        return {}
    found = {}
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), start=1):
        try:
            row = json.loads(line)
            found[str(row["file_name"])] = row
        except (ValueError, TypeError, KeyError, RecursionError):
            raise UsageError(f'{file}, line {number}: give a JSON object with "file_name"') from None
    return found


def _of_parquet(path: Path, env_info: EnvInfo) -> Iterator[Frame]:
    if path.is_dir():
        labels = read_labels(path)
        observations = labels.observations if labels.info.observation else None
        for number, view in enumerate(labels.views()):
            seen = None if observations is None else observations[number]
            told = {name: getattr(view, name) for name in _TOLD}
            source = str(labels.table["source"][number])
            pngs = [picture.png for picture in view.pictures if isinstance(picture, Picture)]
            yield Frame(source, _view(env_info, pngs, told, f"{path}, row {number}", seen))
        return
    pa = load_pyarrow()
    for file in parquet_files(path):
        with parquet_file(file) as opened:
            names = opened.schema_arrow.names
            if "image" not in names:
                raise UsageError(f"{file} has no column image; it has {', '.join(names)[:300]}")
            number = 0
            for batch in opened.iter_batches(batch_size=256, columns=[n for n in names if n in ("image", *_TOLD)]):
                for row in pa.Table.from_batches([batch]).to_pylist():
                    image = row["image"]["bytes"] if isinstance(row["image"], dict) else row["image"]
                    where = f"{file}, row {number}"
                    yield Frame(f"{file.name} {number}", _view(env_info, [image], row, where))
                    number += 1


def _view(env_info: EnvInfo, pngs: list[Any], told: dict[str, Any], where: str, observation: Any = None) -> View:
    """A view of PNG files that may come from anybody.

    Raises:
        UsageError: if a picture is none, or too small, or what is told of it is no text.
    """
    history = told.get("history") or ()
    mission, carrying = told.get("mission") or "", told.get("carrying") or "nothing"
    if not all(isinstance(text, str) for text in (mission, carrying, *history)) or isinstance(history, str):
        raise UsageError(f"{where}: mission and carrying are texts, history is a list of actions' names")
    try:
        sizes = [png_size(png if isinstance(png, bytes) else b"") for png in pngs]
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None
    if min(min(size) for size in sizes) < SMALLEST:
        raise UsageError(f"{where}: a teacher needs a picture of at least {SMALLEST}x{SMALLEST} pixels")
    pictures = tuple(SavedPicture(png) for png in pngs)
    env_id, family, actions = env_info
    return View(pictures, actions, mission, carrying, tuple(history), env_id, family, observation)


# --- Minari ---


def _of_minari(name: str, env_info: EnvInfo, make: Callable[[], gym.Env[Any, Any]]) -> Iterator[Frame]:
    """The frames of a dataset: its observations where they are pictures, else drawn by repeating its episodes."""
    dataset = _dataset(name)
    env = make()
    try:
        if dataset.action_space != env.action_space:
            raise UsageError(
                f"the Minari dataset {name} has the action space {dataset.action_space}, "
                f"and {env_info.env_id} has {env.action_space}"
            )
        for number in dataset.episode_indices:
            (episode,) = dataset.iterate_episodes([number])
            source = f"{name} episode {int(number)}"
            if _is_picture(episode.observations):
                yield from _pictured(episode, env, env_info, source)
            else:
                (about,) = dataset.storage.get_episode_metadata([number])
                yield from _repeated(episode, about, env, source)
    finally:
        env.close()


def _dataset(name: str) -> Any:
    try:
        import minari
    except ImportError:
        raise UsageError("frames of a Minari dataset need Minari: pip install 'minari[hdf5]'") from None
    try:
        return minari.load_dataset(name)
    except Exception as error:  # noqa: BLE001 -- Minari's own have no common class; the dataset may be anything
        why = " ".join(printable(str(error)).split())[:300]
        raise UsageError(f"the Minari dataset {name} cannot be read: {why}. `minari list local` tells names") from None


def _is_picture(observations: Any) -> bool:
    is_one = isinstance(observations, np.ndarray) and observations.ndim == 4 and observations.dtype == np.uint8
    return is_one and observations.shape[3] == 3 and min(observations.shape[1:3]) >= SMALLEST


def _pictured(episode: Any, env: gym.Env[Any, Any], env_info: EnvInfo, source: str) -> Iterator[Frame]:
    start, history = int(env.action_space.start), list[str]()  # type: ignore[attr-defined]
    env_id, family, actions = env_info
    for step, (frame, action) in enumerate(zip(episode.observations, episode.actions, strict=False)):
        view = View((frame,), actions, history=tuple(history), env_id=env_id, family=family, observation=frame)
        yield Frame(f"{source} step {step}", view)
        history.append(actions[int(action) - start])


def _repeated(episode: Any, about: dict[str, Any], env: gym.Env[Any, Any], source: str) -> list[Frame]:
    """The frames of an episode that is played again; a label of another frame than the dataset's would be wrong."""
    if (seed := about.get("seed")) is None:
        raise UsageError(f"{source} holds neither pictures nor the seed of its episode, from which they could be drawn")
    look, start, history = viewer(env), int(env.action_space.start), list[str]()  # type: ignore[attr-defined]
    observation, _ = env.reset(seed=int(seed))
    frames = []
    for step, action in enumerate(episode.actions):
        seen = observation if isinstance(observation, np.ndarray) else None
        frames.append(Frame(f"{source} step {step}", replace(look.view(tuple(history)), observation=seen)))
        observation, reward, terminated, _, _ = env.step(action)
        history.append(look.env_info.actions[int(action) - start])
        if reward != episode.rewards[step] or terminated != bool(episode.terminations[step]):
            raise UsageError(
                f"{source}: played again, its step {step} ends otherwise than it did: the environment, or its version, "
                f"is not the dataset's"
            )
    return frames
