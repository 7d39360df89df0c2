"""A loopback stand-in for five model providers, for tests and benchmarks: real HTTP, scripted faults, a full log."""

from .conversation import Outcome, Seen, Turn
from .exchange import Exchange
from .faults import FAULTS, Fault, RateLimit, random_faults
from .server import RETIRED, WIRES, Provider, closed_url, environment

__all__ = [
    "FAULTS",
    "RETIRED",
    "WIRES",
    "Exchange",
    "Fault",
    "Outcome",
    "Provider",
    "RateLimit",
    "Seen",
    "Turn",
    "closed_url",
    "environment",
    "random_faults",
]
