"""What a student sees of any environment, and what the end of an episode means to it."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Sequence, Text, Tuple
from gymnasium.utils.env_checker import check_env
from minigrid.core.world_object import Key

from lvlm2p_wrappers import PackedObservation, PixelObservation, StudentSpace, UsageError, student_env
from lvlm2p_wrappers.observations.words import words


class Sees(gym.Env):
    """Shows what it is told to: `obs` in each step, a picture of `sides`, and a mission as an attribute if given."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, space, steps, mission=None, pictures=(), render_mode="rgb_array"):
        self.observation_space, self.action_space, self.render_mode = space, Discrete(2), render_mode
        self.steps, self.pictures, self.at = steps, pictures, 0
        if mission is not None:
            self.mission = mission

    def reset(self, *, seed=None, options=None):  # noqa: ARG002
        super().reset(seed=seed)
        return self.steps[self.at], {}

    def step(self, action):  # noqa: ARG002
        self.at += 1
        return self.steps[self.at], 0.0, False, False, {}

    def render(self):
        return self.pictures[self.at]


def seen(env):
    """The observations of a reset and of steps until the environment has shown all."""
    first, _ = env.reset()
    base = env.unwrapped
    return [first, *(env.step(0)[0] for _ in base.steps[base.at + 1 :])]


# Words


def test_a_text_is_told_from_one_with_other_words_or_with_the_same_words_in_other_pairs():
    texts = ["go to the red ball", "go to the blue ball", "put the red ball next to the blue box"]
    texts += ["put the blue ball next to the red box", "put the blue box next to the red ball", "nothing", ""]
    assert len({words(text).tobytes() for text in texts}) == len(texts)
    assert np.array_equal(words("Go to the red ball"), words("go to a red ball"))


def test_hundreds_of_missions_are_told_apart():
    colours, kinds = ("red", "green", "blue", "grey"), ("ball", "box", "key")
    things = [f"{colour} {kind}" for colour in colours for kind in kinds]
    missions = {f"put the {one} next to the {other}" for one in things for other in things}
    assert len({words(mission).tobytes() for mission in missions}) == len(missions) == 144


# Any observation as one vector


def test_pictures_come_first_then_vectors_and_one_hots_then_words():
    space = Dict(
        {"where": Discrete(3), "task": Text(20), "camera": Box(0, 255, (16, 20, 3), np.uint8), "flags": MultiBinary(2)}
    )
    picture = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    obs = {"where": 2, "task": "find it", "camera": picture, "flags": np.array([1, 0], np.int8)}
    env = PackedObservation(Sees(space, [obs]))
    (packed,) = seen(env)
    assert (packed.dtype, env.observation_space.parts) == (np.uint8, ((16, 20, 3),))
    assert np.array_equal(packed[: 16 * 20 * 3].reshape(16, 20, 3), picture)
    assert packed[16 * 20 * 3 :].tolist() == [1, 0, 0, 0, 1, *words("find it")]
    assert env.observation_space.contains(packed)


def test_what_is_no_byte_makes_the_vector_one_of_floats_with_its_bounds():
    space = Tuple([Box(-8, 4, (2, 2), np.float64), Box(-np.inf, np.inf, (1,), np.float32)])
    env = PackedObservation(Sees(space, [(np.array([[1, 2], [3, -4.5]]), np.array([7.0]))]))
    (packed,) = seen(env)
    assert packed.dtype == np.float32
    assert packed.tolist() == [1, 2, 3, -4.5, 7]
    assert env.observation_space.scale.tolist() == [8, 8, 8, 8, 1]  # without a bound, a value stays as it is


@pytest.mark.parametrize("shape", [(84, 84), (3, 64, 64), (64, 64, 4)])
def test_a_picture_may_have_its_channels_first_last_or_none(shape):
    picture = np.arange(np.prod(shape), dtype=np.int64).astype(np.uint8).reshape(shape)
    env = PackedObservation(Sees(Box(0, 255, shape, np.uint8), [picture]))
    ((height, width, channels),) = env.observation_space.parts
    assert height == width == max(shape)
    packed = seen(env)[0].reshape(height, width, channels)
    expected = {2: lambda: picture, 3: lambda: picture[0] if shape[0] == 3 else picture[..., 0]}[len(shape)]()
    assert np.array_equal(packed[..., 0], expected)


def test_stacked_observations_are_oldest_first_and_of_one_episode():
    shape = (16, 16, 1)
    steps = [
        {"camera": np.full(shape, n, np.uint8), "n": np.array([n], np.uint8), "task": f"task {n}"} for n in range(6)
    ]
    space = Dict({"camera": Box(0, 255, shape, np.uint8), "n": Box(0, 255, (1,), np.uint8), "task": Text(9)})
    env = PackedObservation(Sees(space, steps), frames=3)
    assert env.observation_space.parts == ((16, 16, 3),)
    first, _ = env.reset()
    env.step(0)
    last = env.step(0)[0]
    again, _ = env.reset()  # at step 2, of another episode
    for packed, frames in ((first, [0, 0, 0]), (last, [0, 1, 2]), (again, [2, 2, 2])):
        assert packed[: 16 * 16 * 3].reshape(16, 16, 3)[5, 7].tolist() == frames
        assert packed[16 * 16 * 3 :].tolist() == [*frames, *words(f"task {frames[-1]}")]


def test_a_mission_that_is_no_part_of_the_observation_reaches_the_student_too():
    one, other = (
        seen(PackedObservation(Sees(Discrete(2), [0], mission)))[0] for mission in ("find the key", "find the door")
    )
    assert one[2:].tolist() == words("find the key").tolist()
    assert not np.array_equal(one, other)


def test_what_has_no_vector_of_one_length_is_refused_and_pixels_are_proposed():
    with pytest.raises(UsageError, match="Sequence.*--obs pixels"):
        PackedObservation(Sees(Sequence(Discrete(2)), [()]))


def test_an_observation_of_another_shape_than_its_space_says_is_named():
    env = PackedObservation(
        Sees(Dict({"a": Box(0, 255, (16, 16, 3), np.uint8)}), [{"a": np.zeros((20, 16, 3), np.uint8)}])
    )
    with pytest.raises(UsageError, match=r"observation at a has the shape \(20, 16, 3\).* \(16, 16, 3\)"):
        env.reset()


# Pixels


def picture(value, sides=(128, 128)):
    return np.full((*sides, 3), value, np.uint8)


def test_the_picture_is_made_smaller_by_averaging():
    drawn = picture(0)
    drawn[:, 1::2] = 200
    env = PixelObservation(Sees(Discrete(2), [0], pictures=[drawn]))
    assert (seen(env)[0]["picture"] == 100).all()


@pytest.mark.parametrize(
    ("drawn", "says"),
    [
        ([picture(1), picture(2, (64, 128))], "draws 128x64 pixels, and drew 128x128 before"),
        ([None], "draws None"),
        ([np.full((64, 64, 3), np.nan)], r"draws float64 of shape \(64, 64, 3\)"),
        ([np.zeros((64, 64), np.uint8)], r"draws uint8 of shape \(64, 64\)"),
    ],
)
def test_a_picture_that_cannot_be_used_ends_in_one_message(drawn, says):
    env = PixelObservation(Sees(Discrete(2), [0] * len(drawn), pictures=drawn))
    with pytest.raises(UsageError, match=says):
        seen(env)


def test_an_env_without_pictures_is_refused():
    with pytest.raises(UsageError, match="gives no picture: it was made with render_mode=None"):
        PixelObservation(Sees(Discrete(2), [0], render_mode=None))


@pytest.mark.parametrize("env_id", ["MiniGrid-LavaGapS7-v0", "MiniGrid-KeyCorridorS3R3-v0", "BabyAI-GoToLocal-v0"])
def test_a_grid_is_drawn_in_whole_tiles_as_minigrid_draws_it(env_id):
    env = PixelObservation(gym.make(env_id))
    state = env.unwrapped
    obs, _ = env.reset(seed=1)
    for _ in range(10):
        tile = 64 // max(state.width, state.height)
        height, width = state.height * tile, state.width * tile
        assert np.array_equal(obs["picture"][:height, :width], state.get_frame(highlight=False, tile_size=tile))
        assert not obs["picture"][height:].any() and not obs["picture"][:, width:].any()
        obs = env.step(env.action_space.sample())[0]


def test_what_no_picture_of_a_grid_shows_is_told_in_words():
    env = student_env("MiniGrid-Fetch-6x6-N2-v0", obs="pixels")
    state = env.unwrapped
    first, _ = env.reset(seed=0)
    pixels, rest = 64 * 64 * 3, first[64 * 64 * 3 :]
    assert rest.tolist() == [*words("nothing"), *words(state.mission)]
    state.mission, state.carrying = "fetch a grey key", Key("red")
    state.grid.set(*state.front_pos, None)
    second = env.step(state.actions.done)[0]
    assert second[pixels:].tolist() == [*words("red key"), *words("fetch a grey key")]


@pytest.mark.parametrize("obs", ["grid", "pixels", "env"])
def test_the_mission_reaches_the_student_in_every_way_of_seeing(obs):
    env = student_env("MiniGrid-GoToDoor-6x6-v0", obs=obs)
    env.reset(seed=0)
    state = env.unwrapped
    shown = []
    for mission in ("go to the red door", "go to the blue door"):
        state.mission = mission
        shown.append(env.step(state.actions.done)[0])
        state.step_count = 0
    assert not np.array_equal(*shown)


# The families


@pytest.mark.parametrize(
    ("env_id", "obs", "parts"),
    [
        ("MiniGrid-LavaGapS7-v0", "auto", ((11, 11),)),
        ("MiniGrid-LavaGapS7-v0", "pixels", ((64, 64, 3),)),
        ("MiniGrid-LavaGapS7-v0", "env", ()),
        ("CartPole-v1", "auto", ()),
        ("CartPole-v1", "pixels", ((64, 64, 3),)),
        ("FrozenLake-v1", "auto", ()),
        ("ALE/Freeway-v5", "auto", ((84, 84, 4),)),
        ("ALE/Freeway-v5", "env", ((210, 160, 3),)),
        ("CrafterReward-v1", "auto", ((64, 64, 3),)),
    ],
)
def test_an_env_is_seen_as_asked_and_keeps_to_gymnasiums_rules(env_id, obs, parts):
    for start, package in (("ALE/", "ale_py"), ("Crafter", "crafter")):
        if env_id.startswith(start):
            pytest.importorskip(package)
    env = student_env(env_id, obs=obs)
    assert isinstance(env.observation_space, StudentSpace)
    assert env.observation_space.parts == parts
    with warnings.catch_warnings(action="ignore"):  # of wrappers, and of bounds at infinity
        check_env(env, skip_render_check=True)


def test_of_minigrids_own_view_the_student_gets_what_stands_in_each_cell_and_the_heading():
    env = student_env("MiniGrid-Empty-5x5-v0", obs="env")
    (first, _), state = env.reset(seed=0), env.unwrapped
    assert set(first) == {0, 1}
    assert not np.array_equal(env.step(state.actions.left)[0], first)
    assert (env.observation_space.scale == 1).all()


def test_ataris_student_sees_grey_pictures_and_signs_of_rewards_and_the_teacher_the_game_itself():
    pytest.importorskip("ale_py")
    env = student_env("ALE/MsPacman-v5", render_mode="rgb_array")
    obs, _ = env.reset(seed=0)
    assert obs.reshape(84, 84, 4).std() > 0
    env.action_space.seed(0)
    rewards, info, frames = [], {}, env.unwrapped.ale.getEpisodeFrameNumber()
    while "episode" not in info:
        _, reward, _, _, info = env.step(env.action_space.sample())
        rewards.append(reward)
    assert set(rewards) == {0, 1}
    assert info["episode"]["r"] >= 10 * sum(rewards)  # a pill is worth ten
    played = env.unwrapped.ale.getEpisodeFrameNumber() - frames
    assert 4 * (len(rewards) - 1) < played <= 4 * len(rewards)
    assert env.render().shape == (210, 160, 3)


# Episodes' ends


def end(env):
    """The last step of an episode in which nothing is ever done."""
    env.reset(seed=0)
    while True:
        *_, terminated, truncated, info = env.step(0)
        if terminated or truncated:
            return terminated, truncated, info


@pytest.mark.parametrize(
    ("env_id", "time_limit", "is_truncated"),
    [
        ("MiniGrid-Empty-5x5-v0", "auto", False),
        ("MiniGrid-Empty-5x5-v0", "bootstrap", True),
        ("MountainCar-v0", "auto", True),
        ("MountainCar-v0", "terminal", False),
    ],
)
def test_a_time_limit_ends_the_task_in_minigrid_and_cuts_episodes_off_elsewhere(env_id, time_limit, is_truncated):
    terminated, truncated, info = end(student_env(env_id, time_limit=time_limit))
    assert (terminated, truncated) == (not is_truncated, is_truncated)
    assert "episode" in info


def test_minigrid_says_whether_an_episode_was_a_success_and_others_say_nothing():
    assert end(student_env("MiniGrid-Empty-5x5-v0"))[2]["is_success"] is False
    env = student_env("MiniGrid-Empty-5x5-v0")
    env.reset(seed=0)
    forward, right = env.unwrapped.actions.forward, env.unwrapped.actions.right
    info = [env.step(action)[-1] for action in (forward, forward, right, forward, forward)][-1]
    assert info["is_success"] is True
    assert "is_success" not in end(student_env("MountainCar-v0"))[2]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"obs": "picture"}, "obs='picture': give one of auto, grid, pixels, env"),
        ({"time_limit": "never"}, "time_limit='never': give one of auto, bootstrap, terminal"),
        ({"frame_stack": 10**9}, "frame_stack=1000000000: give a number from 1 to 32"),
        ({"obs": "grid"}, "CartPole-v1 is not a MiniGrid env"),
        ({"env_id": "Pendulum-v1"}, "Pendulum-v1 has the action space Box"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_message(flags, says):
    with pytest.raises(UsageError, match=says):
        student_env(**{"env_id": "CartPole-v1"} | flags)
