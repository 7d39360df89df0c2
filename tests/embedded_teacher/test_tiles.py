"""What the planner sees is what MiniGrid drew."""

import base64
import io
import warnings

import gymnasium as gym
import minigrid  # noqa: F401  (registers the environments)
import numpy as np
import pytest
from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT
from minigrid.core.grid import Grid
from minigrid.core.world_object import Door, Floor, Goal, Lava
from PIL import Image

from lvlm2p_wrappers.embedded_teacher.tiles import UnreadableError, read_picture
from tests.embedded_teacher.drawing import answer, data_url, messages, picture_of, read_options, read_request

FEW = [
    "MiniGrid-LavaGapS7-v0",
    "MiniGrid-Dynamic-Obstacles-8x8-v0",
    "MiniGrid-GoToDoor-8x8-v0",
    "MiniGrid-KeyCorridorS3R3-v0",
    "MiniGrid-ObstructedMaze-2Dlhb-v0",
    "MiniGrid-MultiRoom-N2-S4-v0",
    "BabyAI-GoToRedBallGrey-v0",
    "BabyAI-GoToLocalS8N7-v0",
]


def encoded(scene):
    """A scene in MiniGrid's own encoding: (width, height, 3), kinds, colors and door states."""
    world = scene.world
    array = np.zeros((world.width, world.height, 3), np.uint8)
    kinds = {name: number for number, name in IDX_TO_OBJECT.items()}
    colors = {name: number for number, name in IDX_TO_COLOR.items()}
    own_colors = {"wall": "grey", "lava": "red"}
    for row in range(world.height):
        for column in range(world.width):
            thing = world.cells[world.index(row, column)]
            if thing is None:
                array[column, row] = kinds["empty"], 0, 0
            else:
                color = colors[thing.color or own_colors[thing.kind]]
                state = ("open", "closed", "locked").index(thing.state) if thing.state else 0
                array[column, row] = kinds[thing.kind], color, state
    return array


def assert_seen_right(env):
    scene, real = read_picture(picture_of(env)), env.unwrapped
    np.testing.assert_array_equal(encoded(scene), real.grid.encode())
    row, column = scene.world.row_column(scene.agent)
    assert (column, row, scene.heading) == (*map(int, real.agent_pos), int(real.agent_dir))


def look_around(env_id, seeds, steps):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = gym.make(env_id, disable_env_checker=True)
    rng = np.random.default_rng(0)
    for seed in range(seeds):
        env.reset(seed=seed)
        for _ in range(steps):
            assert_seen_right(env)
            _, _, ended, cut, _ = env.step(int(rng.integers(env.action_space.n)))
            if ended or cut:
                break


@pytest.mark.parametrize("env_id", FEW)
def test_every_cell_and_the_agent_are_recognised(env_id):
    look_around(env_id, seeds=3, steps=15)


def registered():
    return [name for name in gym.registry if name.startswith(("MiniGrid-", "BabyAI-")) and "WFC" not in name]


@pytest.mark.slow
@pytest.mark.parametrize("env_id", registered())
def test_every_registered_environment_is_read_without_a_single_wrong_cell(env_id):
    look_around(env_id, seeds=4, steps=25)


@pytest.mark.parametrize("heading", range(4))
@pytest.mark.parametrize(
    "below",
    [Goal(), Lava(), *(make(color) for make in (Floor, lambda c: Door(c, is_open=True)) for color in ("red", "grey"))],
    ids=lambda thing: f"{thing.color} {thing.type}",
)
def test_what_the_agent_stands_on_is_seen_through_it(below, heading):
    grid = Grid(3, 3)
    grid.wall_rect(0, 0, 3, 3)
    grid.set(1, 1, below)
    scene = read_picture(data_url(grid.render(32, (1, 1), heading)))
    assert scene.world.cells[scene.agent].kind == below.type
    assert scene.heading == heading
    np.testing.assert_array_equal(encoded(scene), grid.encode())


def test_a_picture_without_a_margin_is_read_as_well():
    env = gym.make("MiniGrid-Empty-5x5-v0")
    env.reset(seed=0)
    frame = env.unwrapped.get_frame(highlight=False, tile_size=32)
    assert read_picture(data_url(frame, margin=0)) == read_picture(data_url(frame))


def test_a_picture_of_something_else_is_answered_in_prose_that_will_not_validate():
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    request = read_request(messages(data_url(noise)), None)
    reply = answer(request, read_options("minigrid-planner"))
    assert reply.startswith("I cannot read this picture: the tile at row 0, column 0")
    assert "{" not in reply


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("https://example.org/picture.png", "not sent as a base64 data URL"),
        ("data:image/png;base64,!!!", "no picture"),
        ("data:image/png;base64,aGVsbG8=", "no picture"),
        (data_url(np.zeros((50, 64, 3), np.uint8), margin=0), "no whole number of 32-pixel tiles"),
        (data_url(np.full((96, 96, 3), 100, np.uint8), margin=0), "no agents"),
    ],
)
def test_what_cannot_be_read_is_said(url, complaint):
    with pytest.raises(UnreadableError, match=complaint):
        read_picture(url)


def test_a_small_file_that_holds_a_huge_picture_is_not_decoded():
    """A PNG of a few kilobytes may hold gigabytes of pixels: above 50 megapixels it is refused, not decoded."""
    buffer = io.BytesIO()
    Image.new("1", (8000, 6272)).save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    assert len(url) < 100_000
    with pytest.raises(UnreadableError, match="8000 x 6272 pixels are more than 50,000,000"):
        read_picture(url)
