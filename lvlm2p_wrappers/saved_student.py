"""A student of the training scripts out of its file: played by onnxruntime, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.observations import student_env

MOST_BYTES = 256 * 2**20
"""The largest file that is taken for a student."""


class Student(NamedTuple):
    """A policy from an ONNX file, and what the file says of the environment that it learnt in."""

    session: Any
    about: dict[str, str]

    def env(self) -> gym.Env[Any, Any]:
        """The environment that it learnt in, as it sees it.

        Raises:
            UsageError: if it cannot be made.
        """
        told = self.about
        stack = int(told["frame_stack"]) if told["frame_stack"].isdecimal() else None
        return student_env(told["env_id"], told["obs"], stack, told["time_limit"], "rgb_array")  # type: ignore[arg-type]

    def probs(self, obs: NDArray[Any]) -> NDArray[np.float64]:
        """The policy, ``(n_actions,)``, for one observation."""
        (logits,) = self.session.run(["logits"], {"obs": obs[None]})
        probs = np.exp(logits[0].astype(np.float64) - logits[0].max())
        return np.asarray(probs / probs.sum())


def load_student(file: Path) -> Student:
    """A student from a run's folder or an ONNX file, which may be somebody else's: it is data.

    Raises:
        UsageError: if there is none, or onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UsageError("a saved student needs the extra play: pip install 'lvlm2p[play]'") from None
    if file.is_dir():
        if not (file / "student.onnx").is_file():
            raise UsageError(f"{file} holds no student.onnx: `python algos/evaluate.py {file}` makes it")
        file = file / "student.onnx"
    if not file.is_file():
        raise UsageError(f"{file}: no such file; give a run's folder, or the student.onnx in it")
    if file.stat().st_size > MOST_BYTES:
        raise UsageError(f"{file} is larger than {MOST_BYTES // 2**20} MB; no student of these scripts is")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        # From bytes: a path would let the file name others, which onnxruntime would read.
        session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
        about = session.get_modelmeta().custom_metadata_map
        _ = [about[name] for name in ("env_id", "obs", "frame_stack", "time_limit")]
    except Exception as error:  # noqa: BLE001 -- onnxruntime has no error class of its own
        why = str(error).partition("\n")[0][:200]
        raise UsageError(f"{file} holds no student of algos/evaluate.py: {why}") from None
    return Student(session, about)
