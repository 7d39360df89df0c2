"""One moment of an environment, for the commands that show what a teacher is told and answers about it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import humanize

from lvlm2p_wrappers.cli.arguments import EnvId, Force, Whole, optional
from lvlm2p_wrappers.cli.environments import in_silence, make, walk
from lvlm2p_wrappers.cli.teacher_flags import TeacherFlags
from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.output_file import output_file
from lvlm2p_wrappers.records import Message, Stage, View
from lvlm2p_wrappers.teacher import Teacher


@dataclass(kw_only=True)
class Snapshot(TeacherFlags):
    """The flags that choose the moment, and where to save what is shown."""

    env_id: EnvId
    seed: Whole = 0  # seed of the environment's reset, and of the random actions
    steps: Whole = 0  # random actions before the moment; where an episode ends, the next one begins
    save: Annotated[Path | None, optional("DIR")] = None  # write the picture here, and each message as a text file
    force: Force = False

    @property
    def moment(self) -> str:
        """The moment, in words."""
        return f"{self.env_id}, seed {self.seed}" + (f", after {self.steps} random steps" if self.steps else "")

    def view(self, teacher: Teacher) -> View:
        """What the teacher is shown of the moment. The picture is saved at once: nothing has been paid for yet.

        Raises:
            UsageError: if the environment or the prompt set cannot be used, or the picture cannot be saved.
        """
        with in_silence():
            env = make(self.env_id)
            look = teacher.viewer(env)
            prompts = teacher.prompts(look.env_info)
            memory = prompts.memory(look.env_info)
            view = prompts.as_told(next(itertools.islice(walk(env, look, self.seed, memory), self.steps, None)).view())
            env.close()
        self._write("picture.png", view.picture.png)
        return view

    def save_messages(self, view: View, stages: Sequence[tuple[Stage, Sequence[Message]]]) -> list[Path]:
        """Write every message into the folder, and the pictures of examples.

        Args:
            view: whose picture has been saved.
            stages: the messages of each stage; a reply is one, too.

        Returns:
            All files, in the order of the conversation; none if nothing is to be saved.

        Raises:
            UsageError: if a file cannot be written.
        """
        names = ["picture.png"]
        for stage_number, (stage, messages) in enumerate(stages, start=1):
            for number, message in enumerate(messages, start=1):
                name = f"{stage_number}-{stage}-{number:02}-{message.role}"
                names.append(self._write(f"{name}.txt", (message.text + "\n").encode("utf-8", "replace")))
                if message.picture is not None and message.picture != view.picture:  # an earlier one, or an example's
                    names.append(self._write(f"{name}.png", message.picture.png))
        return [] if self.save is None else [self.save / name for name in names]

    def told(self, view: View) -> dict[str, Any]:
        """What JSON output tells of the moment."""
        height, width = view.picture.pixels.shape[:2]
        picture = {"width": width, "height": height, "bytes": len(view.picture.png), "digest": view.picture.digest}
        told: dict[str, Any] = {"mission": view.mission, "carrying": view.carrying, "facts": dict(view.facts)}
        told |= {"picture": picture, "pictures": len(view.pictures)}
        return {"env_id": view.env_id, "seed": self.seed, "steps": self.steps, **told}

    def picture_in_words(self, view: View) -> str:
        """The picture's size, and where it can be seen."""
        height, width = view.picture.pixels.shape[:2]
        see = f"saved as {self.save / 'picture.png'}" if self.save else "to see it, add --save DIR"
        count = f", the last of {len(view.pictures)}" if view.earlier else ""
        return f"{width} x {height} pixels{count}, {humanize.naturalsize(len(view.picture.png))} as PNG; {see}"

    def _write(self, name: str, content: bytes) -> str:
        if self.save is not None:
            try:
                self.save.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"--save {self.save}: {error.strerror}: give a folder that can be written") from None
            with output_file(self.save / name, force=self.force) as fp:
                fp.write(content)
        return name
