"""The records that views, prompts, teacher, store, evaluation and report share, each of them defined once.

Their fields are what the evaluation's files and the report show: whoever renames one breaks a test, not a page.
"""

from lvlm2p_wrappers.records.advice import Advice
from lvlm2p_wrappers.records.conversation import (
    Answer,
    Call,
    Exchange,
    LoggedCall,
    Message,
    Outcome,
    Question,
    Reply,
    Role,
    Schema,
    Stage,
    StoredAnswer,
    Usage,
    total,
)
from lvlm2p_wrappers.records.label import Episode, Failure, GroundTruth, Heading, Label, Place, Policy, Source, Verdict
from lvlm2p_wrappers.records.metrics import (
    ActionMetrics,
    AnalysisMetrics,
    CalibrationBin,
    Evaluation,
    EvaluationArguments,
    Metrics,
    PriceMetrics,
    Rate,
    ReplyMetrics,
    RolloutMetrics,
)
from lvlm2p_wrappers.records.record import Count, Integer, Record
from lvlm2p_wrappers.records.standing import Scope, Standing
from lvlm2p_wrappers.records.view import EnvInfo, Family, View, rgb

__all__ = [
    "ActionMetrics",
    "Advice",
    "AnalysisMetrics",
    "Answer",
    "CalibrationBin",
    "Call",
    "Count",
    "EnvInfo",
    "Episode",
    "Evaluation",
    "EvaluationArguments",
    "Exchange",
    "Failure",
    "Family",
    "GroundTruth",
    "Heading",
    "Integer",
    "Label",
    "LoggedCall",
    "Message",
    "Metrics",
    "Outcome",
    "Place",
    "Policy",
    "PriceMetrics",
    "Question",
    "Rate",
    "Record",
    "Reply",
    "ReplyMetrics",
    "Role",
    "RolloutMetrics",
    "Schema",
    "Scope",
    "Source",
    "Stage",
    "Standing",
    "StoredAnswer",
    "Usage",
    "Verdict",
    "View",
    "rgb",
    "total",
]
