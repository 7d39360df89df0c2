"""The command ``lvlm2p``: preview, ask, estimate, evaluate and compare teachers, and look after the store.

A file a command; ``main`` puts them together. Only this package prints.
"""

from lvlm2p_wrappers.cli.main import main

__all__ = ["main"]
