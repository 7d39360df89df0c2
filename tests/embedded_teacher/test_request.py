"""What the planner takes from a model string, from messages and from a schema."""

import json
import time

import gymnasium as gym
import minigrid  # noqa: F401  (registers the environments)
import pytest

from lvlm2p_wrappers.embedded_teacher.grid import Thing
from lvlm2p_wrappers.embedded_teacher.request import DEFAULT_TAU, Options, RefusedError
from tests.embedded_teacher.drawing import (
    ACTIONS,
    ANALYSIS_SCHEMA,
    action_schema,
    answer,
    lines_of,
    messages,
    picture_of,
    picture_of_map,
    read_options,
    read_request,
    response_format,
)

ROOM = picture_of_map("# # # #|# > G #|# # # #")


def read(*lines, schema=None):
    return read_request(messages(ROOM, *lines), response_format(schema or ANALYSIS_SCHEMA))


def test_options_are_read_from_the_model_string():
    assert read_options("minigrid-planner") == Options(tau=DEFAULT_TAU, error=0, misread=0, noise_seed="0")
    options = Options(tau=2, error=0.25, misread=1, noise_seed="7")
    assert read_options("minigrid-planner?tau=2&error=0.25&noise_seed=7&misread=1") == options


def test_salt_is_accepted_as_the_older_name_of_the_noise_seed():
    assert read_options("minigrid-planner?error=0.5&salt=7") == read_options("minigrid-planner?error=0.5&noise_seed=7")


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("minigrid-planner?taw=1", "taw='1': there is no such option; the options are tau, error, misread, noise_seed"),
        ("minigrid-planner?tau=soft", "tau='soft'"),
        ("minigrid-planner?tau=0", "tau='0'"),
        ("minigrid-planner?tau=nan", "tau='nan'"),
        ("minigrid-planner?tau=", "tau=''"),
        ("minigrid-planner?error=1.5", "error='1.5'"),
        ("minigrid-planner?misread=-0.1", "misread='-0.1'"),
        ("minigrid-planner?salt=", "noise_seed=''"),
        ("minigrid-planner?noise_seed=", "noise_seed=''"),
        ("minigrid-planner?noise_seed=1&salt=1", "'noise_seed' is given twice"),
        ("minigrid-planner?tau=1&tau=2", "'tau' is given twice"),
        ("minigrid-planner?confuse=up", "confuse='up': write two of right, down, left, up, such as up:down"),
        ("minigrid-planner?confuse=up:north", "confuse='up:north': write two of"),
        ("minigrid-planner?confuse=up:up", "confuse='up:up': write two of"),
        ("minigrid-planner?blind=", "blind='': write one of door, key, ball, box, goal, lava, wall"),
        ("minigrid-planner?blind=tree", "blind='tree': write one of door"),
        ("minigrid-planner?blind=pink+door", "blind='pink door': write one of door"),
        ("minigrid-planner?blind=red+lava", "of the first 4 also one color, as in red+door"),
    ],
)
def test_a_wrong_option_is_refused_by_name(model, named):
    with pytest.raises(RefusedError) as refusal:
        read_options(model)
    assert refusal.value.status == 400
    assert named in str(refusal.value)


def test_another_embedded_model_does_not_exist():
    with pytest.raises(RefusedError, match="'minigrid-dreamer'") as refusal:
        read_options("minigrid-dreamer")
    assert refusal.value.status == 404


def test_a_request_without_a_picture_is_refused():
    with pytest.raises(RefusedError, match="needs the picture in every stage") as refusal:
        read_request([{"role": "user", "content": "Mission: go"}], None)
    assert refusal.value.status == 400


def test_the_last_of_several_lines_counts_however_it_is_written():
    request = read("Mission: an example", "**mission:** Go to the RED door", "  carrying : a yellow key")
    assert request.mission == "go to the red door"
    assert request.carrying == Thing("key", "yellow")


def test_missing_lines_mean_no_mission_and_empty_hands():
    request = read("What is to be done?")
    assert (request.mission, request.carrying, request.analysis) == ("", None, {})


def test_a_repair_turn_need_not_repeat_picture_and_mission():
    first = messages(ROOM, "Mission: open the red door", "Carrying: a red key")
    talk = [*first, {"role": "assistant", "content": "hm"}, {"role": "user", "content": "That was not JSON."}]
    request = read_request(talk, response_format(ANALYSIS_SCHEMA))
    assert (request.picture, request.mission, request.carrying.kind) == (ROOM, "open the red door", "key")


@pytest.mark.parametrize("text", ['Analysis: {"agent_row": 3}', 'ANALYSIS:\n{\n "agent_row": 3\n}\nthank you'])
def test_the_analysis_is_found_on_one_line_or_on_several(text):
    assert read(text).analysis == {"agent_row": 3}


@pytest.mark.parametrize("text", ["\n" * 300_000, "Analysis: " + "a" * 300_000, "Analysis:\n" * 30_000 + "[" * 9999])
def test_long_texts_are_read_in_time_in_proportion_to_their_length(text):
    """A prompt of many blank lines kept the planner busy for hours."""
    began = time.thread_time()
    assert read(text, "Mission: go").mission == "go"
    assert time.thread_time() - began < 5


@pytest.mark.parametrize(
    "text", ["Analysis: none", "Analysis: {broken", "Analysis: [1, 2]", 'Analysis: {"a":' + "[" * 99999]
)
def test_an_analysis_that_is_no_object_counts_as_none(text):
    assert read(text).analysis == {}


def test_the_schema_decides_which_stage_it_is():
    assert read().actions == ()
    assert read(schema=action_schema()).actions == ACTIONS


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"summary": {"type": "string"}}, {"summary"}),
        ({"agent_row": {"type": "integer"}, "mood": {"enum": ["good", "bad"]}}, {"agent_row", "mood"}),
        ({"ok": {"type": "boolean"}, "n": {"type": ["integer", "null"], "minimum": 2}}, {"ok", "n"}),
        ({"agent": {"$ref": "#/$defs/Agent"}, "targets": {"type": "array", "items": {"type": "string"}}}, None),
        ({"heading": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "carrying": {"const": "?"}}, None),
        ({"lava": {"type": "array", "minItems": 1.0, "items": {"type": "integer"}}}, {"lava"}),
        ({"a": {"anyOf": [{"type": "boolean"}]}, "b": {"$ref": "#/properties/a/anyOf/0"}, "c": True}, {"a", "b", "c"}),
        (
            {
                "obstacles": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"obstacles": {"type": "array"}}},
                }
            },
            None,
        ),
    ],
)
def test_a_schema_of_the_users_own_is_filled_validly(parts, expected):
    import jsonschema

    agent = {"type": "object", "properties": {"agent_column": {"type": "integer"}}, "required": ["agent_column"]}
    schema = {"type": "object", "properties": parts, "required": list(parts), "$defs": {"Agent": agent}}
    request = read("Mission: get to the green goal square", schema=schema)
    reply = json.loads(answer(request, read_options("minigrid-planner")))
    jsonschema.validate(reply, schema)
    assert set(reply) == (expected or set(parts))


def test_what_is_known_goes_into_a_users_schema():
    parts = {
        "agent": {"type": "object", "properties": {"agent_column": {"type": "integer"}}},
        "text": {"type": "string"},
    }
    reply = json.loads(answer(read(schema={"properties": parts}), read_options("minigrid-planner")))
    assert reply["agent"] == {"agent_column": 1}
    assert "faces right" in reply["text"]
    assert "not a language model" in reply["text"]


def test_the_analysis_is_the_truth():
    env = gym.make("MiniGrid-DoorKey-8x8-v0")
    env.reset(seed=3)
    request = read_request(messages(picture_of(env), *lines_of(env)), response_format(ANALYSIS_SCHEMA))
    reply = json.loads(answer(request, read_options("minigrid-planner")))
    real = env.unwrapped
    assert (reply["agent_column"], reply["agent_row"]) == tuple(map(int, real.agent_pos))
    assert reply["heading"] == ("right", "down", "left", "up")[real.agent_dir]
    assert reply["carrying"] == "nothing"
    assert reply["targets"] == [{"what": "green goal square", "row": 6, "column": 6}]
    assert reply["hazards"] == []
    for place in reply["obstacles"]:
        thing = real.grid.get(place["column"], place["row"])
        assert place["what"].endswith(thing.type)
    kinds = sorted(place["what"].split()[-1] for place in reply["obstacles"])
    assert kinds == ["door", "key", *["wall"] * 5]
