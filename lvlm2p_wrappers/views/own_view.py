"""What a user has a teacher shown and told of an environment, by functions of his own."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import gymnasium as gym

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.records import View, rgb
from lvlm2p_wrappers.user_functions import UserFunction
from lvlm2p_wrappers.views.minigrid import MiniGridViewer
from lvlm2p_wrappers.views.render import RenderViewer


class OwnView(NamedTuple):
    """What is shown in place of the environment's own picture, and told besides what its viewer tells.

    Attributes:
        render: ``"module:function"``, from an environment to a uint8 RGB picture; None for the environment's own.
        facts: ``"module:function"``, from an environment to what no picture shows, as named strings; None for none.
    """

    render: str | None = None
    facts: str | None = None

    def check(self) -> None:
        """Import both functions.

        Raises:
            UsageError: if there is no such function.
        """
        for option, name in self._asdict().items():
            if name is not None:
                UserFunction(name, option)

    def picture(self, env: gym.Env[Any, Any]) -> Any:
        """The user's picture of an environment, which may be anything.

        Raises:
            UsageError: if the function raises.
        """
        return UserFunction(self.render or "", "render")(env)

    def told(self, env: gym.Env[Any, Any]) -> dict[str, str]:
        """The user's facts about an environment.

        Raises:
            UsageError: if the function raises, or returns something else than named strings and numbers.
        """
        if self.facts is None:
            return {}
        found = UserFunction(self.facts, "facts")(env)
        if isinstance(found, Mapping) and all(
            isinstance(name, str) and isinstance(fact, str | int | float) for name, fact in found.items()
        ):
            return {name: str(fact) for name, fact in found.items()}
        given = " ".join(repr(found).split())[:200]
        raise UsageError(f"facts {self.facts!r} returned {given}; return named strings, such as {{'slippery': 'yes'}}")


PLAIN = OwnView()
"""What the environment itself shows and tells, and nothing else."""


class OwnViewer:
    """Draws and tells what the user's functions give, and leaves the rest to the environment's viewer."""

    def __init__(self, env: gym.Env[Any, Any], look: MiniGridViewer | RenderViewer, own: OwnView) -> None:
        self.env_info = look.env_info
        self._env, self._look, self._own = env, look, own

    def key(self) -> Hashable | None:
        """The environment's state with the facts; None where a picture of the user's own has to be drawn."""
        state = self._look.key() if self._own.render is None else None
        return None if state is None else (state, *self._own.told(self._env).items())

    def view(self, history: tuple[str, ...] = ()) -> View:
        """The view, with the user's picture and facts."""
        facts = self._own.told(self._env)
        if self._own.render is None:
            return replace(self._look.view(history), facts=facts)
        picture = Picture(rgb(self.env_info.env_id, self._own.picture(self._env)))
        return replace(self._look.view_of(picture, history), facts=facts)
