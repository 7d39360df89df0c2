"""The student's observation: the whole grid as one-hot planes, centred on the agent and rotated so that ahead is up."""

from __future__ import annotations

import functools
import math
import re
from typing import Any

import gymnasium as gym
import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, STATE_TO_IDX
from minigrid.core.world_object import Door, WorldObj
from minigrid.minigrid_env import MiniGridEnv
from numpy.typing import NDArray

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.observations.space import StudentSpace

Symbols = NDArray[np.uint8]

_TYPES = ("wall", "floor", "door", "key", "ball", "box", "goal", "lava")
_COLOURS = tuple(COLOR_TO_IDX)
_STATES = tuple(STATE_TO_IDX)
_CARRIED = ("key", "ball", "box")
_MENTIONED = ("door", "key", "ball", "box", "goal")
_WORDS = ("go", "pick", "open", "put", "then", "after", "left", "right", "front", "behind")
# "room" (LockedRoom) and "object" (BabyAI) are of no type that a cell has, and still carry a colour.
_MENTION = re.compile(rf"\b(?:({'|'.join(_COLOURS)}) )?({'|'.join(_MENTIONED)}|object|room)\b")

_MARKS = ("mentioned first", "mentioned later")
_CELL = (*_TYPES, *_COLOURS, *_STATES, *_MARKS)
_OBJECT = tuple(f"carrying {name}" for name in (*_CARRIED, *_COLOURS, *_MARKS))
_MISSION = tuple(f"mission {slot} {name}" for slot in ("first", "later") for name in (*_MENTIONED, *_COLOURS))
_REST = (*_OBJECT, *_MISSION, *(f"mission word {word}" for word in _WORDS))

# What can stand in a cell, by its number; nothing comes first.
_THINGS = (
    ("", "", ""),
    *((kind, colour, "") for kind in _TYPES if kind != "door" for colour in _COLOURS),
    *(("door", colour, state) for colour in _COLOURS for state in _STATES),
)
_CODES = {thing: code for code, thing in enumerate(_THINGS)}
# Numbers from len(_THINGS) on are of things that the mission mentions: first, later, both.
_TABLE = np.array(
    [
        [*(name in thing for name in _CELL[: -len(_MARKS)]), mark & 1, mark >> 1]
        for mark in range(4)
        for thing in _THINGS
    ],
    np.uint8,
)
_WALL = _CODES["wall", "grey", ""]


def _code(thing: WorldObj | None) -> int:
    if thing is None:
        return 0
    state = ""
    if isinstance(thing, Door):
        state = "open" if thing.is_open else "locked" if thing.is_locked else "closed"
    return _CODES[thing.type, thing.color, state]


class AgentCentredObservation(
    gym.ObservationWrapper[Any, Any, Any],
    gym.utils.RecordConstructorArgs,
):
    """Shows the full grid of a MiniGrid or BabyAI env around the agent, which stands in the middle and faces up.

    The observation is a ``uint8`` vector of ``size * size + 43`` elements, with ``size = 2 * max(width, height) - 3``.
    The first ``size * size`` are the cells, row by row, each as the number of what stands in it. The agent is at
    ``[size // 2, size // 2]``, the cell ahead of it one row above, and what lies outside of the grid is grey wall. The
    size loses nothing: MiniGrid's agent never stands on the outermost ring, so that no cell is farther than
    ``max(width, height) - 2`` from it.

    :attr:`TABLE` gives the planes that each number stands for: its object's type, colour and, for a door, state; and
    whether the mission mentions such an object, first or later. The last 43 elements are zeros and ones: the same of
    the carried object; type and colour of the first object that the mission mentions; of all that it mentions later,
    together; and the words of the mission that tell BabyAI's tasks apart. As in the picture, what a box contains is not
    shown. :attr:`PLANES` names the planes of a cell and then these elements; :meth:`planes` lays all of them out for a
    convolution.

    The env's own observation, a partial view that takes nine tenths of the time of a step, is not drawn any more: what
    wraps the env further inside gets one whose picture is black.

    Args:
        env: a MiniGrid env, wrapped or not.

    Raises:
        UsageError: the env is not a MiniGrid env.

    Example:
        >>> import gymnasium as gym, minigrid
        >>> env = AgentCentredObservation(gym.make("MiniGrid-LavaGapS7-v0"))
        >>> obs, info = env.reset(seed=0)
        >>> obs.shape, obs.dtype  # 11 x 11 cells and 43 elements more
        ((164,), dtype('uint8'))
        >>> env.planes(obs).shape
        (62, 11, 11)
    """

    PLANES: tuple[str, ...] = (*_CELL, *_REST)
    """Names: the columns of `TABLE`, then the elements after the cells."""

    TABLE: Symbols = _TABLE
    """Zeros and ones, shape ``(244, 19)``: row ``n`` has the planes of the cells whose number is ``n``."""

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
        reach = max(grid_env.width, grid_env.height) - 2
        self._size = 2 * reach + 1
        high = np.repeat((len(_TABLE) - 1, 1), (self._size**2, len(_REST)))
        self.observation_space = StudentSpace(0, high, np.uint8, parts=((self._size, self._size),), table=_TABLE)
        # The grid with enough wall around it for a window at any place; only its middle changes.
        self._padded = np.full((grid_env.height + 2 * reach, grid_env.width + 2 * reach), _WALL, np.uint8)
        self._inside = self._padded[reach:-reach, reach:-reach]
        self._things: list[WorldObj | None] = []
        self._doors: list[tuple[int, int, WorldObj]] = []
        self._mission: str | None = None
        self._marks, self._about_mission = _marks(""), _about_mission("")
        without_partial_view(grid_env)

    @classmethod
    def planes(cls, observation: Symbols) -> Symbols:
        """Lay an observation out as planes for a convolution.

        Args:
            observation: what this wrapper returned; uint8, shape ``(size * size + 43,)``.

        Returns:
            Zeros and ones, uint8, shape ``(62, size, size)``; what is not about a cell is constant over its plane.
        """
        size = math.isqrt(len(observation) - len(_REST))
        cells, rest = np.split(observation, [size * size])
        constant = np.broadcast_to(rest[:, None, None], (len(_REST), size, size))
        return np.concatenate([cls.TABLE.T[:, cells].reshape(-1, size, size), constant])

    def observation(self, observation: Any) -> Symbols:  # noqa: ARG002
        """Encode the env's present state; the env's own observation, a partial view, is ignored."""
        grid_env, size = self._grid_env, self._size
        if grid_env.mission != self._mission:
            self._mission, self._things = grid_env.mission, []
            self._marks, self._about_mission = _marks(grid_env.mission), _about_mission(grid_env.mission)
        self._update_cells()
        column, row = grid_env.agent_pos
        window = self._padded[row : row + size, column : column + size]
        window = np.rot90(window, grid_env.agent_dir + 1)  # direction 0 looks right, and quarter turns go left
        about_carried = _about_carried(_code(grid_env.carrying), int(self._marks[_code(grid_env.carrying)]))
        return np.concatenate([window.ravel(), about_carried, self._about_mission])

    def _update_cells(self) -> None:
        """Write what stands in the cells into the window's grid."""
        things, width = self._grid_env.grid.grid, self._grid_env.width
        # Things are compared by identity, which is quick, and doors alone change without being replaced.
        if things != self._things:
            codes = np.array([_code(thing) for thing in things])
            self._inside[...] = self._marked(codes).reshape(self._inside.shape)
            self._things = [*things]
            places = enumerate(things)
            self._doors = [(*divmod(i, width), thing) for i, thing in places if isinstance(thing, Door)]
        for row, column, door in self._doors:
            self._inside[row, column] = self._marked(_code(door))

    def _marked(self, codes: Any) -> Any:
        """The numbers of things, other ones for those that the mission mentions."""
        return codes + len(_THINGS) * self._marks[codes]


def without_partial_view(grid_env: MiniGridEnv) -> None:
    """Have a MiniGrid env draw its own observation no more: it takes nine tenths of a step. Its picture is black."""
    view = grid_env.observation_space["image"].shape
    grid_env.gen_obs = lambda: {
        "image": np.zeros(view, np.uint8),
        "direction": grid_env.agent_dir,
        "mission": grid_env.mission,
    }


@functools.lru_cache(maxsize=1024)
def _about_carried(code: int, mark: int) -> Symbols:
    names = (*_THINGS[code], *(name for bit, name in enumerate(_MARKS) if mark >> bit & 1))
    return np.array([name in names for name in (*_CARRIED, *_COLOURS, *_MARKS)], np.uint8)


@functools.lru_cache(maxsize=1024)
def _marks(mission: str) -> NDArray[np.int64]:
    """For each thing that can stand in a cell: 1 if a mission mentions it first, 2 if later, 3 if both; else 0."""
    marks = np.zeros(len(_THINGS), np.int64)
    for place, (colour, kind) in enumerate(_MENTION.findall(mission)):
        kinds = _CARRIED if kind == "object" else (kind,)
        for code, thing in enumerate(_THINGS):
            if thing[0] in kinds and colour in ("", thing[1]):
                marks[code] |= 1 << min(place, 1)
    return marks


@functools.lru_cache(maxsize=1024)
def _about_mission(mission: str) -> Symbols:
    """Encode a mission: the first object it mentions, the others together, and the words that tell tasks apart."""
    slots = np.zeros((2, len(_MENTIONED) + len(_COLOURS)), np.uint8)
    for place, (colour, kind) in enumerate(_MENTION.findall(mission)):
        slot = slots[min(place, 1)]
        if kind in _MENTIONED:
            slot[_MENTIONED.index(kind)] = 1
        if colour:
            slot[len(_MENTIONED) + _COLOURS.index(colour)] = 1
    words = set(re.findall(r"\w+", mission))
    return np.concatenate([slots.ravel(), np.array([word in words for word in _WORDS], np.uint8)])
