"""Every validated answer and every call, in one SQL store.

``store`` is what a teacher asks, by ``statements`` on ``tables``; ``processes`` knows who else uses it. ``rows`` checks
what is read; ``queries`` reads and prunes, ``jsonl`` publishes, ``ledger`` keeps the limits of all who share it.
``location`` finds the engine, ``sqlite`` and ``postgres`` are those there are, ``migrations`` opens older stores.
"""

from lvlm2p_wrappers.store.batches import Batch, add_batch, batches_of, update_batch
from lvlm2p_wrappers.store.jsonl import Loaded, export, load
from lvlm2p_wrappers.store.ledger import Ledger
from lvlm2p_wrappers.store.location import DEFAULT, is_there, locate
from lvlm2p_wrappers.store.queries import ModelUse, Pruned, Stats, answers, call, calls, prune, stats
from lvlm2p_wrappers.store.store import Store

__all__ = [
    "DEFAULT",
    "Batch",
    "Ledger",
    "Loaded",
    "ModelUse",
    "Pruned",
    "Stats",
    "Store",
    "add_batch",
    "answers",
    "batches_of",
    "call",
    "calls",
    "export",
    "is_there",
    "load",
    "locate",
    "prune",
    "stats",
    "update_batch",
]
