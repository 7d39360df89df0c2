"""Stable-Baselines3: the teacher's labels for its on-policy algorithms, without a subclass of any of them.

``VecTeacher`` asks while the environments step; ``TeacherCallback`` has the student learn from the labels after each
rollout, before the algorithm's own update, and again from all labels so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.lambda_weight import Lambda
from lvlm2p_wrappers.teacher import OnError, Teacher, TeacherOptions
from lvlm2p_wrappers.vector import VectorTeacherWrapper
from lvlm2p_wrappers.views import OwnView, VectorViewer
from lvlm2p_wrappers.views.vector import SyncViewer, WorkerViewer

try:
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
    from stable_baselines3.common.utils import obs_as_tensor
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper, unwrap_vec_wrapper
except ImportError as error:
    raise ImportError("lvlm2p_wrappers.sb3 needs the extra sb3: pip install 'lvlm2p[sb3]'", name=error.name) from None

if TYPE_CHECKING:
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

_MOST_BYTES = 2**30
"""Of the observations whose labels are kept."""
_NEWEST = 256
"""New labels whose distance to the student is its measure of progress."""


class VecTeacher(VecEnvWrapper):
    """Asks a teacher about the observations of a vector environment, while it steps; see ``TeacherCallback``.

    Args:
        venv: a ``DummyVecEnv`` or ``SubprocVecEnv``, wrapped or not, of environments with Discrete actions and a
            picture: any MiniGrid or BabyAI one, or another one made with ``render_mode="rgb_array"``.
        model: a LiteLLM model string, ``"embedded/minigrid-planner"``, or ``"python:module:function"``.
        ask_every: asks about the first observation of an episode and every ``ask_every``-th after it alone.
        on_error: whether a question without an answer raises, or is skipped and counted in ``teacher.counters``.
        **options: the keyword arguments of :class:`Teacher`: ``prompts``, ``store``, ``budget_usd``, ...

    Attributes:
        teacher: the :class:`Teacher`, shared by all wrappers of this process with the same arguments.
        is_asking: whether anything is asked; the callback turns it off when its weight has fallen to 0.

    Raises:
        UsageError: if an environment gives no picture or has no Discrete actions, or an argument cannot work.
    """

    def __init__(
        self,
        venv: VecEnv,
        model: str,
        *,
        ask_every: int = 1,
        on_error: OnError = "skip",
        **options: Unpack[TeacherOptions],
    ) -> None:
        super().__init__(venv)
        self._envs = _AsGymnasium(venv)
        self._teaching = VectorTeacherWrapper(self._envs, model, defer=True, ask="manual", on_error=on_error, **options)
        if ask_every < 1:
            raise UsageError(f"ask_every must be at least 1, not {ask_every}")
        self._ask_every, self._ages = ask_every, np.zeros(self.num_envs, np.int64)
        self._actions: NDArray[Any] = np.empty(0)
        self.is_asking = True

    @property
    def teacher(self) -> Teacher:
        """Who is asked."""
        return self._teaching.teacher

    def reset(self) -> VecEnvObs:
        """Reset the environments; labels not yet gathered are dropped."""
        obs: VecEnvObs = self._teaching.reset()[0]
        self._ages[:] = 0
        return obs

    def step_async(self, actions: NDArray[Any]) -> None:
        """Ask about the observations that the actions were chosen from."""
        self._actions = actions
        if self.is_asking:
            self._teaching.ask(self._ages % self._ask_every == 0)

    def step_wait(self) -> VecEnvStepReturn:
        """Step the environments; nothing waits for the teacher."""
        obs, rewards, dones, *_ = self._teaching.step(self._actions)
        self._ages = np.where(dones, 0, self._ages + 1)
        return obs, rewards, dones, self._envs.infos

    def gather(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Wait for the labels of every ``step`` since the last ``gather`` or ``reset``.

        Returns:
            The distributions, (T, num_envs, n_actions) float32, zero where there is none; their mask, (T, num_envs)
            bool. Row t is the observation from which the actions of step t were chosen.

        Raises:
            TeacherError: if labels are missing, unless ``on_error="skip"``, or too many of them failed.
        """
        return self._teaching.gather()

    def close(self) -> None:
        """Let the calls in flight end, so that what they bring is stored, and close the environments."""
        self._teaching.close()


class TeacherCallback(BaseCallback):
    """Has a student of PPO or A2C learn from a ``VecTeacher``'s labels.

    After each rollout its labels join those kept, one for each observation, and the policy takes gradient steps on
    ``KL(teacher || student)`` over labels drawn from them, with the algorithm's own optimizer (DAgger's aggregation,
    Ross et al. 2011). The critic is held at its values meanwhile (as the policy is in Phasic Policy Gradient, Cobbe et
    al. 2021). Then comes the algorithm's own update. The weight falls as :class:`Lambda` says; at 0 nothing is asked.

    Args:
        lam: the weight while the student makes progress: the share of ``replay_ratio``.
        patience: the weight falls to 0 in this times the frames of the student's progress; 0 keeps it constant.
        label_temperature: labels are raised to the power of its inverse: below 1 they are sharpened.
        replay_ratio: labels learnt from, for each frame of a rollout.
        replay_batch: labels in a minibatch.
        vf_coef: weight of holding the critic.

    Attributes:
        labels: how many observations have a label that is kept.

    Raises:
        UsageError: when learning begins, if the algorithm is not on-policy, or its environment has no ``VecTeacher``.
    """

    def __init__(
        self,
        lam: float = 1.0,
        *,
        patience: float = 0.5,
        label_temperature: float = 0.5,
        replay_ratio: float = 32.0,
        replay_batch: int = 256,
        vf_coef: float = 0.5,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        least = {"lam": lam, "patience": patience, "replay_ratio": replay_ratio, "vf_coef": vf_coef}
        for name, value in least.items():
            if not 0 <= value < math.inf:
                raise UsageError(f"{name} must be 0 or more, not {value}")
        if label_temperature < 0.1 or replay_batch < 1:
            given = f"label_temperature={label_temperature}, replay_batch={replay_batch}"
            raise UsageError(f"label_temperature must be at least 0.1 and replay_batch at least 1, not {given}")
        self._lam, self._patience, self._temperature = lam, patience, label_temperature
        self._ratio, self._batch, self._vf_coef = replay_ratio, replay_batch, vf_coef
        self._kept: dict[bytes, tuple[Any, NDArray[np.float32]]] = {}
        self._distances: list[float] = []

    @property
    def labels(self) -> int:
        """How many observations have a label that is kept."""
        return len(self._kept)

    def _init_callback(self) -> None:
        if not isinstance(self.model, OnPolicyAlgorithm):
            raise UsageError(f"TeacherCallback goes with PPO and A2C; {type(self.model).__name__} keeps no rollouts")
        teacher = unwrap_vec_wrapper(self.training_env, VecTeacher)
        if teacher is None:
            raise UsageError(
                "TeacherCallback needs an environment inside VecTeacher: PPO(policy, VecTeacher(venv, ...))"
            )
        self._teacher: VecTeacher = teacher
        self._policy: ActorCriticPolicy = self.model.policy
        self._weight = Lambda(self._lam, self._patience, self._policy, self._policy.optimizer)

    def _on_rollout_start(self) -> None:
        self._teacher.is_asking = self._weight.lam > 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        if self._weight.lam == 0:
            return
        probs, mask = self._teacher.gather()
        self._keep(sharpened(probs, self._temperature), mask)
        losses = self._learn(math.ceil(self._weight.lam * self._ratio * mask.size / self._batch))
        episodes = [episode["r"] for episode in list(self.model.ep_info_buffer or ())[-50:]]
        mean_return = float(np.mean(episodes)) if len(episodes) == 50 else None
        distance = float(np.mean(self._distances)) if self._distances else None
        counters = self._teacher.teacher.counters
        for name, value in {"lam": self._weight.lam, "calls": counters.calls, "cost_usd": counters.cost_usd}.items():
            self.logger.record(f"teacher/{name}", value)
        self.logger.record("teacher/replay_kl", float(np.mean(losses)) if losses else 0.0)
        self._weight.update(self.num_timesteps, distance, mean_return)

    def _keep(self, probs: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        """Keep a rollout's labels, and measure the student's distance to the new ones before it learns from them."""
        observations = self.model.rollout_buffer.observations  # type: ignore[attr-defined]
        rows = [*zip(*np.nonzero(mask), strict=True)]
        new: dict[bytes, tuple[Any, NDArray[np.float32]]] = {}
        for t, i in rows:
            row = _row(observations, t, i)
            key = _bytes(row)
            if key not in self._kept:
                new[key] = row, probs[t, i]
            self._kept[key] = row, probs[t, i]
        if new:
            student = self._logprobs(_stacked([row for row, _ in new.values()]), grad=False)
            labels = torch.as_tensor(np.stack([label for _, label in new.values()]), device=student.device)
            self._distances = (self._distances + _kl(labels, student).tolist())[-_NEWEST:]
        most = _MOST_BYTES // max(len(next(iter(self._kept), b"")), 1)
        while len(self._kept) > most:
            del self._kept[next(iter(self._kept))]

    def _learn(self, minibatches: int) -> list[float]:
        """Gradient steps on labels drawn from those kept; returns the loss of each."""
        kept, losses, policy = [*self._kept.values()], [], self._policy
        if not kept:
            return []
        policy.set_training_mode(True)
        drawn = torch.randint(len(kept), (minibatches, self._batch)).tolist()
        batches = [_stacked([kept[row][0] for row in rows]) for rows in drawn]
        with torch.no_grad():  # before any step: a critic that is worth nothing would ruin the student later on
            values = [policy.predict_values(self._tensor(batch)) for batch in batches]
        for rows, batch, before in zip(drawn, batches, values, strict=True):
            student = self._logprobs(batch)
            labels = torch.as_tensor(np.stack([kept[row][1] for row in rows]), device=student.device)
            kl = distillation_loss(labels, student, torch.ones(len(rows), dtype=torch.bool, device=student.device))
            held = 0.5 * ((policy.predict_values(self._tensor(batch)) - before) ** 2).mean()
            policy.optimizer.zero_grad()
            (kl + self._vf_coef * held).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(policy.parameters(), self.model.max_grad_norm)  # type: ignore[attr-defined]
            policy.optimizer.step()
            losses.append(kl.item())
        return losses

    def _tensor(self, batch: Any) -> Any:
        return obs_as_tensor(batch, self.model.device)

    def _logprobs(self, batch: Any, *, grad: bool = True) -> torch.Tensor:
        """The student's log-probabilities of all actions, (batch, n_actions)."""
        with torch.set_grad_enabled(grad):
            distribution: Any = self._policy.get_distribution(self._tensor(batch)).distribution
            logprobs: torch.Tensor = distribution.logits
            return logprobs


def distillation_loss(probs: torch.Tensor, logprobs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """``KL(teacher || student)``, the mean over rows with a label (LVLM2P, arXiv 2505.11221, eq. 4).

    Args:
        probs: (batch, n_actions) the teacher's distributions.
        logprobs: (batch, n_actions) the student's log-probabilities.
        mask: (batch,) bool, which rows have a label.
    """
    rows = _kl(probs, logprobs) * mask
    return rows.sum() / mask.sum().clamp(min=1)


def _kl(probs: torch.Tensor, logprobs: torch.Tensor) -> torch.Tensor:
    kl: torch.Tensor = (torch.special.xlogy(probs, probs) - probs * logprobs).sum(-1)
    return kl


def sharpened(probs: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Distributions raised to the power of ``1 / temperature`` and renormalised; a row of zeros stays as it is.

    >>> sharpened(np.float32([[0.8, 0.2], [0, 0]]), 0.5).round(2).tolist()
    [[0.9399999976158142, 0.05999999865889549], [0.0, 0.0]]
    """
    powers: NDArray[np.float32] = probs ** np.float32(1 / temperature)
    powers /= np.maximum(powers.sum(-1, keepdims=True), np.finfo(np.float32).tiny)
    return powers


class _AsGymnasium(VectorEnv[Any, Any, Any]):
    """Stable-Baselines3's vector environment as one of Gymnasium's, with autoreset in the step that ends an episode."""

    def __init__(self, venv: VecEnv) -> None:
        self.venv, self.num_envs, self.metadata = venv, venv.num_envs, {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space, self.single_action_space = venv.observation_space, venv.action_space
        self.observation_space = batch_space(venv.observation_space, venv.num_envs)
        self.action_space = batch_space(venv.action_space, venv.num_envs)
        self.infos: list[dict[str, Any]] = []

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        return self.venv.reset(), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        obs, rewards, dones, self.infos = self.venv.step(actions)
        return obs, rewards, dones, np.zeros_like(dones), {}

    def close(self, **_: Any) -> None:
        self.venv.close()

    def viewer(self, own: OwnView) -> VectorViewer:
        """What draws its sub-environments."""
        base = self.venv.unwrapped
        if isinstance(base, DummyVecEnv):
            return SyncViewer(base.envs, own)
        if isinstance(base, SubprocVecEnv):
            return WorkerViewer(base.env_method, base.set_attr, own)
        raise UsageError(f"{type(base).__name__} gives no access to its pictures: use DummyVecEnv or SubprocVecEnv")


def _row(observations: Any, t: int, i: int) -> Any:
    if isinstance(observations, dict):
        return {name: part[t, i].copy() for name, part in observations.items()}
    return observations[t, i].copy()


def _bytes(row: Any) -> bytes:
    return b"".join(part.tobytes() for part in row.values()) if isinstance(row, dict) else row.tobytes()


def _stacked(rows: Sequence[Any]) -> Any:
    if isinstance(rows[0], dict):
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return np.stack(rows)
