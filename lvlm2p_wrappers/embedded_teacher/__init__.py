"""The embedded teacher: a scripted planner that answers like a vision-language model, and is none.

It is registered with LiteLLM as the model ``embedded/minigrid-planner`` and is asked exactly as any other model is: it
is sent rendered messages with a PNG and a JSON schema, and it sends JSON text back. It uses nothing but what the
request carries. It decodes the picture, recognises every tile, reads mission, carried object, earlier analysis and
action names from the text and the schema, plans with MiniGrid's rules, and turns path lengths into probabilities.

The model string carries its options, in any combination:

* ``embedded/minigrid-planner?tau=0.5``: how soft the answers are (see ``answers.action_probabilities``).
* ``embedded/minigrid-planner?error=0.1&salt=3``: in a fixed pseudo-random tenth of all situations most of the
  probability moves to a wrong action; another salt picks other situations.
* ``embedded/minigrid-planner?misread=0.1``: in a fixed tenth of all situations the first stage reports a wrong heading
  or a wrong cell. The second stage follows what the first one said. Without a first stage nothing is misread.

What it plans for: goal squares, lava, doors, keys, boxes that may hide a key, things that stand in the way, fetching,
picking up, going to doors and objects, opening, putting one thing next to another, the matching object of the Memory
tasks, moving obstacles, and BabyAI missions of several parts as far as a picture shows which part is done.

What it cannot do:

* ``go to A`` as any part but the last of a mission, and two pick-ups of different things in a row: no picture shows
  that something was visited, or picked up and put down again. It then keeps working on the first such part.
* ``on your left``, ``behind you`` and the like refer to where the episode began, which no picture shows. The phrase is
  ignored: of several matching things it takes the nearest one.
* Put a thing where everything around the target is occupied, and clear a way that things cut off on all sides in rooms
  crowded with them. Where it knows no plan it says so, and prefers any step forward.
* What a box holds is invisible. Boxes are opened only where a door needs a key that is nowhere to be seen.
* BabyAI's strict missions (the Debug levels) fail by their own rule when the second of two doors is asked for.
* Pictures that MiniGrid did not draw at 32 pixels a tile. It then says, in prose, that it cannot read the picture.
"""

from __future__ import annotations

__all__ = ["MODEL", "VERSION", "register"]

MODEL = "embedded/minigrid-planner"

# Part of the key under which every answer is stored. Raise it with any change that makes an answer different.
VERSION = "1"


def register() -> None:
    """Make LiteLLM know the model; calling it again changes nothing.

    Imports LiteLLM, which takes a second or two; importing this package does not.
    """
    from .provider import register_provider

    register_provider()
