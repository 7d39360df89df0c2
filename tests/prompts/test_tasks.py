"""What the minigrid set says of each task is true of the task: what its pictures show, and which actions matter."""

import random

import gymnasium as gym
import minigrid  # noqa: F401  (registers the environments)
import pytest

from lvlm2p_wrappers.evaluation.ground_truth import best_actions, ground_truth
from lvlm2p_wrappers.prompts import PromptSet
from lvlm2p_wrappers.prompts.options import by_task
from lvlm2p_wrappers.views import action_names, viewer

OPTIONS = PromptSet(None, "minigrid").options
FEW = [
    "MiniGrid-LavaCrossingS9N1-v0",
    "MiniGrid-DistShift1-v0",
    "MiniGrid-Dynamic-Obstacles-6x6-v0",
    "MiniGrid-Fetch-6x6-N2-v0",
    "MiniGrid-GoToDoor-6x6-v0",
    "MiniGrid-GoToObject-6x6-N2-v0",
    "MiniGrid-PutNear-6x6-N2-v0",
    "MiniGrid-MemoryS7-v0",
    "MiniGrid-RedBlueDoors-6x6-v0",
    "MiniGrid-DoorKey-5x5-v0",
    "MiniGrid-MultiRoom-N2-S4-v0",
    "MiniGrid-Unlock-v0",
    "MiniGrid-UnlockPickup-v0",
    "MiniGrid-BlockedUnlockPickup-v0",
    "MiniGrid-KeyCorridorS3R1-v0",
    "MiniGrid-ObstructedMaze-1Dlhb-v0",
    "BabyAI-GoToObj-v0",
    "BabyAI-GoToLocalS5N2-v0",
    "BabyAI-PutNextLocalS5N3-v0",
]
ALL = sorted(
    env_id
    for env_id, spec in gym.registry.items()
    if env_id.startswith(("MiniGrid-", "BabyAI-")) and "WFC" not in env_id and env_id not in FEW and spec.entry_point
)


def moments(env_id, episodes, steps):
    """Environments at moments that an expert who errs every third time comes by."""
    env = gym.make(env_id, disable_env_checker=True)
    rng = random.Random(0)
    for seed in range(episodes):
        env.reset(seed=seed)
        for _ in range(steps):
            yield env
            names = action_names(env)
            best = best_actions(env, names) if rng.random() < 0.67 else names
            _, _, ended, _, _ = env.step(names.index(rng.choice(best or names)))
            if ended:
                break


def shown(env):
    for cell in filter(None, env.unwrapped.grid.grid):
        if cell.type == "door":
            yield "open door" if cell.is_open else "lock" if cell.is_locked else "door"
        elif cell.type not in ("wall", "floor"):
            yield cell.type


def check(env_id, episodes, steps):
    shows, choices = by_task(OPTIONS.shows, env_id, None), by_task(OPTIONS.choices, env_id, None)
    seen, mattering = set(), set()
    for env in moments(env_id, episodes, steps):
        seen |= set(shown(env))
        mattering |= set(ground_truth(env, action_names(env)).optimal)
    assert seen <= set(shows)
    assert mattering <= set(choices or mattering)
    return shows, choices, seen, mattering


@pytest.mark.parametrize("env_id", FEW)
def test_legend_and_actions_of_a_task_hold_all_that_it_has_and_little_more(env_id):
    """LavaGap was told of keys, doors and boxes, and asked how good it is to drop nothing."""
    shows, choices, seen, mattering = check(env_id, 4, 20)
    assert len(set(shows) - seen - {"door", "key", "ball", "box"}) <= 1
    assert len(set(choices or ()) - mattering) <= 3


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ALL)
def test_legend_and_actions_hold_all_that_any_environment_has(env_id):
    check(env_id, 1, 12)


@pytest.mark.parametrize("env_id", ["MiniGrid-LavaGapS7-v0", "MiniGrid-Fetch-6x6-N2-v0", "MiniGrid-Unlock-v0"])
def test_text_and_form_speak_of_nothing_that_the_task_cannot_have(env_id):
    env = gym.make(env_id, render_mode="rgb_array")
    env.reset(seed=0)
    view = viewer(env).view()
    prompts = PromptSet(None, "minigrid")
    questions = prompts.analysis(view), prompts.action(view, "{}")
    text = " ".join(message.text for question in questions for message in question.messages).lower()
    words = {"lava": "lava", "goal": "goal", "key": "key", "ball": "ball", "box": "box", "door": "door"}
    shows = by_task(OPTIONS.shows, env_id, [])
    can = {name for name in ("pickup", "toggle", "drop", "done") if name in by_task(OPTIONS.choices, env_id, [])}
    for word in words.keys() - set(shows) | {"pickup", "toggle", "drop", "done"} - can:
        assert word not in text, word
    assert ("hazards" in text) == ("lava" in shows)
    assert ("on_the_way" in text) == ("door" in shows)
