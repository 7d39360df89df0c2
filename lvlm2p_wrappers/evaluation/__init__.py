"""A teacher's report card: how well it plays, sees, decides and knows what it knows, before a run is paid for.

``states`` takes the states it is judged on, ``truth`` says what is really so in them, ``labels`` and ``play`` ask the
teacher, ``record`` keeps what it said, ``scores`` is the card, and ``compare`` sets several teachers side by side.
"""

from lvlm2p_wrappers.evaluation.folder import Arguments, Episode, Label, Record
from lvlm2p_wrappers.evaluation.labelling import UnfinishedError, label_states
from lvlm2p_wrappers.evaluation.metrics import RUN_FRAMES, card
from lvlm2p_wrappers.evaluation.rollout import Job, play
from lvlm2p_wrappers.evaluation.states import State, collect_states

__all__ = [
    "RUN_FRAMES",
    "Arguments",
    "Episode",
    "Job",
    "Label",
    "Record",
    "State",
    "UnfinishedError",
    "card",
    "collect_states",
    "label_states",
    "play",
]
