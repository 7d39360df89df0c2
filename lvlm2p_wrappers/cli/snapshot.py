"""One moment of an environment, for the commands that show what a teacher is told and says about it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import humanize

from lvlm2p_wrappers.cli.arguments import EnvId, Force, Prompts, Seed, optional
from lvlm2p_wrappers.cli.environments import in_silence, make
from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.output_file import output_file
from lvlm2p_wrappers.records import Message, Stage
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.views import View, viewer


@dataclass(kw_only=True)
class Snapshot:
    """The flags that choose the moment, and where to save what is shown."""

    env_id: EnvId
    seed: Seed = 0
    """Seed of the environment's reset, and of the random actions."""
    steps: Seed = 0
    """Random actions before the moment; where an episode ends, the next one begins."""
    prompts: Prompts = None
    save: Annotated[Path | None, optional("DIR")] = None
    """Write the picture into this folder, and each message as a text file."""
    force: Force = False

    @property
    def moment(self) -> str:
        """The moment, in words."""
        return f"{self.env_id}, seed {self.seed}" + (f", after {self.steps} random steps" if self.steps else "")

    def view(self, teacher: Teacher) -> View:
        """What the teacher is shown of the moment. Its picture is saved.

        Raises:
            UsageError: if the environment or the prompt set cannot be used, or the picture cannot be saved.
        """
        with in_silence():
            env = make(self.env_id)
            look = viewer(env)
            history: deque[str] = deque(maxlen=teacher.prompts(look.env_info).options.history)
            env.action_space.seed(self.seed)
            env.reset(seed=self.seed)
            for _ in range(self.steps):
                action = env.action_space.sample()
                _, _, terminated, truncated, _ = env.step(action)
                history.append(look.env_info.actions[int(action) - int(env.action_space.start)])  # type: ignore[attr-defined]
                if terminated or truncated:
                    env.reset()
                    history.clear()
            view = look.view(tuple(history))
            env.close()
        if self.save is not None:
            self._write(self.save / "picture.png", view.picture.png)
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
        if self.save is None:
            return []
        files = [self.save / "picture.png"]
        for name, content in _contents(view, stages):
            files.append(self.save / name)
            self._write(files[-1], content)
        return files

    def picture_in_words(self, view: View) -> str:
        """The picture's size, and where it can be seen."""
        picture = picture_of(view)
        see = f"saved as {self.save / 'picture.png'}" if self.save else "to see it, add --save DIR"
        size = humanize.naturalsize(picture["bytes"])
        return f"{picture['width']} x {picture['height']} pixels, {size} as PNG; {see}"

    def _write(self, file: Path, content: bytes) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--save {self.save}: {error.strerror}: give a folder that can be written") from None
        with output_file(file, force=self.force) as fp:
            fp.write(content)


def picture_of(view: View) -> dict[str, Any]:
    """What JSON output tells of the picture."""
    height, width = view.picture.pixels.shape[:2]
    return {"width": width, "height": height, "bytes": len(view.picture.png), "digest": view.picture.digest}


def _contents(view: View, stages: Sequence[tuple[Stage, Sequence[Message]]]) -> Iterator[tuple[str, bytes]]:
    for stage_number, (stage, messages) in enumerate(stages, start=1):
        for number, message in enumerate(messages, start=1):
            name = f"{stage_number}-{stage}-{number:02}-{message.role}"
            yield f"{name}.txt", (message.text + "\n").encode("utf-8", "replace")
            if message.picture is not None and message.picture != view.picture:  # an example's
                yield f"{name}.png", message.picture.png
