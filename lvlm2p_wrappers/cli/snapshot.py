"""One moment of an environment, for the commands that show what is said about it."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lvlm2p_wrappers.cli.environments import in_silence, make
from lvlm2p_wrappers.cli.printing import say, size
from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.records import Message
from lvlm2p_wrappers.teacher import Teacher
from lvlm2p_wrappers.views import View, viewer


def add_scene(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which moment is meant, and where to save what is shown."""
    parser.add_argument("env_id", metavar="ENV_ID", help="the environment; MODULE:ID for one that a module registers")
    parser.add_argument("--seed", metavar="S", type=_not_below_zero, default=0, help="of its reset (default: 0)")
    parser.add_argument(
        "--steps",
        metavar="K",
        type=_not_below_zero,
        default=0,
        help="random actions before the moment (default: 0); where an episode ends, the next one begins",
    )
    parser.add_argument("--prompts", metavar="P", help="folder of your own templates, or the name of a bundled set")
    parser.add_argument("--save", metavar="DIR", type=Path, help="write the picture, and each message as a text file")


def look(args: argparse.Namespace, teacher: Teacher) -> View:
    """What the teacher is shown of the moment that the arguments name.

    Raises:
        UsageError: if the environment or the prompt set cannot be used.
    """
    with in_silence():
        env = make(args.env_id)
        looks = viewer(env)
        history: deque[str] = deque(maxlen=teacher.prompts(looks.env_info).options.history)
        env.action_space.seed(args.seed)
        env.reset(seed=args.seed)
        for _ in range(args.steps):
            action = env.action_space.sample()
            _, _, terminated, truncated, _ = env.step(action)
            history.append(looks.env_info.actions[int(action) - int(env.action_space.start)])  # type: ignore[attr-defined]
            if terminated or truncated:
                env.reset()
                history.clear()
        view = looks.view(tuple(history))
        env.close()
    return view


def moment_of(args: argparse.Namespace) -> str:
    """The moment that the arguments name, in words."""
    return f"{args.env_id}, seed {args.seed}" + (f", after {args.steps} random steps" if args.steps else "")


def picture_of(view: View) -> dict[str, Any]:
    """What JSON output says of the picture."""
    height, width = view.picture.pixels.shape[:2]
    return {"width": width, "height": height, "bytes": len(view.picture.png), "digest": view.picture.digest}


def picture_in_words(view: View, saved_in: Path | None) -> str:
    """The picture's size, and where it can be seen."""
    picture = picture_of(view)
    see = f"saved as {saved_in / 'picture.png'}" if saved_in else "to see it, add --save DIR"
    return f"{picture['width']} x {picture['height']} pixels, {size(picture['bytes'])} as PNG; {see}"


def say_facts(facts: Iterable[tuple[str, str]], *, indent: str = "") -> None:
    """Print named facts below each other, each on a line of its own, so that a path can be copied."""
    facts = list(facts)
    width = max((len(name) for name, _ in facts), default=0)
    for name, told in facts:
        say(f"{indent}{name:<{width}}  {told}")


def save(folder: Path, view: View, stages: Sequence[tuple[str, Sequence[Message]]]) -> list[Path]:
    """Write the picture and every message of a conversation into a folder.

    Args:
        folder: made where there is none; files of the same names are replaced.
        view: whose picture it is.
        stages: the stages' names and messages; replies are messages, too.

    Returns:
        The files, in the order of the conversation.

    Raises:
        UsageError: if the folder cannot be written.
    """
    contents: dict[str, bytes] = {"picture.png": view.picture.png}
    for stage_number, (stage, turns) in enumerate(stages, start=1):
        for number, turn in enumerate(turns, start=1):
            name = f"{stage_number}-{stage}-{number:02}-{turn.role}"
            contents[f"{name}.txt"] = (turn.text + "\n").encode("utf-8", "replace")
            if turn.picture is not None and turn.picture != view.picture:  # an example's
                contents[f"{name}.png"] = turn.picture.png
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise UsageError(f"--save {folder}: {error.strerror}: give a folder that can be written") from None
    return [folder / name for name in contents]


def _not_below_zero(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return value
