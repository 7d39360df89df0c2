import enum
import io
import multiprocessing
import os
import threading
import weakref
import zlib

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Box, Door, WorldObj
from minigrid.minigrid_env import MiniGridEnv
from minigrid.wrappers import ImgObsWrapper
from PIL import Image

from lvlm2p_wrappers.errors import UsageError
from lvlm2p_wrappers.picture import Picture
from lvlm2p_wrappers.views import View, action_names, vector_viewer, viewer
from lvlm2p_wrappers.views.rulers import TILE


def lava_gap():
    env = gym.make("MiniGrid-LavaGapS7-v0")
    env.reset(seed=0)
    return env


def test_a_minigrid_env_needs_no_render_mode_to_be_seen():
    view = viewer(lava_gap()).view()
    assert view.picture.pixels.shape == (9 * TILE, 9 * TILE, 3)
    assert view.picture.pixels.dtype == np.uint8
    assert view.mission == "avoid the lava and get to the green goal square"
    assert view.carrying == "nothing"
    assert view.env_info.actions == ("left", "right", "forward", "pickup", "drop", "toggle", "done")


def test_the_grid_is_the_envs_own_frame_without_highlight():
    env = lava_gap()
    inside = viewer(env).view().picture.pixels[TILE:-TILE, TILE:-TILE]
    assert np.array_equal(inside, env.unwrapped.get_frame(highlight=False, tile_size=TILE))


def test_rows_that_pictures_share_are_those_of_the_frame(monkeypatch):
    monkeypatch.setattr("lvlm2p_wrappers.views.minigrid.KNOWN_ROWS", 20)  # so that they are forgotten on the way, too
    envs = [gym.make(f"MiniGrid-{name}-v0") for name in ("LavaGapS7", "DoorKey-8x8", "Fetch-5x5-N2")]
    for env in envs:
        env.reset(seed=1)
        env.action_space.seed(1)
    for env in 30 * envs:
        if any(env.step(env.action_space.sample())[2:4]):
            env.reset()
        frame = env.unwrapped.get_frame(highlight=False, tile_size=TILE)
        assert np.array_equal(viewer(env).view().picture.pixels[TILE:-TILE, TILE:-TILE], frame)


def test_every_row_and_column_is_numbered_on_both_sides():
    pixels = viewer(lava_gap()).view().picture.pixels
    for cell in range(1, 8):
        part = slice(cell * TILE, (cell + 1) * TILE)
        for margin in (pixels[:TILE, part], pixels[-TILE:, part], pixels[part, :TILE], pixels[part, -TILE:]):
            assert margin.min() < 64
    zero, one = pixels[:TILE, TILE : 2 * TILE], pixels[:TILE, 2 * TILE : 3 * TILE]
    assert not np.array_equal(zero, one)


def test_the_carried_object_is_told_in_words():
    env = gym.make("MiniGrid-Fetch-8x8-N3-v0")
    env.reset(seed=0)
    held = next(cell for cell in env.unwrapped.grid.grid if cell is not None and cell.can_pickup())
    env.unwrapped.carrying = held
    assert viewer(env).view().carrying == f"a {held.color} {held.type}"


@pytest.mark.parametrize("env_id", ["MiniGrid-LavaGapS5-v0", "MiniGrid-DoorKey-5x5-v0", "MiniGrid-Fetch-5x5-N2-v0"])
def test_two_states_have_one_key_exactly_if_they_look_and_read_alike(env_id):
    env = gym.make(env_id)
    seen, keys = {}, {}
    for seed in range(5):
        env.reset(seed=seed)
        env.action_space.seed(seed)
        look = viewer(env)
        for _ in range(150):
            view = look.view()
            told = (view.picture.digest, view.mission, view.carrying)
            assert seen.setdefault(look.key(), told) == told
            assert keys.setdefault(told, look.key()) == look.key()
            if any(env.step(env.action_space.sample())[2:4]):
                env.reset()
    assert len(seen) > 20


@pytest.mark.parametrize(
    "change",
    [
        lambda env: env.grid.set(2, 2, Door("red", is_open=True)),
        lambda env: env.grid.set(2, 2, Door("red", is_locked=True)),
        lambda env: env.grid.set(2, 2, Box("red")),
        lambda env: setattr(env, "agent_dir", (env.agent_dir + 1) % 4),
        lambda env: setattr(env, "mission", "another one"),
        lambda env: setattr(env, "carrying", Box("red")),
    ],
)
def test_whatever_the_teacher_is_told_changes_the_key(change):
    env = lava_gap()
    before = viewer(env).key()
    change(env.unwrapped)
    assert viewer(env).key() != before


def test_an_object_of_an_unknown_class_has_no_key_since_it_may_draw_anything():
    class Odd(WorldObj):
        def render(self, img):
            img[:] = 77

    env = lava_gap()
    env.unwrapped.grid.set(2, 2, Odd("ball", "red"))
    assert viewer(env).key() is None


@pytest.mark.parametrize(
    ("drawer", "method"),
    [
        (lambda env: env, "get_frame"),
        (lambda env: env, "get_full_render"),
        (lambda env: env.grid, "render"),
    ],
)
@pytest.mark.parametrize("where", ["class", "instance"])
def test_an_env_that_draws_itself_is_shown_as_it_does_and_has_no_key(drawer, method, where):
    env = lava_gap()
    look, plain, drawn = viewer(env), env.unwrapped.get_frame(highlight=False), drawer(env.unwrapped)
    bright = getattr(drawn, method)
    if where == "class":
        darker = {method: lambda _, *args, **kwargs: bright(*args, **kwargs) // 2}
        drawn.__class__ = type("Drawn", (type(drawn),), darker)
    else:
        setattr(drawn, method, lambda *args, **kwargs: bright(*args, **kwargs) // 2)
    assert look.key() is None
    assert np.array_equal(look.view().picture.pixels[TILE:-TILE, TILE:-TILE], plain // 2)


@pytest.mark.parametrize("env_id", ["MiniGrid-LavaGapS5-v0", "MiniGrid-MultiRoom-N6-v0"])
def test_a_picture_of_shared_rows_is_numbered_as_that_of_a_frame(env_id):
    env = gym.make(env_id)
    env.reset(seed=0)
    of_rows = viewer(env).view().picture
    frame = env.unwrapped.get_frame(False, TILE)
    env.unwrapped.get_frame = lambda *_: frame
    assert viewer(env).view().picture.digest == of_rows.digest


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((224, 224, 3)), r"LavaGapS7-v0 draws an array of shape \(224, 224, 3\) and dtype float64"),
        (np.zeros((224, 224, 4), np.uint8), r"shape \(224, 224, 4\)"),
        (np.zeros((224, 224), np.uint8), r"shape \(224, 224\)"),
        (np.zeros((224, 230, 3), np.uint8), "LavaGapS7-v0 draws 230x224 pixels .* no whole number of cells"),
    ],
)
def test_a_frame_that_cannot_be_numbered_is_refused(frame, message):
    env = lava_gap()
    env.unwrapped.get_frame = lambda *_: frame
    with pytest.raises(UsageError, match=message):
        viewer(env).view()


def test_the_digest_is_of_the_pixels_not_of_their_encoding():
    pixels = viewer(lava_gap()).view().picture.pixels
    again = np.asarray(Image.open(io.BytesIO(Picture(pixels).png)))
    assert Picture(again).digest == Picture(pixels).digest
    assert Picture(pixels[:, ::-1]).digest != Picture(pixels).digest
    assert Picture(pixels.reshape(pixels.shape[0] // 2, -1, 3)).digest != Picture(pixels).digest


def test_a_packed_picture_is_the_same_picture_without_its_pixels_in_memory():
    pixels = viewer(lava_gap()).view().picture.pixels.copy()
    picture, before, kept = Picture(pixels), pixels.copy(), weakref.ref(pixels)
    del pixels
    picture.pack()
    assert kept() is None
    assert np.array_equal(picture.pixels, before)
    assert picture.digest == Picture(before).digest
    assert picture.png == Picture(before).png


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_process_forked_while_a_thread_packs_pictures_can_pack_its_own():
    pixels, done = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8), threading.Event()

    def pack():
        while not done.is_set():
            Picture(pixels).pack()

    thread = threading.Thread(target=pack)
    thread.start()
    try:
        for _ in range(5):
            child = multiprocessing.get_context("fork").Process(target=Picture(pixels).pack)
            child.start()
            child.join(timeout=10)
            exitcode = child.exitcode
            child.kill()
            assert exitcode == 0
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("size", [(1, 1), (31, 70), (32, 32), (33, 5), (64, 40), (100, 300), (210, 160)])
def test_a_picture_of_any_size_is_a_png_that_others_can_read(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    image = Image.open(io.BytesIO(Picture(pixels).png))
    assert image.mode == "RGB"
    image.verify()  # checksums
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(Picture(pixels).png))), pixels)
    data = Picture(pixels).png.split(b"IDAT", 1)[1]
    assert len(zlib.decompress(data)) == size[0] * (1 + 3 * size[1])  # Pillow does not look at zlib's checksum


def test_any_discrete_env_with_a_picture_can_be_seen():
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=0)
    view = viewer(env).view()
    assert view.picture.pixels.shape == (400, 600, 3)
    assert (view.mission, view.env_info.family, view.env_info.actions) == ("", "default", ("action_0", "action_1"))


def test_a_view_stays_what_it_was_if_the_env_draws_the_next_frame_into_the_same_array():
    class Reusing(gym.Env):
        action_space = gym.spaces.Discrete(2)
        render_mode = "rgb_array"
        frame = np.zeros((40, 40, 3), np.uint8)

        def render(self):
            self.frame += 1
            return self.frame

    look = viewer(Reusing())
    first, second = look.view().picture, look.view().picture
    assert first.digest != second.digest
    assert first.pixels.max() == 1


def test_an_env_without_a_picture_is_refused_with_the_way_out():
    with pytest.raises(UsageError, match=r"CartPole-v1 gives no picture.*render_mode='rgb_array'"):
        viewer(gym.make("CartPole-v1"))


def test_an_action_space_that_is_not_discrete_is_refused():
    with pytest.raises(UsageError, match=r"Pendulum-v1 has the action space Box.*Discrete"):
        viewer(gym.make("Pendulum-v1", render_mode="rgb_array"))


class ForwardFirst(gym.ActionWrapper):
    def action(self, action):
        return [2, 0, 1, 3, 4, 5, 6][action]


class Three(gym.Wrapper):
    def __init__(self, env):
        super().__init__(env)
        self.action_space = gym.spaces.Discrete(3)


def forward_first():
    return ForwardFirst(gym.make("MiniGrid-LavaGapS7-v0"))


def transformed():
    env = gym.make("MiniGrid-LavaGapS7-v0")
    return gym.wrappers.TransformAction(env, lambda action: 6 - action, env.action_space)


def three():
    return Three(gym.make("MiniGrid-LavaGapS7-v0"))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (forward_first, "the action wrapper ForwardFirst"),
        (transformed, "the action wrapper TransformAction"),
        (three, r"a wrapper that changes its actions to Discrete\(3\)"),
    ],
)
@pytest.mark.parametrize("wrap", [None, SyncVectorEnv, AsyncVectorEnv])
def test_what_changes_the_actions_is_refused_and_named(wrap, make, named):
    """An action wrapper that keeps the action space turns good advice into bad labels, without a word."""
    refusal = f"MiniGrid-LavaGapS7-v0 is inside {named}.*inside that one"
    if wrap is None:
        with pytest.raises(UsageError, match=refusal):
            viewer(make())
        return
    # The other sub-environment comes first: every one is looked at.
    makers = [three] * 2 if make is three else [lambda: gym.make("MiniGrid-LavaGapS7-v0"), make]
    envs = wrap(makers, **({"shared_memory": False} if wrap is AsyncVectorEnv else {}))
    with pytest.raises(UsageError, match=refusal):
        vector_viewer(envs)
    envs.close()


def test_an_action_wrapper_around_the_whole_vector_env_is_refused_and_named():
    class Reversed(gym.vector.VectorActionWrapper):
        def actions(self, actions):
            return 6 - actions

    with pytest.raises(UsageError, match="inside the action wrapper Reversed"):
        vector_viewer(Reversed(SyncVectorEnv([lambda: gym.make("MiniGrid-LavaGapS7-v0")])))


def test_a_render_that_is_no_picture_is_refused():
    class Odd(gym.Env):
        metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
        render_mode = "rgb_array"
        action_space, observation_space = gym.spaces.Discrete(2), gym.spaces.Discrete(1)

        def render(self):
            return np.zeros((7, 7, 3), np.uint8)

    with pytest.raises(UsageError, match=r"Odd draws an array of shape \(7, 7, 3\)"):
        viewer(Odd()).view()


def test_actions_are_named_by_the_env():
    class Named(gym.Env):
        action_space = gym.spaces.Discrete(2)

        def get_action_meanings(self):
            return ["NOOP", "Fire Left"]

    assert action_names(Named()) == ("noop", "fire_left")
    assert action_names(gym.make("MiniGrid-Dynamic-Obstacles-6x6-v0")) == ("left", "right", "forward")


def test_actions_are_named_by_the_action_type_of_highway_env():
    """highway-env has neither an enumeration nor meanings: its actions came out as numbers."""

    class Highway(gym.Env):
        action_space = gym.spaces.Discrete(3)

        class action_type:  # noqa: N801
            actions = {1: "IDLE", 0: "LANE_LEFT", 2: "LANE_RIGHT"}  # noqa: RUF012

    assert action_names(Highway()) == ("lane_left", "idle", "lane_right")
    Highway.action_type.actions = {5: "x"}
    assert action_names(Highway()) == ("action_0", "action_1", "action_2")


def test_actions_are_named_by_their_numbers_not_by_the_order_of_their_definitions():
    class Shuffled(MiniGridEnv):
        class Actions(enum.IntEnum):
            forward, left, right = 2, 0, 1

        def __init__(self):
            super().__init__(mission_space=MissionSpace(lambda: "go"), grid_size=5, max_steps=5)
            self.actions, self.action_space = self.Actions, gym.spaces.Discrete(3)

        def _gen_grid(self, width, height):
            self.grid = Grid(width, height)
            self.agent_pos, self.agent_dir = (1, 1), 0

    assert action_names(Shuffled()) == ("left", "right", "forward")


def test_actions_whose_names_say_nothing_are_numbered():
    class Twice(gym.Env):
        action_space = gym.spaces.Discrete(2)

        def get_action_meanings(self):
            return ["FIRE", "FIRE"]

    assert action_names(Twice()) == ("action_0", "action_1")


@pytest.mark.parametrize(
    ("env_id", "kwargs"), [("MiniGrid-Fetch-5x5-N2-v0", {}), ("CartPole-v1", {"render_mode": "rgb_array"})]
)
def test_worker_processes_show_what_sub_environments_in_this_process_show(env_id, kwargs):
    fns = [lambda: gym.make(env_id, **kwargs)] * 2
    shown = []
    for envs in (SyncVectorEnv(fns), AsyncVectorEnv(fns, shared_memory=False)):
        envs.reset(seed=3)
        look = vector_viewer(envs)
        views = [one.view() for one in look.snapshots([0, 1])]
        shown.append([(view.env_info, view.picture.digest, view.mission, view.carrying) for view in views])
        envs.close()
    assert shown[0] == shown[1]
    assert shown[0][0] != shown[0][1]


TASKS = ("MiniGrid-GoToDoor-5x5-v0", "MiniGrid-Empty-5x5-v0")


@pytest.mark.parametrize(("kind", "options"), [(SyncVectorEnv, {}), (AsyncVectorEnv, {"shared_memory": False})])
def test_each_sub_environment_is_shown_as_its_own_task(kind, options):
    """The workers of an AsyncVectorEnv with different tasks all got the first one's rules."""
    envs = kind([lambda env_id=env_id: ImgObsWrapper(gym.make(env_id)) for env_id in TASKS], **options)
    envs.reset(seed=0)
    look = vector_viewer(envs)
    views = [one.view() for one in look.snapshots([0, 1])]
    envs.close()
    assert [view.env_id for view in views] == [env_info.env_id for env_info in look.env_infos] == list(TASKS)
    assert views[0].mission.startswith("go to the")
    assert views[1].mission == "get to the green goal square"


FRAME = np.zeros((40, 60, 3), np.uint8)


def test_a_view_is_made_of_arrays_and_names():
    view = View(pictures=[FRAME], actions=["left", "right"], observation=np.zeros(3))
    assert np.array_equal(view.picture.pixels, FRAME)
    assert view.actions == ("left", "right")
    assert view == View(pictures=(Picture(FRAME),), actions=("left", "right"))
    assert view.key() == View((FRAME.copy(),), ("left", "right")).key() != View((FRAME + 1,), ("left", "right")).key()
    assert View((FRAME, FRAME + 1), ("go",)).picture == Picture(FRAME + 1)


def test_a_view_keeps_its_picture_when_its_array_is_drawn_over():
    frame = FRAME.copy()
    view = View((frame,), ("go",))
    frame += 1
    assert view.picture == Picture(FRAME)


@pytest.mark.parametrize(
    ("pictures", "actions", "message"),
    [
        ((), ("go",), r"at least one picture: give a tuple, such as \(frame,\)"),
        (FRAME, ("go",), r"at least one picture"),
        ((FRAME[..., 0],), ("go",), r"shape \(40, 60\) and dtype uint8"),
        ((FRAME / 2,), ("go",), "dtype float64"),
        ((FRAME,), "go", r"actions must be a tuple of names.*not 'go'"),
        ((FRAME,), (1, 2), r"actions must be a tuple of names.*not \(1, 2\)"),
        ((FRAME,), (), "different names, at least one"),
        ((FRAME,), ("go", "go"), r"different names, at least one, not \('go', 'go'\)"),
    ],
)
def test_a_view_that_no_teacher_can_be_asked_about_is_refused(pictures, actions, message):
    with pytest.raises(UsageError, match=message):
        View(pictures, actions)
