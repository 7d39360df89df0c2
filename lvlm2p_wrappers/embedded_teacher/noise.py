"""Label noise, perception noise and systematic errors: always the same in the same state."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from .action_probabilities import Costs
from .grid import Scene, is_free
from .request import Options, Request


class NoiseSource:
    """Hash-based random numbers for one state.

    They depend on the grid with the agent, the mission, the carried thing and the noise seed, never on the prompt's
    wording, so that two prompts are compared on the same mistakes.
    """

    def __init__(self, scene: Scene, request: Request, options: Options) -> None:
        world = scene.world
        state = (world.width, world.cells, scene.pose, world.carrying, request.mission, options.noise_seed)
        self._state = repr(state).encode()
        self._options = options

    def is_label_wrong(self) -> bool:
        """Whether label noise strikes in this state."""
        return self.draw("error") < self._options.error * 2**64

    def is_misread(self) -> bool:
        """Whether perception noise strikes in this state."""
        return self.draw("misread") < self._options.misread * 2**64

    def draw(self, purpose: str) -> int:
        """An integer from 0 to 2**64 - 1, uniform over states, and independent between purposes."""
        return int.from_bytes(hashlib.blake2b(self._state, digest_size=8, person=purpose.encode()).digest(), "big")


def as_seen(scene: Scene, options: Options) -> Scene:
    """The state as systematic errors show it: a heading taken for another, a kind of thing taken for empty floor."""
    if options.confuse is not None and scene.heading == options.confuse[0]:
        scene = replace(scene, heading=options.confuse[1])
    if options.blind is not None:
        scene = replace(scene, world=scene.world.without(options.blind))
    return scene


def misread_scene(scene: Scene, number: int) -> Scene:
    """The state with a wrong heading, or with the agent on a free cell beside the right one."""
    beside = [cell for cell in scene.world.around(scene.agent) if is_free(scene.world.cells[cell])]
    choice = number // 2
    if number % 2 and beside:
        return replace(scene, agent=beside[choice % len(beside)])
    return replace(scene, heading=(scene.heading + 1 + choice % 3) % 4)


def with_label_noise(probs: Mapping[str, float], extra: Costs, number: int) -> dict[str, float]:
    """Swap the probability of a wrong action with that of the best ones.

    Args:
        probs: the noise-free probabilities.
        extra: extra steps by action, None where it ends the episode badly. An action is wrong if it ends the episode
            badly or costs half a step or more; each wrong action is equally likely, fatal ones included.
        number: the random number that chooses the action.

    Returns:
        New probabilities; the old ones where no action is wrong.
    """
    best = [name for name, cost in extra.items() if cost == 0]
    wrong = [name for name, cost in extra.items() if cost is None or cost >= 0.5]
    if not wrong or not best:
        return dict(probs)
    drawn = wrong[number % len(wrong)]
    swapped = dict(probs)
    swapped[drawn] = sum(probs[name] for name in best)
    swapped.update({name: probs[drawn] / len(best) for name in best})
    return swapped
