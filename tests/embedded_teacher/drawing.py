"""Pictures and requests for the embedded planner, from environments and from maps drawn in text."""

import base64
import io
import json

import numpy as np
from minigrid.core.grid import Grid
from minigrid.core.world_object import Ball, Box, Door, Goal, Key, Lava, Wall
from PIL import Image

from lvlm2p_wrappers.embedded_teacher.replies import answer
from lvlm2p_wrappers.embedded_teacher.request import read_options, read_request

ACTIONS = ("left", "right", "forward", "pickup", "drop", "toggle", "done")
COLORS = {"r": "red", "g": "green", "b": "blue", "p": "purple", "y": "yellow", "e": "grey"}
THINGS = {
    "k": Key,
    "b": Ball,
    "x": Box,
    "d": Door,
    "o": lambda color: Door(color, is_open=True),
    "l": lambda color: Door(color, is_locked=True),
}

_PLACE = {"type": "object", "properties": {"what": {"type": "string"}, "row": {"type": "integer"}}}
_PLACE["properties"]["column"] = {"type": "integer"}
_PLACES = {"type": "array", "items": _PLACE}
ANALYSIS_SCHEMA = {
    "type": "object",
    "properties": {
        "agent_row": {"type": "integer"},
        "agent_column": {"type": "integer"},
        "heading": {"type": "string", "enum": ["up", "right", "down", "left"]},
        "carrying": {"type": "string"},
        "targets": _PLACES,
        "hazards": _PLACES,
        "obstacles": _PLACES,
        "summary": {"type": "string"},
    },
}


def action_schema(actions=ACTIONS):
    weights = {"type": "object", "properties": {name: {"type": "number"} for name in actions}}
    return {"type": "object", "properties": {"reasoning": {"type": "string"}, "probabilities": weights}}


def response_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": schema}}


def data_url(frame, margin=32):
    """A PNG of a frame with a white margin and some black print in it."""
    height, width, _ = frame.shape
    picture = np.full((height + 2 * margin, width + 2 * margin, 3), 255, np.uint8)
    picture[margin : margin + height, margin : margin + width] = frame
    if margin:
        picture[10:20, 70:76] = 0
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def picture_of(env):
    return data_url(env.unwrapped.get_frame(highlight=False, tile_size=32))


def picture_of_map(text):
    """A map such as ``"# # #|# > G|# # #"``: ``#`` wall, ``.`` empty, ``G`` goal, ``~`` lava, ``> v < ^`` agent.

    Other things are two letters, kind and color: k key, b ball, x box, d closed door, o open door, l locked door.
    """
    rows = [row.split() for row in text.strip().replace("|", "\n").splitlines()]
    grid = Grid(len(rows[0]), len(rows))
    for y, row in enumerate(rows):
        for x, token in enumerate(row):
            if token in (">", "v", "<", "^"):
                agent, heading = (x, y), ">v<^".index(token)
            elif token != ".":
                plain = {"#": Wall, "G": Goal, "~": Lava}
                grid.set(x, y, plain[token]() if token in plain else THINGS[token[0]](COLORS[token[1]]))
    return data_url(grid.render(32, agent, heading))


def messages(picture, *lines):
    content = [{"type": "text", "text": "\n".join(lines)}, {"type": "image_url", "image_url": {"url": picture}}]
    return [{"role": "system", "content": "You are asked about a grid."}, {"role": "user", "content": content}]


def carried(env):
    thing = env.unwrapped.carrying
    return f"a {thing.color} {thing.type}" if thing else "nothing"


def lines_of(env):
    return f"Mission: {env.unwrapped.mission}", f"Carrying: {carried(env)}"


def analyse(picture, *lines, model="minigrid-planner"):
    request = read_request(messages(picture, *lines), response_format(ANALYSIS_SCHEMA))
    return json.loads(answer(request, read_options(model)))


def weigh(picture, *lines, model="minigrid-planner", actions=ACTIONS):
    """The probabilities of the second stage."""
    request = read_request(messages(picture, *lines), response_format(action_schema(actions)))
    return json.loads(answer(request, read_options(model)))["probabilities"]


def weigh_map(text, mission, carrying="nothing", **options):
    return weigh(picture_of_map(text), f"Mission: {mission}", f"Carrying: {carrying}", **options)


def best(weights):
    """All actions whose probability is the greatest."""
    top = max(weights.values())
    return {name for name, weight in weights.items() if weight > top - 1e-5}
