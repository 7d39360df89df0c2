"""The teacher: its options; its questions about views; where an answer comes from; how it came about."""

from lvlm2p_wrappers.teacher.config import OnError, TeacherOptions, require_known
from lvlm2p_wrappers.teacher.session import PendingAdvice
from lvlm2p_wrappers.teacher.teacher import Teacher

__all__ = ["OnError", "PendingAdvice", "Teacher", "TeacherOptions", "require_known"]
