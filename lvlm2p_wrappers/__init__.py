"""Large vision-language models as teachers for small reinforcement-learning agents.

Importing it loads neither torch nor LiteLLM, opens nothing and asks nobody; a teacher does so at its first question.
"""

from lvlm2p_wrappers.command_line import Script, ScriptFlags, command_line
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
from lvlm2p_wrappers.observations import (
    AgentCentredObservation,
    PackedObservation,
    PixelObservation,
    StudentSpace,
    student_env,
)
from lvlm2p_wrappers.records import Advice, View
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.training_run import TrainingRun, episode_success
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
    "PackedObservation",
    "PixelObservation",
    "PromptError",
    "Script",
    "ScriptFlags",
    "StoreError",
    "StudentSpace",
    "Teacher",
    "TeacherError",
    "TeacherWrapper",
    "TrainingRun",
    "TransportError",
    "UsageError",
    "VectorTeacherWrapper",
    "View",
    "command_line",
    "episode_success",
    "read_labels",
    "student_env",
]
