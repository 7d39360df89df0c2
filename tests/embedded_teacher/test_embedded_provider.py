"""The planner behind LiteLLM, asked as any other model is."""

import asyncio
import json
import subprocess
import sys

import gymnasium as gym
import litellm
import minigrid  # noqa: F401  (registers the environments)
import pytest

from lvlm2p_wrappers import embedded_teacher
from tests.embedded_teacher.drawing import (
    ANALYSIS_SCHEMA,
    action_schema,
    lines_of,
    messages,
    picture_of,
    response_format,
)


@pytest.fixture(autouse=True)
def registered():
    embedded_teacher.register()


def env_after(env_id, seed, steps):
    env = gym.make(env_id)
    env.reset(seed=seed)
    for action in steps:
        env.step(action)
    return env


def request_of(env_id):
    env = env_after(env_id, 0, ())
    return messages(picture_of(env), *lines_of(env))


def ask(talk, schema, model=embedded_teacher.MODEL, **options):
    return litellm.completion(model=model, messages=talk, response_format=response_format(schema), **options)


def test_registering_twice_adds_one_provider():
    embedded_teacher.register()
    assert sum(entry["provider"] == "embedded" for entry in litellm.custom_provider_map) == 1


def test_other_providers_stay_registered(monkeypatch):
    other = {"provider": "other", "custom_handler": litellm.CustomLLM()}
    monkeypatch.setattr(litellm, "custom_provider_map", [other])
    embedded_teacher.register()
    assert other in litellm.custom_provider_map
    assert len(litellm.custom_provider_map) == 2


@pytest.mark.parametrize("options", ["", "?tau=0.7&error=0.1&noise_seed=2", "?confuse=up:down&blind=red+door"])
def test_both_stages_are_answered_and_cost_nothing(options):
    talk = request_of("MiniGrid-LavaGapS7-v0")
    analysis = ask(talk, ANALYSIS_SCHEMA, embedded_teacher.MODEL + options, temperature=0, max_tokens=2048)
    action = ask(talk, action_schema(), embedded_teacher.MODEL + options, temperature=0, max_tokens=2048)
    assert json.loads(analysis.choices[0].message.content)["heading"] == "right"
    assert sum(json.loads(action.choices[0].message.content)["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    for response in (analysis, action):
        assert response.choices[0].finish_reason == "stop"
        assert response._hidden_params["response_cost"] == 0.0
        assert response.usage.prompt_tokens > 258
        assert response.usage.total_tokens == response.usage.prompt_tokens + response.usage.completion_tokens


def test_it_answers_on_an_event_loop_as_it_does_without_one():
    talk = request_of("MiniGrid-DoorKey-8x8-v0")

    async def both():
        return await asyncio.gather(*(_later(talk) for _ in range(3)))

    async def _later(talk):
        return await litellm.acompletion(
            model=embedded_teacher.MODEL, messages=talk, response_format=response_format(action_schema())
        )

    expected = ask(talk, action_schema()).choices[0].message.content
    assert {response.choices[0].message.content for response in asyncio.run(both())} == {expected}


@pytest.mark.parametrize(
    ("model", "error", "named"),
    [
        ("embedded/minigrid-dreamer", litellm.NotFoundError, "minigrid-dreamer"),
        ("embedded/minigrid-planner?taw=1", litellm.BadRequestError, "taw"),
        ("embedded/minigrid-planner?tau=-1", litellm.BadRequestError, "tau='-1'"),
    ],
)
def test_a_wrong_model_string_is_an_error_that_names_it(model, error, named):
    with pytest.raises(error, match=named):
        ask(request_of("MiniGrid-Empty-5x5-v0"), ANALYSIS_SCHEMA, model)


def test_a_request_without_a_picture_is_the_users_error():
    with pytest.raises(litellm.BadRequestError, match="needs the picture in every stage"):
        ask([{"role": "user", "content": "Mission: go"}], ANALYSIS_SCHEMA)


def test_importing_the_planner_does_not_import_litellm():
    code = "import sys, lvlm2p_wrappers.embedded_teacher; sys.exit('litellm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=_root(), check=False).returncode == 0


# Making an environment, or looking at one, is impossible in this process: all that it has is the logged request.
STRANGER = """
import gc, json, sys
import gymnasium, minigrid.minigrid_env

def refuse(*_, **__):
    raise AssertionError("the planner tried to make an environment")

gymnasium.make = gymnasium.make_vec = refuse
for name in ("__init__", "reset", "step", "gen_obs", "get_frame"):
    setattr(minigrid.minigrid_env.MiniGridEnv, name, refuse)

import litellm
from lvlm2p_wrappers import embedded_teacher

embedded_teacher.register()
with open(sys.argv[1]) as file:
    calls = json.load(file)
replies = [litellm.completion(**call).choices[0].message.content for call in calls]
assert not any(isinstance(thing, gymnasium.Env) for thing in gc.get_objects())
json.dump(replies, sys.stdout)
"""


def test_a_stranger_who_has_only_the_logged_request_answers_the_same(tmp_path):
    calls, replies, envs = [], [], []
    for env_id, steps in [
        ("MiniGrid-LavaGapS7-v0", (1,)),
        ("MiniGrid-DoorKey-8x8-v0", ()),
        ("MiniGrid-Fetch-8x8-N3-v0", (2, 0)),
        ("MiniGrid-Dynamic-Obstacles-8x8-v0", (1, 2)),
    ]:
        # The environment stays alive here, so that an answer that came from it would differ from the stranger's.
        envs.append(env_after(env_id, 5, steps))
        talk = messages(picture_of(envs[-1]), *lines_of(envs[-1]))
        for schema in (ANALYSIS_SCHEMA, action_schema()):
            call = {"model": embedded_teacher.MODEL + "?error=0.3&misread=0.3&salt=4", "messages": talk}
            calls.append({**call, "response_format": response_format(schema)})
            replies.append(litellm.completion(**calls[-1]).choices[0].message.content)
    log = tmp_path / "calls.json"
    log.write_text(json.dumps(calls))
    command = [sys.executable, "-c", STRANGER, str(log)]
    stranger = subprocess.run(command, cwd=_root(), capture_output=True, text=True, check=True)
    assert json.loads(stranger.stdout) == replies


def _root():
    from pathlib import Path

    return Path(embedded_teacher.__file__).parents[2]
