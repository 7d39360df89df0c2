"""The student's view: nothing of the grid is lost, and ahead is always up."""

import gymnasium as gym
import minigrid  # noqa: F401
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from minigrid.core.world_object import Ball, Box, Door, Key

from lvlm2p_wrappers import AgentCentredObservation, UsageError

PLANES = AgentCentredObservation.PLANES
CELL = PLANES[: PLANES.index("mentioned later") + 1]
MARKS = {"mentioned first", "mentioned later"}
ENVS = [
    "MiniGrid-LavaGapS7-v0",
    "MiniGrid-Dynamic-Obstacles-6x6-v0",
    "MiniGrid-Fetch-8x8-N3-v0",
    "MiniGrid-GoToDoor-6x6-v0",
    "MiniGrid-DoorKey-8x8-v0",
    "MiniGrid-KeyCorridorS3R1-v0",
    "MiniGrid-LockedRoom-v0",
    "MiniGrid-MultiRoom-N6-v0",
    "BabyAI-GoToObjS4-v0",
    "BabyAI-PutNextS5N2Carrying-v0",
    "BabyAI-MiniBossLevel-v0",
]


def make(env_id="MiniGrid-Empty-8x8-v0", **kwargs):
    env = AgentCentredObservation(gym.make(env_id, **kwargs))
    env.reset(seed=0)
    return env


def seen(env):
    """The planes of the state that the env is in now."""
    return env.planes(env.observation(None))


def shown(planes, row, column):
    """The names of the planes that are set in a cell, without the mission's marks."""
    return {name for name, plane in zip(CELL, planes[: len(CELL)], strict=True) if plane[row, column]} - MARKS


def said(planes, env_info):
    """The names of the constant planes that are set, without the part that tells what they are about."""
    return {
        name.removeprefix(env_info).strip()
        for name, plane in zip(PLANES, planes, strict=True)
        if name.startswith(env_info) and plane.all()
    }


def expected_cell(thing):
    if thing is None:
        return set()
    if thing.type == "door":
        return {"door", thing.color, "locked" if thing.is_locked else "open" if thing.is_open else "closed"}
    return {thing.type, thing.color}


@pytest.mark.parametrize("env_id", ENVS)
def test_every_cell_of_the_grid_is_where_the_agents_own_axes_put_it(env_id):
    env = make(env_id)
    state = env.unwrapped
    env.action_space.seed(0)
    for step in range(40):
        planes = seen(env)
        middle = planes.shape[1] // 2
        inside = np.zeros(planes.shape[1:], bool)
        for x in range(state.width):
            for y in range(state.height):
                offset = np.array((x, y)) - state.agent_pos
                row, column = middle - offset @ state.dir_vec, middle + offset @ state.right_vec
                assert shown(planes, row, column) == expected_cell(state.grid.get(x, y)), (step, x, y)
                inside[row, column] = True
        assert all(shown(planes, *cell) == {"wall", "grey"} for cell in np.argwhere(~inside))
        if any(env.step(env.action_space.sample())[2:4]):
            env.reset()


def test_what_is_ahead_is_one_cell_above_the_middle_in_all_four_headings():
    env = make()
    state = env.unwrapped
    state.agent_pos = (3, 3)
    for _ in range(4):
        env.step(state.actions.left)
        x, y = state.front_pos
        state.grid.set(x, y, Ball("red"))
        planes = seen(env)
        state.grid.set(x, y, None)
        assert np.argwhere(planes[PLANES.index("ball")]).tolist() == [[planes.shape[1] // 2 - 1, planes.shape[2] // 2]]


@pytest.mark.parametrize("env_id", ["MiniGrid-LavaGapS7-v0", "MiniGrid-FourRooms-v0", "MiniGrid-GoToDoor-6x6-v0"])
def test_the_same_situation_looks_the_same_in_all_four_headings(env_id):
    env = make(env_id)
    state = env.unwrapped
    views = []
    for _ in range(4):
        views.append(seen(env))
        x, y = state.agent_pos
        state.agent_pos = (y, state.width - 1 - x)
        state.agent_dir = (state.agent_dir - 1) % 4
        state.grid = state.grid.rotate_left()
    assert all(np.array_equal(view, views[0]) for view in views)


def test_a_turn_changes_the_view_and_four_turns_restore_it():
    env = make("MiniGrid-LavaGapS7-v0")
    left = env.unwrapped.actions.left
    views = [seen(env), *(env.planes(env.step(left)[0]) for _ in range(4))]
    assert np.array_equal(views[0], views[4])
    assert not any(np.array_equal(views[0], view) for view in views[1:4])


def test_a_door_shows_whether_it_is_open_closed_or_locked():
    env = make()
    state = env.unwrapped
    views = {}
    for name, door in {
        "open": Door("blue", is_open=True),
        "closed": Door("blue"),
        "locked": Door("blue", is_locked=True),
    }.items():
        state.grid.set(*state.front_pos, door)
        views[name] = shown(seen(env), seen(env).shape[1] // 2 - 1, seen(env).shape[2] // 2)
    assert views == {name: {"door", "blue", name} for name in views}


def test_the_content_of_a_box_is_as_invisible_as_in_the_picture():
    env = make()
    state = env.unwrapped
    state.grid.set(*state.front_pos, Box("red"))
    empty = seen(env)
    state.grid.set(*state.front_pos, Box("red", contains=Key("blue")))
    assert np.array_equal(seen(env), empty)


def test_the_carried_object_is_visible_and_so_is_the_door_that_the_agent_stands_in():
    env = make()
    state = env.unwrapped
    assert said(seen(env), "carrying") == set()
    state.grid.set(*state.front_pos, Key("yellow"))
    planes = env.planes(env.step(state.actions.pickup)[0])
    assert said(planes, "carrying") == {"key", "yellow"}
    state.grid.set(*state.front_pos, Door("blue", is_open=True))
    planes = env.planes(env.step(state.actions.forward)[0])
    assert shown(planes, planes.shape[1] // 2, planes.shape[2] // 2) == {"door", "blue", "open"}
    assert said(planes, "carrying") == {"key", "yellow"}


@pytest.mark.parametrize(
    ("mission", "first", "later"),
    [
        ("go fetch a green ball", {"ball", "green"}, set()),
        ("you must get a yellow key", {"key", "yellow"}, set()),
        ("go to the grey door", {"door", "grey"}, set()),
        ("pick up the ball", {"ball"}, set()),
        ("pick up a red object", {"red"}, set()),
        ("avoid the lava and get to the green goal square", {"goal", "green"}, set()),
        ("put the grey box near the purple ball", {"box", "grey"}, {"ball", "purple"}),
        ("open the red door then the blue door", {"door", "red"}, {"door", "blue"}),
        (
            "get the red key from the grey room, unlock the red door and go to the goal",
            {"key", "red"},
            {"grey", "door", "red", "goal"},
        ),
        ("traverse the rooms to get to the end", set(), set()),
    ],
)
def test_a_mission_tells_its_first_object_from_the_later_ones(mission, first, later):
    env = make()
    env.unwrapped.mission = mission
    planes = seen(env)
    assert said(planes, "mission first") == first
    assert said(planes, "mission later") == later


@pytest.mark.parametrize(
    ("mission", "first", "later"),
    [
        ("go fetch a green ball", {Ball("green")}, set()),
        ("pick up a red object", {Box("red")}, set()),
        ("go to a door", {Door("blue"), Door("blue", is_open=True)}, set()),
        ("put the red box near the green ball", {Box("red")}, {Ball("green")}),
        ("traverse the rooms to get to the end", set(), set()),
    ],
)
def test_what_the_mission_mentions_is_marked_where_it_stands_and_when_it_is_carried(mission, first, later):
    env = make()
    state = env.unwrapped
    state.mission = mission
    for thing in {Ball("green"), Box("red"), Door("blue"), Key("grey"), *first, *later}:
        for carried in (False, True) if thing.can_pickup() else (False,):
            state.grid.set(*state.front_pos, None if carried else thing)
            state.carrying = thing if carried else None
            planes = seen(env)
            ahead = planes[:, planes.shape[1] // 2 - 1, planes.shape[2] // 2]
            for name, things in (("mentioned first", first), ("mentioned later", later)):
                named = {(other.type, other.color) for other in things}
                plane = PLANES.index(f"carrying {name}" if carried else name)
                assert ahead[plane] == ((thing.type, thing.color) in named)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("go fetch a green ball", "go fetch a green key"),
        ("go to the red door", "go to the blue door"),
        ("put the red box near the blue ball", "put the blue ball near the red box"),
        ("go to the red ball", "pick up the red ball"),
        ("open the red door, then open the blue door", "open the red door after you open the blue door"),
        ("pick up a key on your left", "pick up a key on your right"),
        ("open a door in front of you", "open a door behind you"),
    ],
)
def test_missions_that_ask_for_something_else_look_different(one, other):
    env = make()
    views = []
    for env.unwrapped.mission in (one, other):
        views.append(seen(env))
    assert not np.array_equal(*views)


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
@pytest.mark.parametrize("env_id", ENVS)
def test_the_observation_is_in_the_space_and_the_api_is_kept(env_id):
    env = AgentCentredObservation(gym.make(env_id, disable_env_checker=True))
    observation, _ = env.reset(seed=1)
    size = 2 * max(env.unwrapped.width, env.unwrapped.height) - 3
    assert env.observation_space.shape == (size * size + len(PLANES) - len(CELL),)
    assert env.planes(observation).shape == (len(PLANES), size, size)
    assert observation in env.observation_space
    check_env(env, skip_render_check=True)


@pytest.mark.slow
def test_every_registered_minigrid_env_can_be_seen():
    for env_id in gym.registry:
        if env_id.startswith(("MiniGrid-", "BabyAI-")) and "WFC" not in env_id:  # WFC's patterns are not in the wheel
            env = make(env_id)
            observation = env.step(env.action_space.sample())[0]
            assert observation in env.observation_space, env_id


def test_an_observation_is_not_changed_by_the_next_step():
    env = make("MiniGrid-LavaGapS7-v0")
    before = seen(env)
    kept = before.copy()
    env.step(env.unwrapped.actions.left)
    assert np.array_equal(before, kept)


def test_a_door_that_opens_is_seen_at_once_and_so_is_the_next_episode():
    env = make()
    state = env.unwrapped
    state.grid.set(*state.front_pos, Door("blue"))
    for expected in ("closed", "open", "closed"):
        planes = seen(env)
        assert shown(planes, planes.shape[1] // 2 - 1, planes.shape[2] // 2) == {"door", "blue", expected}
        env.step(state.actions.toggle)
    after_reset = env.planes(env.reset(seed=0)[0])
    assert not after_reset[PLANES.index("door")].any()


def test_a_step_draws_no_partial_view_and_leaves_a_black_one_to_what_is_inside():
    inner = gym.make("MiniGrid-DoorKey-8x8-v0")
    outer = AgentCentredObservation(inner)
    outer.reset(seed=0)
    obs = inner.step(outer.unwrapped.actions.left)[0]
    assert not obs["image"].any()
    assert (obs["direction"], obs["mission"]) == (outer.unwrapped.agent_dir, outer.unwrapped.mission)
    assert obs in inner.observation_space


def test_an_observation_is_a_twentieth_of_its_planes_in_memory():
    observation = make("MiniGrid-KeyCorridorS6R3-v0").observation(None)
    assert observation.nbytes * 20 < AgentCentredObservation.planes(observation).nbytes


def test_gym_make_rebuilds_the_env_from_its_spec():
    env = AgentCentredObservation(gym.make("MiniGrid-Fetch-6x6-N2-v0"))
    again = gym.make(env.spec)
    assert isinstance(again, AgentCentredObservation)
    assert np.array_equal(env.reset(seed=3)[0], again.reset(seed=3)[0])


def test_an_env_that_is_not_minigrid_is_refused_by_name():
    with pytest.raises(UsageError, match="CartPole-v1 is not a MiniGrid env"):
        AgentCentredObservation(gym.make("CartPole-v1"))
