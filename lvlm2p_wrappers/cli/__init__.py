"""The command ``lvlm2p``: know what a teacher will cost, and look after what it has said.

A file a command; ``main`` puts them together. Only this package prints.
"""

from lvlm2p_wrappers.cli.main import main

__all__ = ["main"]
