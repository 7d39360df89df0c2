"""Every validated answer and every call, in one SQL store.

``tables`` says how they are kept; ``store`` is what a teacher asks; ``queries`` reads and prunes what it
holds, and ``jsonl`` publishes it.
"""

from lvlm2p_wrappers.store.jsonl import Loaded, export, load
from lvlm2p_wrappers.store.queries import ModelUse, Pruned, Stats, answers, calls, prune, stats
from lvlm2p_wrappers.store.store import DEFAULT, Store, locate

__all__ = [
    "DEFAULT",
    "Loaded",
    "ModelUse",
    "Pruned",
    "Stats",
    "Store",
    "answers",
    "calls",
    "export",
    "load",
    "locate",
    "prune",
    "stats",
]
