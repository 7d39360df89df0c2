"""What is really sent, for every task and every template, as text files: an edit of a template shows as a diff.

To write the files anew after an edit, and to read what has changed:

    LVLM2P_UPDATE_GOLDEN=1 python -m pytest tests/prompts/test_prompt_renders.py && git diff tests/prompts/golden
"""

import os
from pathlib import Path

import gymnasium as gym
import pytest

from lvlm2p_wrappers.prompts import PromptSet, bundled_prompts
from lvlm2p_wrappers.views import viewer

GOLDEN = Path(__file__).parent / "golden"
UPDATE = os.environ.get("LVLM2P_UPDATE_GOLDEN") == "1"

MINIGRID = [
    "MiniGrid-LavaGapS7-v0",
    "MiniGrid-Dynamic-Obstacles-6x6-v0",
    "MiniGrid-Fetch-6x6-N2-v0",
    "MiniGrid-GoToDoor-6x6-v0",
    "MiniGrid-GoToObject-6x6-N2-v0",
    "MiniGrid-PutNear-6x6-N2-v0",
    "MiniGrid-MemoryS7-v0",
    "MiniGrid-RedBlueDoors-6x6-v0",
    "MiniGrid-DoorKey-5x5-v0",
    "MiniGrid-Empty-5x5-v0",
    "BabyAI-GoToLocal-v0",
]
NEW = ["MiniGrid-Unlock-v0", "MiniGrid-BlockedUnlockPickup-v0", "BabyAI-BossLevel-v0", "MiniGrid-Playground-v0"]
"""Tasks whose rules stand apart from others' only since version 0.2.0."""

DEFAULT = [
    "FrozenLake-v1",
    "Taxi-v4",
    "CliffWalking-v1",
    "CartPole-v1",
    "MountainCar-v0",
    "Acrobot-v1",
    "Blackjack-v1",
]
ANALYSIS = {
    "minigrid": '{"agent_row": 1, "agent_column": 2, "heading": "up", "ahead": "floor", "targets": [], '
    '"next_step": {"row": 1, "column": 3}}',
    "minigrid-0.1": '{"agent_row": 1, "agent_column": 2, "heading": "up", "carrying": "nothing", "targets": [], '
    '"hazards": [], "obstacles": [], "summary": "Made up."}',
    "default-0.1": '{"summary": "Made up."}',
    "default": '{"summary": "Made up."}',
}


def look(env_id, history=()):
    """The first moment of an episode or, where several pictures are shown, the first that has so many."""
    env = gym.make(env_id, render_mode="rgb_array")
    env.reset(seed=0)
    viewed = viewer(env)
    memory = PromptSet(None, viewed.env_info.family).memory(viewed.env_info)
    shown = memory.look(viewed)
    for _ in range(memory.frames - 1):
        env.step(0)
        shown = memory.look(viewed)
    return shown.view(history)


def written(*questions):
    """Conversations as text, message by message."""
    lines = []
    for question in questions:
        for message in question.messages:
            lines += [f"=== {question.stage}: {message.role} ===", message.text]
            if message.picture is not None:
                height, width = message.picture.pixels.shape[:2]
                lines.append(f"[picture, {width} x {height} pixels]")
            lines.append("")
    return "\n".join(lines)


def compare(name, text):
    path = GOLDEN / name
    if UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"there is no {path}; {__doc__}"
    assert text == path.read_text(), f"{path} differs; {__doc__}"


@pytest.mark.parametrize("env_id", MINIGRID + DEFAULT)
def test_the_sets_of_version_0_1_0_are_as_they_were(env_id):
    view = look(env_id)
    name = f"{view.env_info.family}-0.1"
    prompts = PromptSet(name, view.env_info.family)
    compare(f"{name}/{env_id}.txt", written(prompts.analysis(view), prompts.action(view, ANALYSIS[name])))


@pytest.mark.parametrize("env_id", MINIGRID + NEW + DEFAULT)
def test_both_stages_of_a_task_are_as_on_file(env_id):
    view = look(env_id)
    prompts = PromptSet(None, view.env_info.family)
    text = written(prompts.analysis(view), prompts.action(view, ANALYSIS[view.env_info.family]))
    compare(f"{view.env_info.family}/{env_id}.txt", text)


@pytest.mark.parametrize("env_id", ["MiniGrid-LavaGapS7-v0", "FrozenLake-v1"])
def test_a_repair_turn_is_as_on_file(env_id):
    view = look(env_id)
    prompts = PromptSet(None, view.env_info.family)
    question = prompts.repair(prompts.action(view, "{}"), "It should go up.", "the reply holds no JSON object")
    text = written(question._replace(messages=question.messages[-2:]))
    compare(f"{view.env_info.family}/option-repair.txt", text)


@pytest.mark.parametrize("env_id", ["MiniGrid-LavaGapS7-v0", "FrozenLake-v1"])
def test_the_user_message_of_one_stage_with_history_is_as_on_file(env_id, tmp_path):
    (tmp_path / "set.toml").write_text("stages = 1\nhistory = 2")
    env_info = look(env_id).env_info
    prompts = PromptSet(tmp_path, env_info.family)
    question = prompts.action(look(env_id, history=env_info.actions[1:3]), "")
    compare(
        f"{env_info.family}/option-one-stage-history.txt", written(question._replace(messages=question.messages[1:]))
    )


@pytest.mark.parametrize("env_id", ["MiniGrid-LavaGapS7-v0", "BabyAI-GoToLocal-v0"])
def test_pictured_examples_are_as_on_file(env_id, tmp_path):
    (tmp_path / "set.toml").write_text("example_pictures = 2")
    view = look(env_id)
    prompts = PromptSet(tmp_path, "minigrid")
    questions = [prompts.analysis(view), prompts.action(view, ANALYSIS["minigrid"])]
    introduced = [q.messages[0].text.rpartition("\n\nReply with")[0].rpartition("\n\n")[2] for q in questions]
    turns = written(*(question._replace(messages=question.messages[1:]) for question in questions))
    compare(f"minigrid/option-example-pictures-{env_id}.txt", "\n".join([*introduced, "", turns]))


def test_no_file_is_left_of_a_task_that_is_gone():
    tasks = {f"{env_id}.txt" for env_id in MINIGRID + NEW + DEFAULT}
    found = {path.name for path in GOLDEN.rglob("*.txt") if not path.name.startswith("option-")}
    assert found == tasks


def test_every_bundled_rule_is_part_of_some_file():
    """LunarLander's needs Box2D, which the project does not."""
    files = "\n".join(path.read_text() for path in GOLDEN.rglob("*.txt"))
    for rules in bundled_prompts().glob("*/rules/*.jinja"):
        first = rules.read_text().splitlines()[0].partition("{")[0]
        assert first in files or rules.stem in {"lunar_lander", "other"}, rules
