"""Makes the teacher as imperfect as the model string asks: always in the same situations, and always the same way."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from .action_probabilities import Costs
from .grid import Scene, is_free
from .request import Options, Request


class NoiseSource:
    """Numbers drawn for one situation.

    A situation is the grid with the agent in it, the mission, the carried thing and the salt: never how the prompt is
    worded, so that two prompts are compared on the same errors.
    """

    def __init__(self, scene: Scene, request: Request, options: Options) -> None:
        world = scene.world
        situation = (world.width, world.cells, scene.pose, world.carrying, request.mission, options.salt)
        self._seed = repr(situation).encode()
        self._options = options

    def errs(self) -> bool:
        """Whether the action is wrong here."""
        return self.draw("error") < self._options.error * 2**64

    def misreads(self) -> bool:
        """Whether the analysis is wrong here."""
        return self.draw("misread") < self._options.misread * 2**64

    def draw(self, what: str) -> int:
        """A number from 0 to 2**64 - 1, evenly distributed over situations, another one for another purpose."""
        return int.from_bytes(hashlib.blake2b(self._seed, digest_size=8, person=what.encode()).digest(), "big")


def misread(scene: Scene, lot: int) -> Scene:
    """The scene with a wrong heading, or with the agent on a free cell beside the right one."""
    beside = [cell for cell in scene.world.around(scene.agent) if is_free(scene.world.cells[cell])]
    choice = lot // 2
    if lot % 2 and beside:
        return replace(scene, agent=beside[choice % len(beside)])
    return replace(scene, heading=(scene.heading + 1 + choice % 3) % 4)


def led_astray(weights: Mapping[str, float], extra: Costs, lot: int) -> dict[str, float]:
    """Let a wrong action and the best ones change places.

    Args:
        weights: the probabilities of a perfect answer.
        extra: extra steps by action, None where it ends badly. Wrong is what ends badly or costs half a step or more;
            each wrong action is as likely to be drawn as any other, deadly ones included, as with real models.
        lot: the number drawn for this situation.

    Returns:
        New probabilities; the old ones where no action is wrong.
    """
    best = [name for name, cost in extra.items() if cost == 0]
    wrong = [name for name, cost in extra.items() if cost is None or cost >= 0.5]
    if not wrong or not best:
        return dict(weights)
    drawn = wrong[lot % len(wrong)]
    swapped = dict(weights)
    swapped[drawn] = sum(weights[name] for name in best)
    swapped.update({name: weights[drawn] / len(best) for name in best})
    return swapped
