"""The teacher: from a view, through two questions to a model, to advice."""

from lvlm2p_wrappers.teacher.teacher import OnError, PendingAdvice, Teacher, TeacherOptions

__all__ = ["OnError", "PendingAdvice", "Teacher", "TeacherOptions"]
