"""The teacher: from a view, through two questions to a model, to advice."""

from lvlm2p_wrappers.teacher.config import TeacherOptions
from lvlm2p_wrappers.teacher.session import PendingAdvice
from lvlm2p_wrappers.teacher.teacher import OnError, Teacher

__all__ = ["OnError", "PendingAdvice", "Teacher", "TeacherOptions"]
