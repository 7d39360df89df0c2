"""What a prompt set says of an environment, whatever the view: actions, system messages, examples, forms of replies."""

from __future__ import annotations

import fnmatch
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lvlm2p_wrappers.errors import BadReplyError, PromptError
from lvlm2p_wrappers.prompts.examples import Worked, read_examples
from lvlm2p_wrappers.prompts.loader import PromptFiles
from lvlm2p_wrappers.prompts.options import Options, by_task
from lvlm2p_wrappers.prompts.own_schema import OwnSchema
from lvlm2p_wrappers.records import EnvInfo, Message, Schema, Stage
from lvlm2p_wrappers.replies import read_action, read_analysis
from lvlm2p_wrappers.schemas import BY_TASK, action_schema, analysis_form, analysis_schema, outline
from lvlm2p_wrappers.views import EpisodeMemory


class Action(NamedTuple):
    """An action as the templates see it; ``own`` is its name outside of the conversation."""

    name: str
    does: str
    own: str


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
        self._own_analysis = self._own_form()

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
                return [Action(*each) for each in zip(row.actions, does, row.actions, strict=True)]
        told = [(name, self._options.rename.get(name, name)) for name in env_info.actions]
        known = self._options.actions
        return [Action(name, known.get(name) or known.get(own, ""), own) for own, name in told]

    @functools.lru_cache(maxsize=64)  # noqa: B019 -- a set lives as long as its teacher
    def asked(self, env_info: EnvInfo) -> list[Action]:
        """The actions that can matter to the task: those that the model is asked about."""
        chosen = self.choices(env_info)
        return [action for own, action in zip(env_info.actions, self.actions(env_info), strict=True) if own in chosen]

    @functools.lru_cache(maxsize=64)  # noqa: B019 -- a set lives as long as its teacher
    def choices(self, env_info: EnvInfo) -> list[str]:
        """The same by the environment's own names."""
        mattering = by_task(self._options.choices, env_info.env_id, [])
        return [name for name in env_info.actions if name in mattering] or list(env_info.actions)

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
        if stage == "action":
            names = [action.name for action in self.asked(env_info)]
            return Schema(action_schema(names)), functools.partial(read_action, actions=names)
        if self._own_analysis is not None:
            return self._own_analysis
        form = analysis_form(self._options.analysis, frozenset(self._reported(env_info)))
        return Schema(analysis_schema(form)), functools.partial(read_analysis, form=form)

    @functools.lru_cache(maxsize=64)  # noqa: B019 -- a set lives as long as its teacher
    def beginning(self, stage: Stage, env_info: EnvInfo, is_pictured: bool) -> tuple[Message, ...]:
        """The system message and the pictured examples: providers cache them, the log keeps them once."""
        schema, _ = self.form(stage, env_info)
        env_id = env_info.env_id
        variables = {
            "env_id": env_id,
            "actions": self.asked(env_info),
            "choices": self.choices(env_info),
            "rules": by_task(self._options.rules, env_id, ""),
            "shows": by_task(self._options.shows, env_id, []),
            "report": self._reported(env_info),
            "examples": [self._in_told_names(row, env_info) for row in self._examples.in_words_for(env_id)],
            "pictured": len(self._worked(env_info)),
            "schema": schema.text,
            "form": outline(schema.json),
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
        schema, read = self.form("analysis", env_info)
        _, read_reply = self.form("action", env_info)
        names = [action.name for action in self.asked(env_info)]
        for view, example, where in self._worked(env_info):
            given = self._in_told_names({"probabilities": example.probabilities}, env_info)["probabilities"]
            known = {name: p for name, p in given.items() if p or name in names}  # 0 may be said of any action
            action = json.dumps({"reasoning": example.reasoning, "probabilities": dict.fromkeys(names, 0.0) | known})
            try:
                analysis = ""
                if self._options.stages == 2:
                    analysis = read(json.dumps(_for_task(example.analysis, schema)))
                reply = analysis if stage == "analysis" else read_reply(action)
            except (BadReplyError, TypeError, RecursionError) as error:  # TOML has dates, and tables nested deep
                raise PromptError(f"{where} is no reply that {env_info.env_id} could get: {error}") from None
            sent = stage == "analysis" or self._options.picture_in_action or not analysis
            turns.extend(self._turn(stage, view, analysis, is_pictured=sent))
            turns.append(Message("assistant", reply))
        return tuple(turns)

    def _reported(self, env_info: EnvInfo) -> Sequence[str]:
        return by_task(self._options.report, env_info.env_id, [])

    def _in_told_names(self, example: Mapping[str, Any], env_info: EnvInfo) -> dict[str, Any]:
        """An example whose probabilities may name the actions as the environment does, or as the model is told."""
        told = dict(zip(env_info.actions, self.names(env_info), strict=True))
        given = example.get("probabilities")
        named = {told.get(name, name): p for name, p in given.items()} if isinstance(given, Mapping) else given
        return {**example, "probabilities": named}

    def _own_form(self) -> tuple[Schema, Callable[[str], str]] | None:
        """The schema that the set's folder gives the first stage's reply, and what checks such a reply."""
        own = self._files.text("analysis.schema.json")
        if own is None:
            return None
        try:
            schema = OwnSchema(own)
        except ValueError as error:
            raise PromptError(f"{self._files.path('analysis.schema.json')}: {error}") from None
        return Schema(schema.json), schema.read


def _for_task(analysis: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """An example's analysis with the fields of the task that is asked about, which may be another one."""
    asked = schema.json["properties"].keys() & set(BY_TASK)
    return {name: [] for name in asked} | {n: value for n, value in analysis.items() if n in asked or n not in BY_TASK}
