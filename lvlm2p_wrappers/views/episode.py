"""What a teacher is shown and told of the steps before a moment: the last pictures and the last actions."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.views.viewer import Viewer


class EpisodeMemory:
    """Remembers of an episode under way what a prompt set wants; nothing of the episode before.

    >>> memory = EpisodeMemory(history=1)
    >>> memory.act("left"), memory.act("right")
    (None, None)
    >>> memory.history, memory.steps
    (('right',), 2)

    Args:
        history: how many of the last actions are told.
        frames: how many pictures are shown, the present one included.

    Attributes:
        steps: how many actions the episode has had.
    """

    def __init__(self, *, history: int = 0, frames: int = 1) -> None:
        self.steps = 0
        self.frames = frames
        self._actions = deque[str](maxlen=history)
        self._earlier = deque[Picture](maxlen=frames - 1)

    @property
    def history(self) -> tuple[str, ...]:
        """The names of the last actions, oldest first."""
        return tuple(self._actions)

    def begin(self) -> None:
        """Forget everything: a new episode begins."""
        self.steps = 0
        self._actions.clear()
        self._earlier.clear()

    def act(self, action: str) -> None:
        """Note an action by its name."""
        self.steps += 1
        self._actions.append(action)

    def look(self, viewer: Viewer) -> Viewer:
        """What is shown of the present moment; to be called once for each observation, also where nothing is asked.

        Returns:
            The viewer itself where one picture is shown, which need not be drawn; else the view with its pictures.
        """
        if self.frames == 1:
            return viewer
        view = viewer.view()
        pictures = (*self._earlier, view.picture)
        self._earlier.append(view.picture)
        return replace(view, pictures=pictures)
