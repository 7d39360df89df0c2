"""One call to a model: what it waits for, what is sent, what a failure means, what it costs."""

from lvlm2p_wrappers.client.budget import Budget
from lvlm2p_wrappers.client.client import Client
from lvlm2p_wrappers.client.event_loop import background_loop, submit
from lvlm2p_wrappers.client.litellm_backend import Request
from lvlm2p_wrappers.client.shared import LedgerThread, SharedBudget

__all__ = ["Budget", "Client", "LedgerThread", "Request", "SharedBudget", "background_loop", "submit"]
