"""The embedded teacher: a scripted planner behind LiteLLM that stands in for a vision-language model.

It is registered with LiteLLM as the model ``embedded/minigrid-planner`` and is asked like any other model: rendered
messages, a PNG and a JSON schema in, JSON text out. It knows only what the request carries. It decodes the picture,
recognises every tile, reads mission, carried object, analysis and action names from the text and the schema, searches
for shortest paths under MiniGrid's rules, and turns path lengths into probabilities.

Options are part of the model string:

* ``embedded/minigrid-planner?tau=0.5``: temperature of the softmax over extra steps, in steps.
* ``embedded/minigrid-planner?error=0.1&noise_seed=3``: label noise. In a fixed tenth of all states most of the
  probability moves to a wrong action; another seed picks other states. ``salt`` is an older name of the seed.
* ``embedded/minigrid-planner?misread=0.1``: perception noise. In a fixed tenth of all states the first stage reports a
  wrong heading or a wrong cell, and the second stage follows it. Without a first stage nothing is misread.
* ``embedded/minigrid-planner?confuse=up:down`` and ``?blind=lava`` (or ``?blind=red+door``): systematic errors, the
  same in all like states. Both stages take one heading for another, or a kind of thing for empty floor.

It cannot do what a single picture does not show:

* ``go to A`` as any part but the last of a mission, and two pick-ups of different objects in a row: no picture shows
  that something was visited, or picked up and put down again. It keeps working on the first such part.
* ``on your left``, ``behind you``: they refer to where the episode began. The phrase is ignored, and of several
  matching objects the nearest one is taken.
* What a box holds. Boxes are opened only where a door needs a key that is nowhere in the picture.

It also fails where every cell around a target is occupied, in some crowded rooms, in BabyAI's strict Debug levels when
the second of two doors is asked for, and on pictures that MiniGrid did not draw at 32 pixels a tile. Where it knows no
plan it says so; a picture that it cannot read gets an answer in prose, which counts as a bad reply.
"""

from __future__ import annotations

__all__ = ["MODEL", "VERSION", "register"]

MODEL = "embedded/minigrid-planner"

# Part of the key under which every answer is stored. Raise it with any change that makes an answer different.
VERSION = "1"


def register() -> None:
    """Register the model with LiteLLM; calling it again changes nothing.

    Imports LiteLLM, which takes a second or two; importing this package does not.
    """
    from .provider import register_provider

    register_provider()
