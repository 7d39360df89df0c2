"""The student's observation: the whole grid as one-hot planes, centred on the agent and rotated so that ahead is up."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from minigrid.core.constants import COLOR_TO_IDX, STATE_TO_IDX
from minigrid.core.world_object import WorldObj
from minigrid.minigrid_env import MiniGridEnv
from numpy.typing import NDArray

from lvlm2p_wrappers.errors import UsageError

Planes = NDArray[np.uint8]

_TYPES = ("wall", "floor", "door", "key", "ball", "box", "goal", "lava")
_COLOURS = tuple(COLOR_TO_IDX)
_STATES = tuple(STATE_TO_IDX)
_CARRIED = ("key", "ball", "box")
_MENTIONED = ("door", "key", "ball", "box", "goal")
_WORDS = ("go", "pick", "open", "put", "then", "after", "left", "right", "front", "behind")
# "room" (LockedRoom) and "object" (BabyAI) are of no type that a cell has, and still carry a colour.
_MENTION = re.compile(rf"\b(?:({'|'.join(_COLOURS)}) )?({'|'.join(_MENTIONED)}|object|room)\b")

_CELL = (*_TYPES, *_COLOURS, *_STATES)
_OBJECT = tuple(f"carrying {name}" for name in (*_CARRIED, *_COLOURS))
_MISSION = tuple(f"mission {slot} {name}" for slot in ("first", "later") for name in (*_MENTIONED, *_COLOURS))
_PLANES = (*_CELL, *_OBJECT, *_MISSION, *(f"mission word {word}" for word in _WORDS))


def _one_hot_of_cells() -> tuple[dict[tuple[str, str, int], int], Planes]:
    """Number the things that can stand in a cell, and give each number its column of the cell planes."""
    things = [(kind, colour, state) for kind in _TYPES for colour in _COLOURS for state in STATE_TO_IDX.values()]
    codes = {thing: code for code, thing in enumerate(things, start=1)}  # 0 is the empty cell
    table = np.zeros((len(_CELL), len(things) + 1), np.uint8)
    for (kind, colour, state), code in codes.items():
        table[_CELL.index(kind), code] = table[_CELL.index(colour), code] = 1
        if kind == "door":
            table[_CELL.index(_STATES[state]), code] = 1
    return codes, table


_CODES, _TABLE = _one_hot_of_cells()
_WALL = _CODES["wall", "grey", 0]


def _code(thing: WorldObj | None) -> int:
    if thing is None:
        return 0
    return _CODES[thing.type, thing.color, thing.encode()[2] if thing.type == "door" else 0]


class AgentCentredObservation(
    gym.ObservationWrapper[Planes, Any, Any],
    gym.utils.RecordConstructorArgs,
):
    """Shows the full grid of a MiniGrid or BabyAI env around the agent, which stands in the middle and faces up.

    The observation is a ``uint8`` array of zeros and ones of shape ``(58, size, size)``, planes first as torch's
    convolutions want them, with ``size = 2 * max(width, height) - 3``. The agent is at ``[size // 2, size // 2]``, the
    cell ahead of it one row above, and what lies outside of the grid is grey wall. The size loses nothing: MiniGrid's
    agent never stands on the outermost ring, so that no cell is farther than ``max(width, height) - 2`` from it.

    :attr:`PLANES` names the planes. Those of a cell are one-hot: its object's type, colour and, for a door, state.
    The others are constant over the window, so that a convolution can compare them with every cell: the type and colour
    of the carried object; of the first object that the mission mentions; of all that it mentions later, together; and
    the words of the mission that tell BabyAI's tasks apart. As in the picture, what a box contains is not shown.

    Args:
        env: a MiniGrid env, wrapped or not.

    Raises:
        UsageError: the env is not a MiniGrid env.

    Example:
        >>> import gymnasium as gym, minigrid
        >>> env = AgentCentredObservation(gym.make("MiniGrid-LavaGapS7-v0"))
        >>> obs, info = env.reset(seed=0)
        >>> obs.shape, obs.dtype
        ((58, 11, 11), dtype('uint8'))
    """

    PLANES: tuple[str, ...] = _PLANES

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        grid_env = env.unwrapped
        if not isinstance(grid_env, MiniGridEnv):
            name = env.spec.id if env.spec else type(grid_env).__name__
            raise UsageError(
                f"{name} is not a MiniGrid env: AgentCentredObservation reads a MiniGrid grid. "
                "Take a MiniGrid-* or BabyAI-* env, or an observation wrapper that fits this one."
            )
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        self._grid_env = grid_env
        self._reach = max(grid_env.width, grid_env.height) - 2
        self._size = 2 * self._reach + 1
        self.observation_space = Box(0, 1, (len(_PLANES), self._size, self._size), np.uint8)
        # The grid with enough wall around it for a window at any place; only its middle changes.
        shape = (grid_env.height + 2 * self._reach, grid_env.width + 2 * self._reach)
        self._padded = np.full(shape, _WALL, np.int64)
        self._inside = self._padded[self._reach : -self._reach, self._reach : -self._reach]
        self._mission: str | None = None
        self._mission_planes = np.zeros(0, np.uint8)

    def observation(self, observation: Any) -> Planes:  # noqa: ARG002
        """Encode the env's present state; the env's own observation, a partial view, is ignored."""
        grid_env, size = self._grid_env, self._size
        # By hand, not by `grid.encode()`, which costs as much as the whole of `env.step`.
        codes = [_code(thing) for thing in grid_env.grid.grid]
        self._inside[...] = np.reshape(codes, self._inside.shape)
        column, row = grid_env.agent_pos
        window = self._padded[row : row + size, column : column + size]
        window = np.rot90(window, grid_env.agent_dir + 1)  # direction 0 looks right, and quarter turns go left
        if grid_env.mission != self._mission:
            self._mission, self._mission_planes = grid_env.mission, _planes_of_mission(grid_env.mission)
        planes = np.empty((len(_PLANES), size, size), np.uint8)
        planes[: len(_CELL)] = _TABLE[:, window]
        planes[len(_CELL) : len(_CELL) + len(_OBJECT)] = _planes_of_carried(grid_env.carrying)[:, None, None]
        planes[len(_CELL) + len(_OBJECT) :] = self._mission_planes[:, None, None]
        return planes


def _planes_of_carried(thing: WorldObj | None) -> Planes:
    planes = np.zeros(len(_OBJECT), np.uint8)
    if thing is not None:
        planes[:] = [name in (thing.type, thing.color) for name in (*_CARRIED, *_COLOURS)]
    return planes


def _planes_of_mission(mission: str) -> Planes:
    """Encode a mission: the first object it mentions, the others together, and the words that tell tasks apart."""
    slots = np.zeros((2, len(_MENTIONED) + len(_COLOURS)), np.uint8)
    for place, (colour, kind) in enumerate(_MENTION.findall(mission)):
        slot = slots[min(place, 1)]
        if kind in _MENTIONED:
            slot[_MENTIONED.index(kind)] = 1
        if colour:
            slot[len(_MENTIONED) + _COLOURS.index(colour)] = 1
    used = set(re.findall(r"\w+", mission))
    words = np.array([word in used for word in _WORDS], np.uint8)
    return np.concatenate([slots.ravel(), words])
