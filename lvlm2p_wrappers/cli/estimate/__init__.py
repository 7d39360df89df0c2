"""``lvlm2p estimate``: what a run may cost, before anything is paid for."""

from lvlm2p_wrappers.cli.estimate.estimate import add_parser, run

__all__ = ["add_parser", "run"]
