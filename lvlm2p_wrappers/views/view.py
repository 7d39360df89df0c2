"""What a teacher is shown of one moment: the picture, and in text only what no picture shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from lvlm2p_wrappers.picture import Picture

Family: TypeAlias = Literal["minigrid", "default"]


class EnvInfo(NamedTuple):
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

    env_info: EnvInfo
    picture: Picture
    mission: str = ""
    carrying: str = "nothing"
    history: tuple[str, ...] = ()
