"""``lvlm2p play``: a trained student plays, without torch, and a moving picture shows it."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import humanize
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tyro.conf import Positional, arg

from lvlm2p_wrappers.advice_panel import draw_sample
from lvlm2p_wrappers.cli.arguments import Force, Positive, Switch, Whole, optional
from lvlm2p_wrappers.cli.environments import in_silence
from lvlm2p_wrappers.cli.printing import say, say_json
from lvlm2p_wrappers.cli.teacher_flags import TeacherFlags
from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.output_file import output_file
from lvlm2p_wrappers.saved_student import Student, load_student
from lvlm2p_wrappers.wrapper import TeacherWrapper

MOST_FRAMES = 600
"""The longest moving picture."""

Frame = NDArray[np.uint8]


@dataclass(kw_only=True)
class Play(TeacherFlags):
    """Let a trained student play, and save a moving picture of it.

    STUDENT is a run's folder or a student.onnx, which `python algos/evaluate.py
    RUN` writes; onnxruntime plays it, torch is not needed. The file knows its
    environment. With --model the teacher is asked about every frame, and bars
    beside the picture show what both would do.

    Examples:
      lvlm2p play runs/MiniGrid-LavaGapS7-v0__ppo_lvlm2p_replay__1__1790000000 --save play.gif
      lvlm2p play student.onnx --save play.mp4 --episodes 5 --model embedded/minigrid-planner
    """

    student: Annotated[Path, Positional, arg(metavar="STUDENT", help="a run's folder, or an .onnx file")]
    save: Annotated[Path, arg(metavar="FILE", help="the moving picture, .gif or .mp4")]
    model: Annotated[str | None, optional("M")] = None  # a teacher whose advice is shown beside the picture
    episodes: Positive = 3  # how many episodes are played
    seed: Whole = 1_000_000  # of the first episode; the next ones have the next seeds
    sampled: Switch = False  # draw the actions as in training, instead of taking the most probable ones
    fps: Positive = 5  # pictures in a second
    force: Force = False

    def run(self) -> None:
        """See ``Command``."""
        if self.save.suffix not in (".gif", ".mp4"):
            raise UsageError(f"--save {self.save}: name a .gif or an .mp4 file")
        student = load_student(self.student)
        env_id = student.about["env_id"]
        if ":" in env_id and not self.trust:  # the module may run any code
            raise UsageError(f"{self.student}: its environment {env_id} is in a module; add --trust to import it")
        with in_silence(), contextlib.closing(self._env(student)) as env:
            played = Played(student, env, np.random.default_rng(self.seed) if self.sampled else None)
            frames = [frame for k in range(self.episodes) for frame in played.episode(self.seed + k)]
        content = _gif(frames, self.fps) if self.save.suffix == ".gif" else _mp4(frames, self.fps)
        with output_file(self.save, force=self.force) as fp:
            fp.write(content)
        returns, without = played.returns, played.without_advice
        found = {"file": str(self.save), "env_id": env_id, "returns": returns, "frames": len(frames)}
        if self.json:
            say_json({**found, "bytes": len(content), "without_advice": without})
            return
        mean = f"{len(returns)} episodes, mean return {np.mean(returns):.2f}" if returns else "no episode ended"
        say(f"{self.save}: {mean}, {len(frames)} pictures, {humanize.naturalsize(len(content))}")
        if without:
            say(f"The teacher gave no usable advice about {without} of them.")

    def _env(self, student: Student) -> gym.Env[Any, Any]:
        """The student's environment, which asks the teacher if there is one."""
        env = student.env()
        if self.model is None:
            return env
        return TeacherWrapper(env, self.model, on_error="skip", **self.options(self.model))


class Played:
    """A student that plays.

    Args:
        student: the policy.
        env: its environment, which may ask a teacher.
        random: what actions are drawn with; None takes the most probable ones.

    Attributes:
        returns: of the episodes that ended.
        without_advice: of how many frames the teacher gave no usable advice.
    """

    def __init__(self, student: Student, env: gym.Env[Any, Any], random: np.random.Generator | None) -> None:
        self._student, self._env, self._random = student, env, random
        self._viewer = env.teacher.viewer(env) if isinstance(env, TeacherWrapper) else None
        self.returns: list[float] = []
        self.without_advice = self._frames = 0

    def episode(self, seed: int) -> Iterator[Frame]:
        """The frames of an episode, its last one included."""
        obs, info = self._env.reset(seed=seed)
        start = int(self._env.action_space.start)  # type: ignore[attr-defined]
        while self._frames < MOST_FRAMES:
            probs = self._student.probs(obs)
            yield self._frame(probs, info)
            if "episode" in info:
                self.returns.append(float(info["episode"]["r"]))
                return
            action = probs.argmax() if self._random is None else self._random.choice(len(probs), p=probs)
            obs, _, _, _, info = self._env.step(start + int(action))

    def _frame(self, probs: NDArray[np.float64], info: Mapping[str, Any]) -> Frame:
        """The environment's picture, or the teacher's beside what teacher and student make of it."""
        self._frames += 1
        if self._viewer is None:
            frame: Frame = np.asarray(self._env.render())
            return frame
        advice = info.get("teacher_probs")
        self.without_advice += advice is None and "episode" not in info
        view = self._viewer.view()
        return draw_sample(view.picture.pixels, view.actions, advice, probs.astype(np.float32))


def _gif(frames: list[Frame], fps: int) -> bytes:
    """A GIF that repeats without an end. A picture of few colours stays as it is."""
    median, plain = Image.Quantize.MEDIANCUT, Image.Dither.NONE
    first, *others = (Image.fromarray(frame).quantize(128, median, dither=plain) for frame in frames)
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=1000 // fps, loop=0, optimize=True)
    return file.getvalue()


def _mp4(frames: list[Frame], fps: int) -> bytes:
    try:
        from moviepy import ImageSequenceClip
    except ImportError:
        raise UsageError("an .mp4 needs the extra play: pip install 'lvlm2p[play]'; a .gif does not") from None
    height, width = (side + side % 2 for side in frames[0].shape[:2])  # the codec wants even sides
    padded = [np.pad(frame, ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0))) for frame in frames]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "play.mp4"
        ImageSequenceClip(padded, fps=fps).write_videofile(str(file), logger=None)
        return file.read_bytes()
