"""Draws MiniGrid and BabyAI: the picture of the whole grid, its rows and columns numbered."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Hashable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from minigrid.core.grid import Grid
from minigrid.core.world_object import Ball, Box, Door, Floor, Goal, Key, Lava, Wall
from minigrid.minigrid_env import MiniGridEnv

from lvlm2p_wrappers.picture import Picture, Pixels, Strip
from lvlm2p_wrappers.records import EnvInfo, View
from lvlm2p_wrappers.views.environment import action_names, env_id_of
from lvlm2p_wrappers.views.lines import with_line
from lvlm2p_wrappers.views.rulers import TILE, edge_strip, numeral, with_rulers

KNOWN_ROWS = 4096
"""How many rows of tiles are kept, each as about a kilobyte of PNG: the next view of a grid shares most of them."""

# What MiniGrid draws of these classes follows from type, colour and door state; any other class may draw anything.
_DRAWN_FROM_STATE = frozenset({Ball, Box, Door, Floor, Goal, Key, Lava, Wall})


class MiniGridViewer:
    """Draws a MiniGrid environment: the fully observable picture, with numbered rows and columns."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.env_info = EnvInfo(env_id_of(env), "minigrid", action_names(env))
        self._env: Any = env.unwrapped
        self._lined = False

    def draw_lines(self) -> None:
        """Draw lines over the cells from now on; the agent's tiles already, so that no step has to."""
        self._lined = True
        for heading in range(4):
            with_line(Grid.render_tile(None, heading, tile_size=TILE).astype(np.uint8).tobytes(), False, False)

    def key(self) -> Hashable | None:
        """The state as far as the view depends on it, without rendering; None for objects of unknown classes."""
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
            self.env_info, env.width, tuple(cells), int(env.agent_pos[0]), int(env.agent_pos[1]), int(env.agent_dir),
            held and (held.type, held.color), env.mission,
        )  # fmt: skip

    def view(self, history: tuple[str, ...] = ()) -> View:
        """The numbered picture, the mission and the carried object."""
        env = self._env
        if _drawn_by_minigrid(env):  # the same frame without finding out what the agent sees, and drawing all of it
            agent = (int(env.agent_pos[0]), int(env.agent_pos[1]))
            picture = Picture.of(_numbered_rows(env.grid, agent, env.agent_dir, self._lined))
            picture.lined = self._lined
        else:
            picture = Picture(with_rulers(self.env_info, env.get_frame(False, TILE)))
        return self.view_of(picture, history)

    def view_of(self, picture: Picture, history: tuple[str, ...] = ()) -> View:
        """The same with another picture."""
        return minigrid_view(self.env_info, picture, self._env.mission, self._env.carrying, history)


def minigrid_view(
    env_info: EnvInfo, picture: Picture, mission: str, carried: Any, history: tuple[str, ...] = ()
) -> View:
    """The view of a MiniGrid environment, from its drawn picture and its attributes."""
    env_id, family, actions = env_info
    carrying = f"a {carried.color} {carried.type}" if carried is not None else "nothing"
    return View((picture,), actions, str(mission), carrying, history, env_id, family)


def _drawn_by_minigrid(env: Any) -> bool:
    """Whether the frame is MiniGrid's own: one tile a cell, drawn from what is in it."""
    methods = (
        (env.get_frame, MiniGridEnv.get_frame),
        (env.get_full_render, MiniGridEnv.get_full_render),
        (env.grid.render, Grid.render),
    )
    return all(getattr(method, "__func__", None) is minigrids for method, minigrids in methods)


def _numbered_rows(grid: Grid, agent_pos: tuple[int, int], agent_dir: int, lined: bool) -> Iterator[Strip]:
    """The rows of a numbered picture, from top to bottom: `Grid.render` and `with_rulers` in one."""
    edge = edge_strip(grid.width)
    yield edge
    for row in range(grid.height):
        headings = (agent_dir if (column, row) == agent_pos else None for column in range(grid.width))
        cells = grid.grid[row * grid.width : (row + 1) * grid.width]
        drawn = map(Grid.render_tile, cells, headings, itertools.repeat(False), itertools.repeat(TILE))
        yield _row(row, list(drawn), lined)
    yield edge


_rows: dict[tuple[int, ...], tuple[Strip, list[Pixels]]] = {}


def _row(number: int, tiles: list[Pixels], lined: bool) -> Strip:
    """A row of tiles between its numbers. MiniGrid draws each tile once and keeps it, so that its address tells it."""
    key = (number, lined, *map(id, tiles))
    known = _rows.get(key)
    if known is None:
        drawn = [tile.astype(np.uint8) for tile in tiles]  # as MiniGrid does
        if lined:
            drawn = [with_line(tile.tobytes(), number % 5 == 0, i % 5 == 0) for i, tile in enumerate(drawn)]
        strip = Strip(np.concatenate([numeral(number), *drawn, numeral(number)], axis=1))
        strip.pack()
        if len(_rows) >= KNOWN_ROWS:
            _rows.clear()
        _rows[key] = known = strip, tiles  # no other tile can have the address of one that is kept
    return known[0]
