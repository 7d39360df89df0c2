"""What a teacher is shown of an environment: the picture, and in text only what no picture shows."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from minigrid.core.grid import Grid
from minigrid.core.world_object import Ball, Box, Door, Floor, Goal, Key, Lava, Wall
from minigrid.minigrid_env import MiniGridEnv
from PIL import Image, ImageDraw, ImageFont

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.pictures import STRIP, Picture, Pixels, Strip

TILE = STRIP
"""Pixels per MiniGrid cell; also the width of the margin that carries the row and column numbers."""

KNOWN_ROWS = 4096
"""How many rows of tiles are kept, each as about a kilobyte of PNG: the next view of a grid shares most of them."""

Family: TypeAlias = Literal["minigrid", "default"]

# What MiniGrid draws of these classes follows from type, colour and door state. A class that is not among them may
# draw anything.
_DRAWN_FROM_STATE = frozenset({Ball, Box, Door, Floor, Goal, Key, Lava, Wall})


class About(NamedTuple):
    """What every view of an environment has in common.

    Attributes:
        env_id: the id the environment was made with, or its class name where it has none.
        family: which bundled prompt set fits.
        actions: the actions' names, in the order of the action space.
    """

    env_id: str
    family: Family
    actions: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """One moment of an environment as the teacher gets it.

    Attributes:
        about: the environment's id, family and actions.
        picture: what it looks like.
        mission: the mission in words, ``""`` where the environment has none.
        carrying: the carried object in words, ``"nothing"`` where there is none.
        history: the names of the last actions, oldest first; empty unless the prompt set asks for them.
    """

    about: About
    picture: Picture
    mission: str = ""
    carrying: str = "nothing"
    history: tuple[str, ...] = ()


class Viewer(Protocol):
    """Looks at one environment."""

    @property
    def about(self) -> About:
        """What stays the same from view to view."""

    def key(self) -> Hashable | None:
        """Everything the view depends on now, cheaply; None where that is not known."""

    def view(self, history: tuple[str, ...] = ()) -> View:
        """The view of the environment's current state."""


class VectorViewer(Protocol):
    """Looks at the sub-environments of a vector environment."""

    @property
    def about(self) -> About:
        """What stays the same from view to view, and from one sub-environment to the next."""

    def look(self, indices: Sequence[int]) -> Sequence[Viewer]:
        """Viewers of these sub-environments' current states."""


class MiniGridViewer:
    """Looks at a MiniGrid environment: the fully observable picture, with numbered rows and columns."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.about = About(_env_id(env), "minigrid", action_names(env))
        self._env: Any = env.unwrapped

    def key(self) -> Hashable | None:
        """The state as far as picture and text depend on it, without rendering; None for objects of unknown classes."""
        env = self._env
        if not _drawn_by_minigrid(env):
            return None
        cells: list[Any] = []
        for cell in env.grid.grid:
            if cell is None:
                cells.append(None)
                continue
            if type(cell) not in _DRAWN_FROM_STATE:
                return None
            cells.append(
                (cell.type, cell.color, cell.is_open, cell.is_locked)
                if cell.type == "door"
                else sys.intern(cell.type + cell.color)  # thousands of keys are kept, of the same few words
            )
        held = env.carrying
        return (
            self.about, env.width, tuple(cells), int(env.agent_pos[0]), int(env.agent_pos[1]), int(env.agent_dir),
            held and (held.type, held.color), env.mission,
        )  # fmt: skip

    def view(self, history: tuple[str, ...] = ()) -> View:
        """The numbered picture, the mission and the carried object."""
        env = self._env
        if _drawn_by_minigrid(env):  # the same frame without finding out what the agent sees, and drawing all of it
            picture = Picture.of(
                _numbered_rows(env.grid, (int(env.agent_pos[0]), int(env.agent_pos[1])), env.agent_dir)
            )
        else:
            picture = Picture(_with_rulers(self.about, env.get_frame(False, TILE)))
        return _minigrid_view(self.about, picture, env.mission, env.carrying, history)


class RenderViewer:
    """Looks at any environment through its own ``render()``."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.about = About(_env_id(env), "default", action_names(env))
        self._env = env
        _require_rgb(env.render_mode, self.about.env_id)

    def key(self) -> None:
        """Nothing is known of the state; the picture has to be drawn to know whether it is new."""
        return None

    def view(self, history: tuple[str, ...] = ()) -> View:
        """The rendered frame, and the mission where the environment has one."""
        return _rendered_view(self.about, self._env.render(), getattr(self._env.unwrapped, "mission", ""), history)


class SyncViewer:
    """Looks at the sub-environments of a ``SyncVectorEnv``, one by one."""

    def __init__(self, envs: SyncVectorEnv) -> None:
        self._viewers = [viewer(env) for env in envs.envs]
        self.about = self._viewers[0].about

    def look(self, indices: Sequence[int]) -> list[Viewer]:
        """The sub-environments' own viewers."""
        return [self._viewers[i] for i in indices]


class WorkerViewer:
    """Looks at the sub-environments of an ``AsyncVectorEnv``: all of them draw at once, each in its own process."""

    def __init__(self, envs: AsyncVectorEnv) -> None:
        self._envs = envs
        env = envs.env_fns[0]()  # one to look at, as AsyncVectorEnv itself makes one for its spaces
        self.about = viewer(env).about
        self._has_mission = hasattr(env.unwrapped, "mission")
        env.close()

    def look(self, indices: Sequence[int]) -> list[Viewer]:
        """The views of these sub-environments, taken now."""
        if not indices:
            return []
        missions = self._envs.get_attr("mission") if self._has_mission else ("",) * self._envs.num_envs
        if self.about.family == "minigrid":
            frames, carried = self._envs.call("get_frame", False, TILE), self._envs.get_attr("carrying")
            return [
                Seen(_minigrid_view(self.about, Picture(_with_rulers(self.about, frames[i])), missions[i], carried[i]))
                for i in indices
            ]
        frames = self._envs.call("render")
        return [Seen(_rendered_view(self.about, frames[i], missions[i])) for i in indices]


@dataclass(frozen=True)
class Seen:
    """A viewer of one view, taken earlier or in a worker process."""

    taken: View

    @property
    def about(self) -> About:
        """Of the view's environment."""
        return self.taken.about

    def key(self) -> None:
        """None: there is no state any more, only its picture."""
        return None

    def view(self, history: tuple[str, ...] = ()) -> View:
        """The view, with other last actions."""
        return replace(self.taken, history=history)


def viewer(env: gym.Env[Any, Any]) -> Viewer:
    """Choose how to look at an environment.

    Args:
        env: an environment with a Discrete action space.

    Raises:
        UsageError: if its action space is not Discrete, or it gives no picture.
    """
    _require_discrete(env.action_space, _env_id(env))
    return MiniGridViewer(env) if isinstance(env.unwrapped, MiniGridEnv) else RenderViewer(env)


def vector_viewer(envs: gym.vector.VectorEnv[Any, Any, Any]) -> VectorViewer:
    """Choose how to look at the sub-environments of a vector environment.

    Args:
        envs: a ``SyncVectorEnv`` or ``AsyncVectorEnv``, wrapped or not.

    Raises:
        UsageError: if it is of another kind, its action space is not Discrete, or it gives no picture.
    """
    base = envs.unwrapped
    if isinstance(base, SyncVectorEnv):
        return SyncViewer(base)
    if isinstance(base, AsyncVectorEnv):
        return WorkerViewer(base)
    raise UsageError(
        f"{type(base).__name__} gives no access to its sub-environments' pictures. "
        "Use gymnasium's SyncVectorEnv or AsyncVectorEnv."
    )


def action_names(env: gym.Env[Any, Any]) -> tuple[str, ...]:
    """The names an environment gives its actions, or ``action_0``, ``action_1``, ... where it gives none.

    >>> import gymnasium as gym
    >>> action_names(gym.make("MiniGrid-Dynamic-Obstacles-6x6-v0"))
    ('left', 'right', 'forward')
    """
    base = env.unwrapped
    if env.action_space != base.action_space:
        raise UsageError(
            f"{_env_id(env)} is inside a wrapper that changes its actions to {env.action_space}: "
            "the teacher would not know what they do. Put the teacher's wrapper inside that one."
        )
    size = int(env.action_space.n)  # type: ignore[attr-defined]
    members = getattr(getattr(base, "actions", None), "__members__", {})
    by_value = {member.value: name for name, member in members.items()}
    meanings = base.get_action_meanings() if hasattr(base, "get_action_meanings") else ()
    if set(range(size)) <= by_value.keys():
        return tuple(by_value[action] for action in range(size))
    if len(meanings) == size == len(set(meanings)):
        return tuple(str(name).lower().replace(" ", "_") for name in meanings)
    return tuple(f"action_{i}" for i in range(size))


def _minigrid_view(about: About, picture: Picture, mission: str, carried: Any, history: tuple[str, ...] = ()) -> View:
    carrying = f"a {carried.color} {carried.type}" if carried is not None else "nothing"
    return View(about, picture, str(mission), carrying, history)


def _rendered_view(about: About, frame: Any, mission: Any, history: tuple[str, ...] = ()) -> View:
    return View(about, Picture(_rgb(about, frame)), str(mission), history=history)


def _rgb(about: About, frame: Any) -> Pixels:
    pixels = np.array(frame)  # a copy: the next frame may be drawn into the same array, before this one is sent
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or min(pixels.shape[:2]) < TILE:
        raise UsageError(
            f"{about.env_id} draws an array of shape {pixels.shape} and dtype {pixels.dtype}; a teacher needs a uint8 "
            f"RGB picture of at least {TILE}x{TILE} pixels, as render_mode='rgb_array' promises."
        )
    return pixels


def _with_rulers(about: About, frame: Any) -> Pixels:
    """Print the 0-based row and column numbers on all four sides: LVLMs misplace cells without them."""
    pixels = _rgb(about, frame)
    height, width = pixels.shape[:2]
    if height % TILE or width % TILE:
        raise UsageError(
            f"{about.env_id} draws {width}x{height} pixels when asked by get_frame for {TILE} a cell: "
            "no whole number of cells, so that they cannot be numbered."
        )
    side, edge = np.concatenate([_number(row) for row in range(height // TILE)]), _edge(width // TILE)
    return np.concatenate([edge, np.concatenate([side, pixels, side], axis=1), edge])


def _drawn_by_minigrid(env: Any) -> bool:
    """Whether the frame is MiniGrid's own: one tile a cell, drawn from what is in it."""
    methods = (
        (env.get_frame, MiniGridEnv.get_frame),
        (env.get_full_render, MiniGridEnv.get_full_render),
        (env.grid.render, Grid.render),
    )
    return all(getattr(method, "__func__", None) is minigrids for method, minigrids in methods)


def _numbered_rows(grid: Grid, agent_pos: tuple[int, int], agent_dir: int) -> Iterator[Strip]:
    """The rows of a numbered picture, from top to bottom: `Grid.render` and `_with_rulers` in one."""
    edge = _edge_strip(grid.width)
    yield edge
    for row in range(grid.height):
        headings = (agent_dir if (column, row) == agent_pos else None for column in range(grid.width))
        cells = grid.grid[row * grid.width : (row + 1) * grid.width]
        drawn = map(Grid.render_tile, cells, headings, itertools.repeat(False), itertools.repeat(TILE))
        yield _row(row, list(drawn))
    yield edge


_rows: dict[tuple[int, ...], tuple[Strip, list[Pixels]]] = {}


def _row(number: int, tiles: list[Pixels]) -> Strip:
    """A row of tiles between its numbers. MiniGrid draws each tile once and keeps it, so that its address tells it."""
    key = (number, *map(id, tiles))
    known = _rows.get(key)
    if known is None:
        parts = [_number(number), *tiles, _number(number)]
        strip = Strip(np.concatenate(parts, axis=1, dtype=np.uint8, casting="unsafe"))  # as MiniGrid does
        strip.pack()
        if len(_rows) >= KNOWN_ROWS:
            _rows.clear()
        _rows[key] = known = strip, tiles  # no other tile can have the address of one that is kept
    return known[0]


@functools.lru_cache(maxsize=32)
def _edge_strip(columns: int) -> Strip:
    strip = Strip(_edge(columns))
    strip.pack()
    return strip


@functools.lru_cache(maxsize=32)
def _edge(columns: int) -> Pixels:
    """The margin above and below the frame: (TILE, (columns + 2) * TILE, 3)."""
    corner = np.full((TILE, TILE, 3), 255, np.uint8)
    return np.concatenate([corner, *map(_number, range(columns)), corner], axis=1)


@functools.lru_cache(maxsize=256)
def _number(value: int) -> Pixels:
    """A cell of the margin: (TILE, TILE, 3)."""
    image = Image.new("RGB", (TILE, TILE), "white")
    middle, font = (TILE / 2, TILE / 2), ImageFont.load_default(size=TILE // 2)
    ImageDraw.Draw(image).text(middle, str(value), fill="black", font=font, anchor="mm")
    return np.asarray(image)


def _env_id(env: gym.Env[Any, Any]) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def _require_discrete(space: gym.Space[Any], env_id: str) -> None:
    if not isinstance(space, gym.spaces.Discrete):
        raise UsageError(
            f"{env_id} has the action space {space}; "
            "a teacher gives one probability per action, so it needs a Discrete one."
        )


def _require_rgb(render_mode: str | None, env_id: str) -> None:
    if render_mode != "rgb_array":
        raise UsageError(
            f"{env_id} gives no picture: it was made with render_mode={render_mode!r}. "
            f"Make it with gym.make({env_id!r}, render_mode='rgb_array')."
        )
