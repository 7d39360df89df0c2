"""The flags of every command that has a teacher."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Annotated, Any

from lvlm2p_wrappers.cli.arguments import Json, Prompts, StoreFile, optional
from lvlm2p_wrappers.client import catalogue
from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.prompts.examples import read_examples
from lvlm2p_wrappers.prompts.loader import PromptFiles
from lvlm2p_wrappers.store import DEFAULT, is_there, locate
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.views import OwnView

_OPTIONS = (
    "prompts",
    "store",
    "concurrency",
    "rpm",
    "rpm_scope",
    "budget_usd",
    "budget_calls",
    "budget_scope",
    "offline",
    "render",
    "facts",
)
"""The teacher's options that are flags of the same name; a command may have some of them."""


@dataclass(kw_only=True)
class TeacherFlags:
    """The flags of every command that has a teacher."""

    prompts: Prompts = None
    trust: Annotated[bool, optional()] = False  # import the modules that the prompt folder's examples name
    render: Annotated[str | None, optional("MODULE:FUNCTION")] = None  # from an environment to the picture to show
    facts: Annotated[str | None, optional("MODULE:FUNCTION")] = None
    """from an environment to what no picture shows, as named strings"""
    store: StoreFile = DEFAULT
    json: Json = False

    @property
    def own_view(self) -> OwnView:
        """What the user has shown and told."""
        return OwnView(self.render, self.facts)

    def teacher(self, model: str, **others: Any) -> Teacher:
        """The teacher that the flags describe.

        Args:
            model: the model string.
            **others: options of the teacher in place of what the flags say.

        Raises:
            UsageError: if the model string or a value cannot work, or a module cannot be imported.
        """
        return Teacher(model, **self.options(model, **others))

    def options(self, model: str, **others: Any) -> dict[str, Any]:
        """The options of a teacher that the flags describe.

        Args:
            model: the model string.
            **others: options in place of what the flags say.

        Raises:
            UsageError: if the model string cannot work, or a module cannot be imported.
        """
        if not model.startswith("python:"):
            catalogue.recognise(model)
        options = {name: getattr(self, name) for name in _OPTIONS if hasattr(self, name)} | others
        if self.trust and options["prompts"] is not None:
            _import_modules(options["prompts"])
        return options

    def model_teacher(self, model: str) -> Teacher:
        """The teacher, for a command that asks nobody and makes no store.

        Raises:
            UsageError: as :meth:`teacher`; also if a Python function teaches.
        """
        teacher = self.teacher(model, store=self.store_if_there())
        if teacher.function is not None:
            raise UsageError(
                f"{model} is a Python function: it gets no messages and costs nothing; `lvlm2p ask` shows what it says"
            )
        return teacher

    def store_if_there(self) -> str | None:
        """The store, if there is one: commands that only look make none."""
        return self.store if is_there(locate(self.store)) else None


def _import_modules(prompts: str) -> None:
    """Import the modules that a prompt folder's pictured examples name, which may run any code."""
    for _, example in read_examples(PromptFiles(prompts, "default")).pictured:
        module = example.picture.env_id.rpartition(":")[0]
        try:
            if module:
                importlib.import_module(module)
        except (ImportError, ValueError) as error:
            raise UsageError(f"--trust: the module {module} that {prompts} names cannot be imported: {error}") from None
