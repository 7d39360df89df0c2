"""The teacher's advice for the sub-environments of a vector environment, at once or deferred."""

from __future__ import annotations

from typing import Any, Literal, Unpack

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import iterate
from numpy.typing import ArrayLike, NDArray

from lvlm2p_wrappers.advice_panel import draw_sample
from lvlm2p_wrappers.errors import TeacherError, UsageError
from lvlm2p_wrappers.records import Advice
from lvlm2p_wrappers.teacher import OnError, PendingAdvice, Teacher, TeacherOptions, require_known
from lvlm2p_wrappers.views import Viewer, vector_viewer
from lvlm2p_wrappers.wrapper import INFO_KEY, MASK_KEY, refuse_taken_key


class VectorTeacherWrapper(VectorWrapper[Any, Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Puts the teacher's distributions into ``infos["teacher_probs"]`` and their mask into ``infos["_teacher_probs"]``.

    Both are always present: (num_envs, n_actions) float32 and (num_envs,) bool; a row is zero where its mask is False.
    Each row belongs to the observation that the agent will act on, in both autoreset modes: under NEXT_STEP the
    terminal observation gets no advice, under SAME_STEP the new episode's first one does.

    With ``defer=True`` no step waits for a reply: questions go out in the background as observations appear, the mask
    in ``infos`` is all False, and :meth:`gather` returns the advice of a whole rollout. This is the paper's own
    procedure: collect a trajectory, have it labelled, update.

    Args:
        env: a ``SyncVectorEnv`` or ``AsyncVectorEnv``, wrapped or not, with Discrete actions.
        model: a LiteLLM model string, or ``"embedded/minigrid-planner"``.
        defer: whether advice waits for :meth:`gather`.
        ask: ``"all"`` asks about every observation; ``"manual"`` only where :meth:`ask` is called.
        ask_every: with ``ask="all"``, asks about the first observation of an episode and every ``ask_every``-th after
            it alone, for views that never repeat.
        max_pending: with ``defer``, the most questions open at a time; a step waits while there are more.
        on_error: whether a question without an answer raises, or is skipped and counted in ``teacher.counters``.
        **options: the keyword arguments of :class:`Teacher`.

    Attributes:
        teacher: the :class:`Teacher`, shared by all wrappers of this process with the same arguments.

    Raises:
        UsageError: if the environment gives no picture or has no Discrete actions, or an argument cannot work.

    Example:
        >>> import gymnasium as gym
        >>> from lvlm2p_wrappers import VectorTeacherWrapper
        >>> envs = gym.make_vec("MiniGrid-LavaGapS7-v0", num_envs=2, vectorization_mode="sync")
        >>> envs = VectorTeacherWrapper(envs, "embedded/minigrid-planner", defer=True, store=None)
        >>> _ = envs.reset(seed=0)
        >>> for _ in range(3):
        ...     _ = envs.step(envs.action_space.sample())
        >>> probs, mask = envs.gather()
        >>> probs.shape, mask.shape
        ((3, 2, 7), (3, 2))

    Change logs:
     * v0.1.0 - Initially added
     * v0.2.0 - ``ask_every``
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        model: str,
        *,
        defer: bool = False,
        ask: Literal["all", "manual"] = "all",
        ask_every: int = 1,
        max_pending: int = 4096,
        on_error: OnError = "raise",
        **options: Unpack[TeacherOptions],
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(
            self,
            model=model,
            defer=defer,
            ask=ask,
            ask_every=ask_every,
            max_pending=max_pending,
            on_error=on_error,
            **options,
        )
        super().__init__(env)
        require_known(on_error, ask_every)
        if max_pending < 1:
            raise UsageError(f"max_pending must be at least 1, not {max_pending}")
        if ask not in ("all", "manual"):
            raise UsageError(f"ask must be 'all' or 'manual', not {ask!r}")
        if ask == "manual" and ask_every > 1:
            raise UsageError("ask_every goes with ask='all': with 'manual' you say yourself what is asked about")
        if ask == "manual" and not defer:
            raise UsageError("ask='manual' goes with defer=True: without it, advice is in the infos of the step before")
        self._resets_at_once = _resets_at_once(env)
        self._defer, self._max_pending, self._on_error = defer, max_pending, on_error
        self._ask_every = ask_every if ask == "all" else 0
        self.teacher = Teacher.shared(model, options)
        self._viewer = vector_viewer(env, self.teacher.own_view)
        self.teacher.resume()
        env_infos = self._viewer.env_infos
        prompts = {env_info: self.teacher.read_prompts(env_info) for env_info in dict.fromkeys(env_infos)}
        self._memories = [prompts[env_info].memory(env_info) for env_info in env_infos]
        # Where earlier pictures are shown, each observation is drawn, also those that are not asked about.
        self._is_drawn = np.array([memory.frames > 1 for memory in self._memories])
        self._drawn: dict[int, Viewer] = {}
        self._observations: list[Any] = [None] * self.num_envs
        self._over = np.zeros(self.num_envs, dtype=np.bool_)
        self._current: list[PendingAdvice | None] = [None] * self.num_envs
        self._rows: list[list[PendingAdvice | None]] = []
        self._dropped: list[PendingAdvice] = []

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environments and ask about their first observations; rows not yet gathered are dropped.

        Raises:
            TeacherError: if no advice came, unless deferred or ``on_error="skip"``.
        """
        fresh = (options or {}).get("reset_mask", np.ones(self.num_envs, dtype=np.bool_))
        obs, infos = self.env.reset(seed=seed, options=options)
        self._drop_rows()
        self._over = self._over & ~fresh
        for i in np.flatnonzero(fresh):
            self._memories[i].begin()
        return obs, self._with_advice(obs, infos, new=np.asarray(fresh, dtype=np.bool_))

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the environments and ask about the observations they return.

        Raises:
            TeacherError: if no advice came, unless deferred or ``on_error="skip"``.
        """
        if self._defer:
            self._rows.append(self._current)
        obs, rewards, terminations, truncations, infos = self.env.step(actions)
        self._remember(actions, np.logical_or(terminations, truncations))
        return obs, rewards, terminations, truncations, self._with_advice(obs, infos, new=~self._over)

    def ask(self, mask: ArrayLike) -> None:
        """Ask about the current observations of some environments, before the next ``step``.

        Args:
            mask: (num_envs,) bool.

        Raises:
            UsageError: if the mask has another shape or dtype, or advice is not deferred.
        """
        chosen = np.asarray(mask)
        if chosen.shape != (self.num_envs,) or chosen.dtype != np.bool_:
            raise UsageError(
                f"mask must be bool of shape ({self.num_envs},), not {chosen.dtype} of shape {chosen.shape}"
            )
        if not self._defer:
            raise UsageError("ask() goes with defer=True: without it, advice is in the infos of the step before")
        self._ask_about(chosen)

    def gather(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Wait for the advice of every ``step`` since the last ``gather`` or ``reset``.

        Row t is the observation *from which* call t's action was chosen; the current observation belongs to the next
        ``gather``. Under NEXT_STEP a terminal observation keeps its row, with mask False, since its action is ignored.

        Returns:
            The distributions, (T, num_envs, n_actions) float32, zero where there is none; their mask, (T, num_envs)
            bool.

        Raises:
            UsageError: if advice is not deferred.
            TeacherError: if advice is missing, unless ``on_error="skip"``; all other open questions have settled.
        """
        if not self._defer:
            raise UsageError("gather() goes with defer=True: without it, advice is in infos")
        shape = (len(self._rows), self.num_envs)
        try:
            probs, mask = self._collected([pending for row in self._rows for pending in row])
        except TeacherError:
            self._rows = []
            raise
        self._rows = []  # not before: Ctrl-C while it waits loses no row
        return probs.reshape(*shape, probs.shape[-1]), mask.reshape(shape)

    def samples(self, student: ArrayLike, *, most: int = 4) -> NDArray[np.uint8]:
        """Draw some current views, each beside the teacher's and the student's distribution.

        Nothing is asked for a picture: views that were asked about come first, and their advice is waited for; the
        others are drawn without advice.

        Args:
            student: (num_envs, n_actions), the student's probabilities.
            most: how many views are drawn.

        Returns:
            (height, width, 3) uint8; the views are one below the other.
        """
        shown = sorted(range(self.num_envs), key=lambda i: self._current[i] is None)[:most]
        panels = []
        for i, snapshot in zip(shown, self._viewer.snapshots(shown), strict=True):
            pending, view = self._current[i], snapshot.view()
            probs = None if pending is None or pending.future.exception() else pending.future.result().probs
            panels.append(draw_sample(view.picture.pixels, view.actions, probs, np.asarray(student, np.float32)[i]))
        return np.concatenate(panels)

    def close(self, **kwargs: Any) -> None:
        """Let the calls in flight end, so that what they bring is stored; close the store's files and the environments.

        What was not sent yet is not asked, unless another wrapper with the same teacher waits for it.
        """
        self._drop_rows()
        self.teacher.drain(self._dropped)
        self.teacher.free_store()
        self._dropped = []
        return self.env.close(**kwargs)

    def __reduce__(self) -> Any:
        raise UsageError("a VectorTeacherWrapper can be neither copied nor pickled: its open questions are this one's")

    def _drop_rows(self) -> None:
        """Forget the rows; their questions go on, for the store, until the end."""
        rows = (pending for row in (*self._rows, self._current) for pending in row if pending is not None)
        self._dropped = [pending for pending in (*self._dropped, *rows) if not pending.future.done()]
        self._rows, self._current = [], [None] * self.num_envs

    def _remember(self, actions: Any, done: NDArray[np.bool_]) -> None:
        """Keep the last actions of each episode, and which environments have a terminal observation now."""
        start = int(self.single_action_space.start)  # type: ignore[attr-defined]
        for i, memory in enumerate(self._memories):
            if self._over[i] or (self._resets_at_once and done[i]):
                memory.begin()
            else:
                memory.act(self._viewer.env_infos[i].actions[int(actions[i]) - start])
        self._over = np.zeros_like(done) if self._resets_at_once else done

    def _with_advice(self, obs: Any, infos: dict[str, Any], *, new: NDArray[np.bool_]) -> dict[str, Any]:
        """Ask about the current observations, as far as wanted, and put advice and mask into the infos.

        Args:
            obs: the observations.
            infos: what the environments say.
            new: (num_envs,), whose observation is another than before, and not terminal.
        """
        refuse_taken_key(infos)
        if self.teacher.function is not None:  # a model is not told what the student sees
            self._observations = [*iterate(self.observation_space, obs)]
        self._current = [None] * self.num_envs
        indices = [int(i) for i in np.flatnonzero(new & self._is_drawn)]
        for i, snapshot in zip(indices, self._viewer.snapshots(indices), strict=True):
            self._drawn[i] = self._memories[i].look(snapshot)
        if self._ask_every:
            self._ask_about(np.array([memory.steps % self._ask_every == 0 for memory in self._memories]))
        probs, mask = self._collected([None] * self.num_envs if self._defer else self._current)
        return {**infos, INFO_KEY: probs, MASK_KEY: mask}

    def _ask_about(self, chosen: NDArray[np.bool_]) -> None:
        indices = [int(i) for i in np.flatnonzero(chosen & ~self._over) if self._current[i] is None]
        rest = [i for i in indices if not self._is_drawn[i]]
        shown = self._drawn | dict(zip(rest, self._viewer.snapshots(rest), strict=True))
        for i in indices:
            self._current[i] = self.teacher.ask(shown[i], self._memories[i].history, self._observations[i])
        self.teacher.wait_below(self._max_pending)

    def _collected(self, rows: list[PendingAdvice | None]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The advice of some rows, zeros where there is none, and their mask."""
        probs = np.zeros((len(rows), len(self._viewer.env_infos[0].actions)), dtype=np.float32)
        mask = np.zeros(len(rows), dtype=np.bool_)
        for row, advice in enumerate(self.teacher.collect(rows, on_error=self._on_error)):
            if isinstance(advice, Advice):
                probs[row], mask[row] = advice.probs, True
        return probs, mask


def _resets_at_once(env: VectorEnv[Any, Any, Any]) -> bool:
    """Whether the observation returned at the end of an episode is already the next one's."""
    mode = env.metadata.get("autoreset_mode")
    if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
        raise UsageError(f"the vector environment has autoreset_mode={mode}; use AutoresetMode.SAME_STEP or NEXT_STEP")
    return mode is AutoresetMode.SAME_STEP
