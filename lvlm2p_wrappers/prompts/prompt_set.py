"""A prompt set: renders a view into the conversations of both stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lvlm2p_wrappers.errors import PromptError
from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.prompts.instructions import Action, Instructions
from lvlm2p_wrappers.prompts.loader import PromptFiles
from lvlm2p_wrappers.prompts.options import read_options
from lvlm2p_wrappers.prompts.sandbox import explained, template_environment
from lvlm2p_wrappers.records import EnvInfo, Message, Question, Stage, View
from lvlm2p_wrappers.views import EpisodeMemory, with_lines


class PromptSet:
    """A folder of templates and data that renders a view into the conversations of the two stages.

    A user's folder stands in front of the bundled set: its files win, and its options change only what they name.
    A folder is data: nothing in it runs code, opens an address, reads another file, or takes more than about a second.

    Args:
        folder: a user's folder, the name of a bundled set, or None for the bundled set that fits.
        family: the bundled set that stands behind a user's folder.

    Attributes:
        folders: where its files are, in this order.
        fingerprint: a short digest of every file in them.
        options: its ``set.toml``.

    Raises:
        PromptError: if the folder does not exist, or a file in it is broken.
    """

    def __init__(self, folder: str | Path | None, family: str) -> None:
        files = PromptFiles(folder, family)
        self.folders, self.fingerprint = files.folders, files.fingerprint
        self.options = read_options(files)
        self._sampling = self.options.sampling.model_dump(exclude_none=True)
        self._templates = template_environment(files)
        self._instructions = Instructions(files, self.options, self._render, self._turn)

    @property
    def modules(self) -> list[str]:
        """The modules that the set's examples name with their environments; none of them is imported here."""
        return self._instructions.modules

    def actions(self, env_info: EnvInfo) -> list[Action]:
        """The actions of an environment, named and described.

        Raises:
            PromptError: if the set names another number of actions than the environment has.
        """
        return self._instructions.actions(env_info)

    def memory(self, env_info: EnvInfo) -> EpisodeMemory:
        """What has to be remembered of an episode of an environment."""
        return EpisodeMemory(history=self.options.history, frames=self.options.frames_of(env_info.env_id))

    def as_told(self, view: View) -> View:
        """The view as the set shows and tells it: its picture style, and nothing that lies further back."""
        frames, history = self._instructions.frames(view.env_id), self.options.history
        pictures = tuple(view.pictures[-frames:])
        if self.options.picture_style == "lines" and not view.picture.lined:
            pictures = tuple(map(with_lines, pictures))  # type: ignore[arg-type]  # all are made pictures
        if pictures == view.pictures and len(view.history) <= history:
            return view
        return replace(view, pictures=pictures, history=view.history[max(0, len(view.history) - history) :])

    def analysis(self, view: View) -> Question:
        """The first stage: what is where."""
        return self._question("analysis", view)

    def action(self, view: View, analysis: str) -> Question:
        """The second stage: a probability for every action, given the first stage's answer as JSON text.

        In one-stage operation the analysis is empty and the picture is always sent.
        """
        return self._question("action", view, analysis)

    def repair(self, question: Question, reply: str, problem: str) -> Question:
        """The same question with one turn more, which quotes what was wrong with the reply."""
        turn = Message("user", self._render("repair.jinja", {"problem": problem, "schema": question.schema.text}))
        return question._replace(messages=(*question.messages, Message("assistant", reply), turn))

    def check(self, env_info: EnvInfo) -> None:
        """Render every template of the set once, so that a mistake in one shows before the first question.

        Raises:
            PromptError: naming the template, the line and what is wrong.
        """
        env_id, family, actions = env_info
        blank = Picture(np.zeros((1, 1, 3), np.uint8))
        view = View((blank, blank), actions, "a mission", history=actions[:1], env_id=env_id, family=family)
        for analysis in ("", "{}"):
            self.action(view, analysis)
        self.repair(self.analysis(view), "a reply", "a problem")

    def _question(self, stage: Stage, view: View, analysis: str = "") -> Question:
        env_info = view.env_info
        is_pictured = stage == "analysis" or self.options.picture_in_action or not analysis
        turn = self._turn(stage, view, analysis, is_pictured=is_pictured)
        messages = (*self._instructions.beginning(stage, env_info, is_pictured), *turn)
        schema, read = self._instructions.form(stage, env_info)
        return Question(stage, env_info.env_id, messages, schema, self._sampling, read, self.repair)

    def _turn(self, stage: Stage, view: View, analysis: str, *, is_pictured: bool) -> tuple[Message, ...]:
        """The messages about a view: one for each earlier picture, and the question with the present one."""
        view = self.as_told(view)
        text = self._user(stage, view, analysis, pictures=len(view.pictures) if is_pictured else 0)
        if not is_pictured:
            return (Message("user", text),)
        count, messages = len(view.pictures), []
        for number, picture in enumerate(view.earlier, start=1):
            variables = {"number": number, "pictures": count, "steps_ago": count - number}
            messages.append(Message("user", self._render("earlier.jinja", variables), picture))
        return (*messages, Message("user", text, view.picture))

    def _user(self, stage: Stage, view: View, analysis: str, *, pictures: int) -> str:
        named = dict(zip(view.env_info.actions, self._instructions.names(view.env_info), strict=True))
        variables: dict[str, Any] = {
            "env_id": view.env_info.env_id,
            "mission": view.mission,
            "carrying": view.carrying,
            "facts": dict(view.facts),
            "frames": self._instructions.frames(view.env_id),
            "pictures": pictures,
            "choices": self._instructions.choices(view.env_info),
            "history": [named[action] for action in view.history],
        }
        if stage == "action":
            variables["analysis"] = analysis
        return self._render(f"{stage}.user.jinja", variables)

    def _render(self, name: str, variables: Mapping[str, Any]) -> str:
        try:
            return self._templates.get_template(name).render(variables).rstrip("\n")
        except Exception as error:  # noqa: BLE001 -- a template may raise anything
            raise PromptError(explained(error, name, variables, self.folders)) from None
