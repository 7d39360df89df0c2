"""Every validated answer and every call, in one SQL store.

``records`` says what is kept and ``schema`` how; ``store`` is what a teacher asks; ``archive`` reads and prunes what it
holds, and ``exchange`` publishes it.
"""

from lvlm2p_wrappers.store.archive import ModelUse, Pruned, Stats, answers, calls, prune, stats
from lvlm2p_wrappers.store.exchange import Loaded, export, load
from lvlm2p_wrappers.store.records import Answer, Call, LoggedCall, StoredAnswer, Turn
from lvlm2p_wrappers.store.store import DEFAULT, Store, locate

__all__ = [
    "DEFAULT",
    "Answer",
    "Call",
    "Loaded",
    "LoggedCall",
    "ModelUse",
    "Pruned",
    "Stats",
    "Store",
    "StoredAnswer",
    "Turn",
    "answers",
    "calls",
    "export",
    "load",
    "locate",
    "prune",
    "stats",
]
