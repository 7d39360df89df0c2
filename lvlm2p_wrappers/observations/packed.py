"""Any observation as one vector."""

from __future__ import annotations

import functools
import math
import operator
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Space, Text, Tuple
from gymnasium.spaces.utils import flatten, flatten_space
from minigrid.core.mission import MissionSpace
from numpy.typing import NDArray

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.observations.space import StudentSpace
from lvlm2p_wrappers.observations.words import WORDS, words

Packed = NDArray[np.uint8] | NDArray[np.float32]
Path = tuple[Any, ...]

_SMALLEST_PICTURE = 16
"""Pixels. What has shorter sides is no picture, but numbers that happen to lie in rows."""


class PackedObservation(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Packs an environment's observation into one vector of a :class:`StudentSpace`.

    Pictures come first. Then comes the rest: vectors as they are, Discrete as one-hot, and each text, such as the
    mission of MiniGrid and BabyAI, as :func:`words`. A mission that the environment has as an attribute, and not in its
    observation, is added. The vector is ``uint8`` where nothing is lost by it, else ``float32``.

    Args:
        env: an environment whose observation is a picture, a vector, Discrete, a text, or a Dict or Tuple of these.
        frames: how many observations of the episode to show at once, oldest first. Texts are shown once.

    Raises:
        UsageError: if the observation cannot be laid out in a vector.

    Example:
        >>> import gymnasium as gym
        >>> env = PackedObservation(gym.make("FrozenLake-v1", is_slippery=False))
        >>> env.reset(seed=0)[0]
        array([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], dtype=uint8)
    """

    def __init__(self, env: gym.Env[Any, Any], frames: int = 1) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, frames=frames)
        gym.Wrapper.__init__(self, env)
        leaves = [*_leaves(env.observation_space)]
        self._texts = [path for path, space in leaves if isinstance(space, Text | MissionSpace)]
        self._has_mission = not self._texts and hasattr(env.unwrapped, "mission")
        self._pictures = [_picture(path, space) for path, space in leaves if _is_picture(space)]
        packed = {*self._texts, *(picture.path for picture in self._pictures)}
        self._vectors = [_vector(path, space) for path, space in leaves if path not in packed]
        texts = np.ones(WORDS * (len(self._texts) + self._has_mission))
        low, high = (
            np.concatenate([
                *(np.tile(getattr(picture, bound).ravel(), frames) for picture in self._pictures),
                *(getattr(vector, bound) for vector in self._vectors * frames),
                texts * (bound == "high"),
            ])
            for bound in ("low", "high")
        )  # fmt: skip
        is_bytes = low.min() >= 0 and high.max() <= 255 and all(leaf.is_whole for leaf in self._vectors)
        parts = tuple((*picture.low.shape[:2], picture.low.shape[2] * frames) for picture in self._pictures)
        self.observation_space = StudentSpace(low, high, np.uint8 if is_bytes else np.float32, parts=parts)
        self._frames: deque[Any] = deque(maxlen=frames)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Packed, dict[str, Any]]:
        """Begin an episode; its first observation stands for those before it."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._frames.extend([obs] * (self._frames.maxlen or 1))
        return self._packed(), info

    def step(self, action: Any) -> tuple[Packed, Any, bool, bool, dict[str, Any]]:
        """Act."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(obs)
        return self._packed(), reward, terminated, truncated, info

    def _packed(self) -> Packed:
        last = self._frames[-1]
        texts = [words(_at(last, path)) for path in self._texts]
        if self._has_mission:
            texts.append(words(str(self.env.unwrapped.mission)))  # type: ignore[attr-defined]
        pictures = [np.concatenate([leaf.of(obs) for obs in self._frames], -1).ravel() for leaf in self._pictures]
        vectors = [leaf.of(obs) for obs in self._frames for leaf in self._vectors]
        return np.concatenate([*pictures, *vectors, *texts], dtype=self.observation_space.dtype, casting="unsafe")


class _Leaf(NamedTuple):
    """A part of an observation that is no Dict and no Tuple."""

    path: Path
    low: NDArray[Any]
    high: NDArray[Any]
    is_whole: bool
    encode: Callable[[Any], NDArray[Any]]

    def of(self, observation: Any) -> NDArray[Any]:
        """This part of an observation, as an array of the shape of the bounds."""
        encoded = self.encode(_at(observation, self.path))
        if encoded.shape != self.low.shape:
            where = f" at {'.'.join(map(str, self.path))}" if self.path else ""
            raise UsageError(
                f"the environment's observation{where} has the shape {encoded.shape}, and its observation space says "
                f"{self.low.shape}: a student needs one shape."
            )
        return encoded


def _leaves(space: Space[Any], path: Path = ()) -> Iterator[tuple[Path, Space[Any]]]:
    """The spaces inside a space, each with the keys that lead to it."""
    if isinstance(space, Dict | Tuple):
        for key, inner in space.items() if isinstance(space, Dict) else enumerate(space):
            yield from _leaves(inner, (*path, key))
    else:
        yield path, space


def _at(observation: Any, path: Path) -> Any:
    return functools.reduce(operator.getitem, path, observation)


def _is_picture(space: Space[Any]) -> bool:
    """Whether a space is of pictures: two long sides, and perhaps a few channels, first or last."""
    if not isinstance(space, Box) or space.dtype != np.uint8 or len(space.shape) not in {2, 3}:
        return False
    *_, short, long = sorted((1, *space.shape))
    return short >= _SMALLEST_PICTURE and math.prod(space.shape) < _SMALLEST_PICTURE * short * long


def _picture(path: Path, space: Any) -> _Leaf:
    def encode(picture: Any) -> NDArray[Any]:
        picture = np.asarray(picture)
        return np.moveaxis(picture, channels, -1) if picture.ndim == 3 else picture[..., None]

    channels = int(np.argmin(space.shape))
    return _Leaf(path, encode(space.low), encode(space.high), True, encode)


def _vector(path: Path, space: Space[Any]) -> _Leaf:
    flat = flatten_space(space) if space.is_np_flattenable else None
    if not isinstance(flat, Box):
        raise UsageError(
            f"the environment's observation has the space {space}, which has no vectors of one length. "
            "The rendered picture will do: --obs pixels, or PixelObservation."
        )
    is_whole = np.issubdtype(flat.dtype or np.float32, np.integer)
    return _Leaf(path, flat.low, flat.high, is_whole, lambda value: np.asarray(flatten(space, value)))
