"""How many different views a run will show, from what a random policy sees in a few frames.

A student is no random policy, so the answer is a range:

* low: as many as the random policy itself would see;
* high: the larger of two ways in which it can be more. One goes on along the curve of views over frames as a power law
  (Heaps), which never levels off. The other is the upper 95% limit for a student that never shows a view twice within
  an episode and so spends the frames on more episodes: a skilled one comes near that.

The views of an episode are much alike and those of two episodes are not, so episodes are what is sampled, and what has
not been seen yet is estimated from the views seen in one and in two of them: Chao2 (Chao 1987), bias-corrected, with
its log-normal limit (EstimateS user's guide, appendix B), extrapolated as in Chao et al. 2014 ("Rarefaction and
extrapolation with Hill numbers", Ecological Monographs 84, eq. 18).
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium as gym

from lvlm2p_wrappers.views import View, viewer

SAMPLES = 16
"""How many of the views are kept, spread over the rollout, for counting tokens."""

_Z_95 = 1.96


class Range(NamedTuple):
    """An estimate: it is likely to be between these."""

    low: float
    high: float


@dataclass
class Rollout:
    """What a random policy saw. A view is known by its number, in the order of their first appearance.

    Attributes:
        frames: how many observations there were.
        episodes: the views of each episode, unfinished ones included.
        first_frames: when each view was first seen.
        stored: the views that the store can answer.
        samples: some of the views themselves.
    """

    frames: int
    episodes: list[set[int]] = field(default_factory=list)
    first_frames: list[int] = field(default_factory=list)
    stored: set[int] = field(default_factory=set)
    samples: list[View] = field(default_factory=list)


def roll_out(
    envs: Sequence[gym.Env[Any, Any]],
    frames: Iterable[int],
    *,
    seed: int,
    history: int,
    is_stored: Callable[[View], bool] | None,
) -> Rollout:
    """Act at random in some environments, in turn.

    Args:
        envs: equal environments.
        frames: the numbers of the frames, from 0 on; an iterable, so that progress can be shown.
        seed: of the environments and of the policy.
        history: how many of the last actions belong to a view.
        is_stored: whether the store can answer a view; None if there is no store to look into.
    """
    numbers: dict[Hashable, int] = {}
    players = [_Player(env, seed + i, history) for i, env in enumerate(envs)]
    rollout = Rollout(0)
    for frame in frames:
        player = players[frame % len(players)]
        key, view = player.look()
        number = numbers.setdefault(key, len(numbers))
        if number == len(rollout.first_frames):
            rollout.first_frames.append(frame)
            if is_stored is not None and is_stored(view or player.view()):
                rollout.stored.add(number)
            if number.bit_count() == 1 and len(rollout.samples) < SAMPLES:  # views 1, 2, 4, 8, ...: early and late ones
                rollout.samples.append(view or player.view())
        if not player.seen:
            rollout.episodes.append(player.seen)
        player.seen.add(number)
        player.act()
        rollout.frames += 1
    if not rollout.samples:
        rollout.samples.append(players[0].view())
    return rollout


class _Player:
    """One environment, and the random policy that acts in it."""

    def __init__(self, env: gym.Env[Any, Any], seed: int, history: int) -> None:
        self.seen: set[int] = set()
        self._env = env
        self._viewer = viewer(env)
        self._history: deque[str] = deque(maxlen=history)
        env.action_space.seed(seed)
        env.reset(seed=seed)

    def look(self) -> tuple[Hashable, View | None]:
        """What tells this view from others, and the view itself where it had to be drawn for that."""
        state = self._viewer.key()
        if state is not None:
            return (state, tuple(self._history)), None
        view = self.view()
        return (view.picture.digest, view.mission, view.carrying, view.history), view

    def view(self) -> View:
        return self._viewer.view(tuple(self._history))

    def act(self) -> None:
        action = self._env.action_space.sample()
        _, _, terminated, truncated, _ = self._env.step(action)
        self._history.append(self._viewer.env_info.actions[int(action) - int(self._env.action_space.start)])  # type: ignore[attr-defined]
        if terminated or truncated:
            self._env.reset()
            self._history.clear()
            self.seen = set()


def distinct_views(rollout: Rollout, frames: int, *, but: Collection[int] = ()) -> Range:
    """How many different views a run of so many frames will show.

    Args:
        rollout: what was seen.
        frames: at least as many as the rollout has.
        but: views that do not count: the stored ones, say.
    """
    episodes = [seen.difference(but) for seen in rollout.episodes]
    firsts = [frame for number, frame in enumerate(rollout.first_frames) if number not in but]
    growth = frames / rollout.frames
    most_growth = frames / sum(map(len, rollout.episodes))
    low = _chao2(episodes, growth)
    high = max(low, _heaps(firsts, rollout.frames, growth), _chao2(episodes, most_growth, upper=True))
    return Range(min(low, frames), min(high, frames))


def _heaps(firsts: Sequence[int], frames: int, growth: float) -> float:
    """Views after ``growth`` times as many frames, if their number goes on as the power law of the last octave."""
    half = sum(frame < frames / 2 for frame in firsts)
    exponent = min(1.0, math.log2(len(firsts) / half)) if half else 1.0
    return float(len(firsts) * growth**exponent)


def _chao2(episodes: Sequence[set[int]], growth: float, *, upper: bool = False) -> float:
    """Views after ``growth`` times as many episodes; with ``upper``, with the limit of what has not been seen yet."""
    count = len(episodes)
    in_episodes = Counter(view for seen in episodes for view in seen)
    in_one, in_two = (sum(times == n for times in in_episodes.values()) for n in (1, 2))
    share = (count - 1) / count
    unseen = share * in_one * (in_one - 1) / (2 * (in_two + 1))
    if unseen == 0:
        return float(len(in_episodes))
    if upper:
        variance = (
            unseen
            + share**2 * in_one * (2 * in_one - 1) ** 2 / (4 * (in_two + 1) ** 2)
            + share**2 * in_one**2 * in_two * (in_one - 1) ** 2 / (4 * (in_two + 1) ** 4)
        )
        unseen *= math.exp(_Z_95 * math.sqrt(math.log(1 + variance / unseen**2)))
    found: float = 1 - (1 - in_one / (count * unseen + in_one)) ** (count * (growth - 1))
    return float(len(in_episodes) + unseen * found)
