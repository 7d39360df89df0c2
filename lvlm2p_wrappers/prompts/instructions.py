"""What a prompt set says of an environment, whatever the view: actions, system messages, examples, forms of replies."""

from __future__ import annotations

import fnmatch
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lvlm2p_wrappers.errors import BadReplyError, PromptError
from lvlm2p_wrappers.prompts.examples import Worked, read_examples
from lvlm2p_wrappers.prompts.loader import PromptFiles
from lvlm2p_wrappers.prompts.options import Options
from lvlm2p_wrappers.prompts.own_schema import OwnSchema
from lvlm2p_wrappers.records import EnvInfo, Message, Schema, Stage
from lvlm2p_wrappers.replies import read_action, read_analysis
from lvlm2p_wrappers.schemas import ANALYSES, action_schema, analysis_schema
from lvlm2p_wrappers.views import EpisodeMemory


class Action(NamedTuple):
    """An action as the templates see it."""

    name: str
    does: str


class Instructions:
    """What stands before a view in every conversation about its environment, and how the replies are read.

    Args:
        files: the set's files.
        options: its ``set.toml``.
        render: renders a template of the set with variables.
        turn: renders the messages of a stage about a view, with the first stage's answer; with pictures or without.

    Raises:
        PromptError: if a file is broken.
    """

    def __init__(
        self,
        files: PromptFiles,
        options: Options,
        render: Callable[[str, Mapping[str, Any]], str],
        turn: Callable[..., tuple[Message, ...]],
    ) -> None:
        self._files = files
        self._options = options
        self._render = render
        self._turn = turn
        self._examples = read_examples(files)
        self._analysis = self._analysis_form()

    @property
    def modules(self) -> list[str]:
        """The modules that the set's examples name with their environments; none of them is imported here."""
        named = {example.picture.env_id.rpartition(":")[0] for _, example in self._examples.pictured}
        return sorted(named - {""})

    @functools.lru_cache(maxsize=64)  # noqa: B019 -- a set lives as long as its teacher
    def actions(self, env_info: EnvInfo) -> list[Action]:
        """The actions of an environment, named and described.

        Raises:
            PromptError: if the set names another number of actions than the environment has.
        """
        for row in self._options.names:
            if fnmatch.fnmatchcase(env_info.env_id, row.env):
                if len(row.actions) != len(env_info.actions):
                    counts = f"{len(row.actions)} actions, {env_info.env_id} has {len(env_info.actions)}"
                    raise PromptError(f"{self._files.path('set.toml')}: [[names]] for {row.env!r} has {counts}")
                if row.does and len(row.does) != len(row.actions):
                    raise PromptError(
                        f"{self._files.path('set.toml')}: [[names]] for {row.env!r}: one `does` for each action"
                    )
                does = row.does or [self._options.actions.get(name, "") for name in row.actions]
                return [Action(*pair) for pair in zip(row.actions, does, strict=True)]
        return [Action(name, self._options.actions.get(name, "")) for name in env_info.actions]

    @functools.lru_cache(maxsize=64)  # noqa: B019 -- a set lives as long as its teacher
    def names(self, env_info: EnvInfo) -> tuple[str, ...]:
        """The names of an environment's actions, as the model is told them."""
        return tuple(action.name for action in self.actions(env_info))

    @functools.lru_cache(maxsize=64)  # noqa: B019 -- a set lives as long as its teacher
    def frames(self, env_id: str) -> int:
        """How many of the last pictures of an environment are shown."""
        return self._options.frames_of(env_id)

    @functools.lru_cache(maxsize=64)  # noqa: B019 -- a set lives as long as its teacher
    def form(self, stage: Stage, env_info: EnvInfo) -> tuple[Schema, Callable[[str], str]]:
        """The schema of a stage's reply, and what checks such a reply."""
        if stage == "analysis":
            return self._analysis
        names = self.names(env_info)
        return Schema(action_schema(names)), functools.partial(read_action, actions=names)

    @functools.lru_cache(maxsize=64)  # noqa: B019 -- a set lives as long as its teacher
    def beginning(self, stage: Stage, env_info: EnvInfo, is_pictured: bool) -> tuple[Message, ...]:
        """The system message and the pictured examples: providers cache them, the log keeps them once."""
        schema, _ = self.form(stage, env_info)
        variables = {
            "env_id": env_info.env_id,
            "actions": self.actions(env_info),
            "rules": self._rules(env_info.env_id),
            "examples": self._examples.in_words_for(env_info.env_id),
            "pictured": len(self._worked(env_info)),
            "schema": schema.text,
            "picture": is_pictured,
        }
        system = Message("system", self._render(f"{stage}.system.jinja", variables))
        return (system, *self._examples_of(stage, env_info))

    @functools.lru_cache(maxsize=64)  # noqa: B019 -- a set lives as long as its teacher
    def _worked(self, env_info: EnvInfo) -> list[Worked]:
        options, env_id = self._options, env_info.env_id

        def memory() -> EpisodeMemory:
            return EpisodeMemory(history=options.history, frames=options.frames_of(env_id))

        return self._examples.pictured_for(env_id, options.example_pictures, memory, self.names)

    def _examples_of(self, stage: Stage, env_info: EnvInfo) -> tuple[Message, ...]:
        """The pictured examples as turns of the conversation: a question as ours will be, and the reply to imitate."""
        turns: list[Message] = []
        _, read = self._analysis
        for view, example, where in self._worked(env_info):
            names = self.names(env_info)
            probabilities = dict.fromkeys(names, 0.0) | example.probabilities
            action = json.dumps({"reasoning": example.reasoning, "probabilities": probabilities})
            try:
                analysis = ""
                if self._options.stages == 2:
                    analysis = read(json.dumps(example.analysis))
                reply = analysis if stage == "analysis" else read_action(action, names)
            except (BadReplyError, TypeError, RecursionError) as error:  # TOML has dates, and tables nested deep
                raise PromptError(f"{where} is no reply that {env_info.env_id} could get: {error}") from None
            sent = stage == "analysis" or self._options.picture_in_action or not analysis
            turns.extend(self._turn(stage, view, analysis, is_pictured=sent))
            turns.append(Message("assistant", reply))
        return tuple(turns)

    def _rules(self, env_id: str) -> str:
        rules = self._options.rules.items()
        return next((file for pattern, file in rules if fnmatch.fnmatchcase(env_id, pattern)), "")

    def _analysis_form(self) -> tuple[Schema, Callable[[str], str]]:
        """The schema of the first stage's reply, and what checks such a reply."""
        own = self._files.text("analysis.schema.json")
        if own is None:
            form = ANALYSES[self._options.analysis]
            return Schema(analysis_schema(form)), functools.partial(read_analysis, form=form)
        try:
            schema = OwnSchema(own)
        except ValueError as error:
            raise PromptError(f"{self._files.path('analysis.schema.json')}: {error}") from None
        return Schema(schema.json), schema.read
