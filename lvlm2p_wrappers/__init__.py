"""Large vision-language models as teachers for small reinforcement-learning agents.

Importing it loads neither torch nor LiteLLM, opens nothing and asks nobody; a teacher does so at its first question.
"""

from lvlm2p_wrappers import environments as environments  # registers Crafter
from lvlm2p_wrappers.errors import (
    BadReplyError,
    BudgetError,
    ModelError,
    PromptError,
    StoreError,
    TeacherError,
    TransportError,
    UsageError,
)
from lvlm2p_wrappers.labels import LabelSet, read_labels
from lvlm2p_wrappers.lambda_weight import Lambda
from lvlm2p_wrappers.observations import AgentCentredObservation
from lvlm2p_wrappers.records import View
from lvlm2p_wrappers.replies import Advice
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.training_run import TrainingRun, command_line
from lvlm2p_wrappers.vector import VectorTeacherWrapper
from lvlm2p_wrappers.wrapper import TeacherWrapper

__all__ = [
    "Advice",
    "AgentCentredObservation",
    "BadReplyError",
    "BudgetError",
    "LabelSet",
    "Lambda",
    "ModelError",
    "PromptError",
    "StoreError",
    "Teacher",
    "TeacherError",
    "TeacherWrapper",
    "TrainingRun",
    "TransportError",
    "UsageError",
    "VectorTeacherWrapper",
    "View",
    "command_line",
    "read_labels",
]
