"""Every validated answer and every call, in one SQL store.

``store`` is what a teacher asks. ``tables``, ``parts`` and ``rows`` say how things are kept and checked; ``queries``
reads and prunes them, ``jsonl`` publishes them. ``sqlite`` is the engine, ``migrations`` opens older stores.
"""

from lvlm2p_wrappers.store.jsonl import Loaded, export, load
from lvlm2p_wrappers.store.queries import ModelUse, Pruned, Stats, answers, call, calls, prune, stats
from lvlm2p_wrappers.store.store import DEFAULT, Store, locate

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
