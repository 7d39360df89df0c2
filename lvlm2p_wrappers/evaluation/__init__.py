"""Evaluates a teacher before a run is paid for: its labels, its rollouts, its calibration and its price.

``states`` samples the states, ``ground_truth`` is what the labels are compared with, ``labelling`` and ``rollout`` ask
the teacher, ``folder`` stores the rows, ``metrics`` sums them up, and ``comparison`` compares two teachers.
"""

from lvlm2p_wrappers.evaluation.folder import EvaluationFolder, inside, read_card, read_folder, read_picture
from lvlm2p_wrappers.evaluation.labelling import UnfinishedError, label_states
from lvlm2p_wrappers.evaluation.metrics import RUN_FRAMES, compute_metrics
from lvlm2p_wrappers.evaluation.rollout import Job, roll_out
from lvlm2p_wrappers.evaluation.states import State, collect_states

__all__ = [
    "RUN_FRAMES",
    "EvaluationFolder",
    "Job",
    "State",
    "UnfinishedError",
    "collect_states",
    "compute_metrics",
    "inside",
    "label_states",
    "read_card",
    "read_folder",
    "read_picture",
    "roll_out",
]
