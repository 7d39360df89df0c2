"""Every validated answer and every call, in one SQL store.

``store`` is what a teacher asks, by ``statements`` on ``tables``; ``processes`` knows who else uses it. ``rows`` checks
what is read; ``queries`` reads and prunes, ``jsonl`` publishes. ``sqlite`` is the engine, ``migrations`` opens older
stores.
"""

from lvlm2p_wrappers.store.jsonl import Loaded, export, load
from lvlm2p_wrappers.store.location import DEFAULT, locate
from lvlm2p_wrappers.store.queries import ModelUse, Pruned, Stats, answers, call, calls, prune, stats
from lvlm2p_wrappers.store.store import Store

__all__ = [
    "DEFAULT",
    "Loaded",
    "ModelUse",
    "Pruned",
    "Stats",
    "Store",
    "answers",
    "call",
    "calls",
    "export",
    "load",
    "locate",
    "prune",
    "stats",
]
