"""Ground truth: the oracle against the environments themselves."""

import copy
from collections import deque

import gymnasium as gym
import numpy as np
import pytest
from minigrid.core.world_object import Box, Key
from minigrid.envs import EmptyEnv
from minigrid.utils.baby_ai_bot import BabyAIBot

from lvlm2p_wrappers.embedded_teacher.tiles import read_picture
from lvlm2p_wrappers.evaluation.ground_truth import best_actions, ground_truth, has_ground_truth, scene_of
from lvlm2p_wrappers.records import Place
from lvlm2p_wrappers.views import action_names, viewer
from tests.embedded_teacher.drawing import picture_of

FAR = 10**6


def made(env_id, seed=0):
    env = gym.make(env_id, render_mode="rgb_array", disable_env_checker=True)
    env.reset(seed=seed)
    return env


def truth(env):
    return ground_truth(env, viewer(env).env_info.actions)


class TestAgainstBruteForce:
    """Everything that can happen is tried out on copies of the environment; the oracle knows the answers without."""

    @pytest.mark.parametrize(
        ("env_id", "seed"),
        [
            ("MiniGrid-LavaGapS5-v0", 0),
            ("MiniGrid-Empty-5x5-v0", 0),
            ("MiniGrid-GoToDoor-5x5-v0", 1),
            ("MiniGrid-Fetch-5x5-N2-v0", 0),
            ("MiniGrid-Fetch-5x5-N2-v0", 1),
            ("MiniGrid-MemoryS7-v0", 0),
            pytest.param("MiniGrid-RedBlueDoors-6x6-v0", 0, marks=pytest.mark.slow),
            pytest.param("MiniGrid-DoorKey-5x5-v0", 0, marks=pytest.mark.slow),
            pytest.param("MiniGrid-DoorKey-5x5-v0", 3, marks=pytest.mark.slow),
        ],
    )
    def test_in_every_state_exactly_the_optimal_and_the_fatal_actions_are_found(self, env_id, seed):
        found = explored(made(env_id, seed))
        steps_to = steps_to_success(found)
        assert len(found) >= 16
        for here, steps in found.values():
            told = ground_truth(here, tuple(steps))
            fewest = min(steps_to[then] for then in steps.values())
            optimal = {name for name, then in steps.items() if steps_to[then] == fewest} if fewest < FAR else set()
            assert set(told.optimal) == optimal
            assert set(told.fatal) == {name for name, then in steps.items() if then == "lost"}


def explored(env):
    """Every state that can be reached: by its key, a copy of the environment and what each action leads to."""
    actions = viewer(env).env_info.actions
    found, waiting = {}, deque([copy.deepcopy(env.unwrapped)])
    while waiting:
        here = waiting.popleft()
        if viewer(here).key() in found:
            continue
        steps = {}
        for number, name in enumerate(actions):
            there = copy.deepcopy(here)
            there.step_count = 0
            _, reward, terminated, _, _ = there.step(number)
            steps[name] = ("won" if reward > 0 else "lost") if terminated else viewer(there).key()
            if not terminated:
                waiting.append(there)
        found[viewer(here).key()] = (here, steps)
    return found


def steps_to_success(found):
    """By relaxation until nothing changes."""
    steps_to = dict.fromkeys(found, FAR) | {"won": 0, "lost": FAR}
    while True:
        better = {key: 1 + min(steps_to[then] for then in steps.values()) for key, (_, steps) in found.items()}
        if all(better[key] >= steps_to[key] for key in found):
            return steps_to
        steps_to.update(better)


@pytest.mark.parametrize(
    "env_id",
    [
        "MiniGrid-LavaGapS7-v0",
        "MiniGrid-Dynamic-Obstacles-6x6-v0",
        "MiniGrid-Fetch-6x6-N2-v0",
        "MiniGrid-KeyCorridorS3R2-v0",
        "BabyAI-PutNextS5N2-v0",
    ],
)
def test_the_true_grid_is_the_one_that_the_picture_shows(env_id):
    env = made(env_id)
    rng = np.random.default_rng(0)
    for _ in range(15):
        shown = read_picture(picture_of(env))
        true = scene_of(env.unwrapped)
        assert (true.agent, true.heading, true.world.cells) == (shown.agent, shown.heading, shown.world.cells)
        if any(env.step(int(rng.integers(env.action_space.n)))[2:4]):
            env.reset()


class TestWhereThingsAre:
    def test_lava_is_a_hazard_and_the_goal_the_target(self):
        told = truth(made("MiniGrid-LavaGapS5-v0", seed=1))
        assert (told.row, told.column, told.heading) == (1, 1, "right")
        assert told.targets == (Place(what="green goal square", row=3, column=3),)
        assert [place.what for place in told.hazards] == ["lava", "lava"]

    def test_balls_are_hazards_only_where_they_move(self):
        assert {place.what for place in truth(made("MiniGrid-Dynamic-Obstacles-6x6-v0")).hazards} == {"blue ball"}
        assert truth(made("BabyAI-GoToRedBall-v0")).hazards == ()

    def test_in_memory_the_matching_object_is_the_target_and_the_cell_before_the_other_one_the_hazard(self):
        env = made("MiniGrid-MemoryS7-v0")
        told = truth(env)
        (target,), (hazard,) = told.targets, told.hazards
        assert abs(target.row - env.unwrapped.success_pos[1]) == 1
        assert (hazard.column, hazard.row) == env.unwrapped.failure_pos

    def test_what_lies_in_a_box_is_no_target(self):
        env = made("MiniGrid-Fetch-5x5-N2-v0")
        env.unwrapped.mission = "fetch a red key"
        for cell in range(len(env.unwrapped.grid.grid)):
            if env.unwrapped.grid.grid[cell] is not None and env.unwrapped.grid.grid[cell].type != "wall":
                env.unwrapped.grid.grid[cell] = Box("blue", contains=Key("red"))
        assert truth(env).targets == ()


class TestMissionsOfSeveralParts:
    def test_the_part_that_comes_next_counts_and_the_other_one_may_be_named(self):
        told = truth(made("MiniGrid-RedBlueDoors-6x6-v0"))
        assert {place.what for place in told.targets} == {"closed red door"}
        assert {place.what for place in told.also} == {"closed red door", "closed blue door"}

    def test_a_part_that_no_picture_shows_to_be_done_is_known_to_be_done(self):
        env = next(env for env in (made("BabyAI-GoToSeqS5R2-v0", seed) for seed in range(50)) if is_a_then_b(env))
        first, later = truth(env).targets, truth(env).also
        assert first != later
        for _ in range(60):
            if env.unwrapped.instrs.a_done == "success":
                break
            before, action = truth(env).targets, best_actions(env, viewer(env).env_info.actions)[0]
            assert before == first
            env.step(viewer(env).env_info.actions.index(action))
        assert (truth(env).targets, truth(env).also) == (later, ())

    def test_on_your_left_is_meant_from_where_the_episode_began(self):
        env = next(env for env in (made("BabyAI-PickupLoc-v0", seed) for seed in range(50)) if is_ambiguous(env))
        meant = env.unwrapped.instrs.desc.obj_poss
        assert {(place.column, place.row) for place in truth(env).targets} == {tuple(cell) for cell in meant}


def is_a_then_b(env):
    return ", then " in env.unwrapped.mission and " and " not in env.unwrapped.mission


def is_ambiguous(env):
    """Whether the mission names a side, and things that would fit without it lie on another one."""
    described = env.unwrapped.instrs.desc
    alike = [
        thing
        for thing in env.unwrapped.grid.grid
        if thing is not None and thing.type == described.type and described.color in (None, thing.color)
    ]
    return described.loc is not None and len(alike) > len(described.obj_set)


@pytest.mark.parametrize("env_id", ["BabyAI-GoToSeqS5R2-v0", "BabyAI-PickupLoc-v0", "BabyAI-UnlockPickup-v0"])
def test_whoever_follows_the_oracle_succeeds(env_id):
    for seed in range(3):
        env = made(env_id, seed)
        actions = viewer(env).env_info.actions
        reward = terminated = truncated = False
        while not (terminated or truncated):
            _, reward, terminated, truncated, _ = env.step(actions.index(best_actions(env, actions)[0]))
        assert reward > 0, (env_id, seed)


class TestWhatIsNotKnown:
    def test_an_environment_that_rewards_nothing_has_no_best_action(self):
        assert truth(made("MiniGrid-Playground-v0")).optimal == ()

    def test_a_class_of_a_users_own_may_have_rules_of_its_own(self):
        class Mine(EmptyEnv):
            pass

        assert not has_ground_truth(Mine())
        assert not has_ground_truth(gym.make("FrozenLake-v1"))
        assert has_ground_truth(gym.make("MiniGrid-Empty-5x5-v0"))

    def test_looking_changes_nothing(self):
        env, twin = made("MiniGrid-Dynamic-Obstacles-6x6-v0"), made("MiniGrid-Dynamic-Obstacles-6x6-v0")
        truth(env)
        for _ in range(5):
            env.step(0)
            twin.step(0)
            assert viewer(env).key() == viewer(twin).key()


@pytest.mark.parametrize("env_id", ["BabyAI-GoToLocal-v0", "BabyAI-PutNextLocal-v0"])
def test_babyais_own_bot_takes_optimal_actions_where_it_takes_no_detour(env_id):
    """The bot shares no code with the search; it knows the whole grid here, as the search does."""
    env, agreed = gym.make(env_id), []
    for seed in range(4):
        env.reset(seed=seed)
        bot, action, over = BabyAIBot(env), None, False
        bot.vis_mask[:] = True
        while not over:
            optimal = truth(env).optimal
            action = int(bot.replan(action))
            agreed.append(action_names(env)[action] in optimal)
            _, reward, over, _, _ = env.step(action)
        assert reward > 0
    assert sum(agreed) >= 0.95 * len(agreed) > 10
