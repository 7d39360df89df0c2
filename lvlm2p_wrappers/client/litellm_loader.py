"""LiteLLM, imported at first use."""

from __future__ import annotations

import functools
import logging
import os
import warnings
from typing import Any

from lvlm2p_wrappers import embedded_teacher

IN_PROCESS = "embedded/"
"""The beginning of the models that run in this process: nothing is sent, and nothing is billed."""

LOCAL = (IN_PROCESS, "ollama/", "ollama_chat/")
"""Providers that bill nothing."""


@functools.cache
def load_litellm() -> Any:
    """LiteLLM, imported at first use: quiet, without network, and with the embedded teacher registered."""
    # These are read while it is imported: without them it fetches a price list, and reads every .env file up the tree.
    for name, value in (
        ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
        ("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True"),
        ("LITELLM_MODE", "PRODUCTION"),
    ):
        os.environ.setdefault(name, value)
    import litellm

    # Pydantic would print what a provider's reply has in the wrong place, which may be the key.
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings")
    litellm.suppress_debug_info = True
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    embedded_teacher.register()
    return litellm
