"""What the student sees: symbols, pixels or the environment's own observation, and in all of them the mission.

- ``student.py`` makes an environment as the student sees it.
- ``grid.py`` writes down a MiniGrid grid as symbols; ``pixels.py`` draws; ``atari.py`` is Atari's preprocessing.
- ``packed.py`` packs any observation into one vector of a ``StudentSpace``, in which ``words.py`` has what is text.
"""

from lvlm2p_wrappers.observations.grid import AgentCentredObservation
from lvlm2p_wrappers.observations.packed import PackedObservation
from lvlm2p_wrappers.observations.pixels import PixelObservation
from lvlm2p_wrappers.observations.space import StudentSpace
from lvlm2p_wrappers.observations.student import student_env

__all__ = ["AgentCentredObservation", "PackedObservation", "PixelObservation", "StudentSpace", "student_env"]
