"""Prompt sets: folders of templates and data that say how a model is asked."""

from lvlm2p_wrappers.prompts.instructions import Action
from lvlm2p_wrappers.prompts.loader import bundled_prompts
from lvlm2p_wrappers.prompts.options import Options
from lvlm2p_wrappers.prompts.prompt_set import PromptSet
from lvlm2p_wrappers.records import Question, Schema

__all__ = ["Action", "Options", "PromptSet", "Question", "Schema", "bundled_prompts"]
