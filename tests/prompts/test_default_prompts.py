"""The default set, on environments that it knows and on one that nobody knows, over real HTTP."""

import json
import re
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Discrete

from lvlm2p_wrappers import PromptError, Teacher, TeacherWrapper
from lvlm2p_wrappers.cli import main
from lvlm2p_wrappers.prompts import PromptSet
from lvlm2p_wrappers.views import viewer

MODEL = "gemini/gemini-2.5-flash-lite"


class Lamp(gym.Env):
    """A lamp to be turned up, from dark through dim to bright: an environment that no prompt set has heard of."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012
    observation_space, action_space = Discrete(3), Discrete(2, start=1)
    mission = "turn the lamp up"

    def __init__(self, render_mode=None):
        self.render_mode, self.light = render_mode, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.light = 0
        return self.light, {}

    def step(self, action):
        self.light = max(0, self.light + (1 if action == 2 else -1))
        bright = self.light == 2
        return self.light, float(bright), bright, False, {}

    def render(self):
        return np.full((40, 60, 3), 100 * self.light, np.uint8)


@pytest.fixture(autouse=True)
def lamp():
    gym.register("Lamp-v0", Lamp)
    yield
    del gym.registry["Lamp-v0"]


NAMES = {
    "FrozenLake-v1": ["left", "down", "right", "up"],
    "Taxi-v4": ["south", "north", "east", "west", "pickup", "dropoff"],
    "CliffWalking-v1": ["up", "right", "down", "left"],
    "CartPole-v1": ["push_left", "push_right"],
    "Lamp-v0": ["action_0", "action_1"],
}


def made(env_id):
    return gym.make(env_id, render_mode="rgb_array")


@pytest.mark.parametrize("env_id", list(NAMES))
def test_advice_arrives_for_the_envs_own_picture_and_its_actions_by_name(provider, env_id):
    env = TeacherWrapper(made(env_id), MODEL)
    _, info = env.reset(seed=0)
    picture = viewer(env.env).view().picture.png
    answer = json.loads(provider.answers[-1])["probabilities"]
    assert list(answer) == NAMES[env_id]
    assert np.allclose(info["teacher_probs"], np.array(list(answer.values())) / sum(answer.values()))
    analysis, action = (exchange.seen for exchange in provider.log)
    assert analysis.pictures == action.pictures == (picture,)
    for seen in (analysis, action):
        system = seen.turns[0].text
        assert env_id in system
        assert all(f"- {name}" in system for name in NAMES[env_id])
        assert "MiniGrid" not in system
    assert json.loads(provider.answers[0])["summary"] in action.turns[1].text


@pytest.mark.parametrize("env_id", list(NAMES))
def test_after_a_step_the_advice_is_about_the_new_picture(provider, env_id):
    env = TeacherWrapper(made(env_id), MODEL)
    env.reset(seed=1)
    first, action, moved = provider.log[0].seen.pictures, env.action_space.start, False
    while not moved:  # walls and slippery ice may keep the agent where it is
        _, _, _, _, info = env.step(action)
        picture = (viewer(env.env).view().picture.png,)
        action, moved = action + 1, picture != first
    assert provider.log[-1].seen.pictures[-1:] == picture
    assert info["teacher_probs"].sum() == pytest.approx(1)


def test_well_known_environments_are_told_their_rules_and_unknown_ones_that_they_have_none():
    told = {}
    for env_id in NAMES:
        env = made(env_id)
        env.reset(seed=0)
        view = viewer(env).view()
        told[env_id] = PromptSet(None, view.env_info.family).analysis(view).messages[0].text
    assert "hole" in told["FrozenLake-v1"]
    assert "passenger" in told["Taxi-v4"]
    assert "cliff" in told["CliffWalking-v1"]
    assert "pole" in told["CartPole-v1"]
    assert "Nothing more is known than its name" in told["Lamp-v0"]
    assert not any("Nothing more is known" in told[env_id] for env_id in NAMES if env_id != "Lamp-v0")


def test_a_mission_is_told_where_the_environment_has_one(provider):
    TeacherWrapper(made("Lamp-v0"), MODEL).reset(seed=0)
    TeacherWrapper(made("CartPole-v1"), MODEL).reset(seed=0)
    texts = [exchange.seen.turns[1].text for exchange in provider.log]
    assert ["Mission: turn the lamp up" in text for text in texts] == [True, True, False, False]


def test_a_set_of_ones_own_names_the_actions_and_tells_the_rules(provider, tmp_path):
    (tmp_path / "set.toml").write_text(
        '[rules]\n"Lamp*" = "lamp.jinja"\n'
        '[[names]]\nenv = "Lamp*"\nactions = ["down", "up"]\ndoes = ["turn it down", "turn it up"]\n'
    )
    (tmp_path / "lamp.jinja").write_text("- A grey picture is a dim lamp.\n")
    TeacherWrapper(made("Lamp-v0"), MODEL, prompts=tmp_path).reset(seed=0)
    system = provider.log[1].seen.turns[0].text
    assert "- down: turn it down\n- up: turn it up" in system
    assert "A grey picture is a dim lamp." in system
    assert list(json.loads(provider.answers[1])["probabilities"]) == ["down", "up"]


def test_a_pictured_example_can_be_of_any_environment(provider, tmp_path):
    (tmp_path / "set.toml").write_text("example_pictures = 1")
    (tmp_path / "examples.toml").write_text(
        '[[example]]\nenv = "FrozenLake-v1"\npicture = { env_id = "FrozenLake8x8-v1", actions = ["left"] }\n'
        'reasoning = "Down and right are ice."\nprobabilities = { down = 0.5, right = 0.5 }\n'
        'analysis = { summary = "The agent is at the top left, on ice." }\n'
    )
    teacher = Teacher(MODEL, prompts=tmp_path)
    for env_id, turns in (("FrozenLake-v1", 4), ("CartPole-v1", 2)):
        provider.log.clear()
        env = made(env_id)
        env.reset(seed=0)
        teacher.advise(viewer(env).view())
        assert [len(exchange.seen.turns) for exchange in provider.log] == [turns, turns]
        if turns == 4:
            big = made("FrozenLake8x8-v1")
            big.reset(seed=0)
            big.step(0)
            assert provider.log[0].seen.turns[1].pictures == (viewer(big).view().picture.png,)
            assert json.loads(provider.log[1].seen.turns[2].text)["probabilities"] == {
                "left": 0, "down": 0.5, "right": 0.5, "up": 0
            }  # fmt: skip


def test_a_set_that_names_another_number_of_actions_is_refused_before_anything_is_asked(provider, tmp_path):
    (tmp_path / "set.toml").write_text('[[names]]\nenv = "Lamp*"\nactions = ["down", "stay", "up"]\n')
    with pytest.raises(PromptError, match="has 3 actions, Lamp-v0 has 2"):
        TeacherWrapper(made("Lamp-v0"), MODEL, prompts=tmp_path)
    assert not provider.log


class TestTheWorkedExampleOfTheDocs:
    """The set for an environment of one's own in ``docs/prompts.md``, made file by file as it says there."""

    @pytest.fixture(autouse=True)
    def files(self, tmp_path, monkeypatch):
        page = (Path(__file__).parents[2] / "docs/prompts.md").read_text()
        blocks = re.findall(r"```\w+\n(?:# |\{# )(shuttle\S*)(?: #\})?\n(.*?)```", page, flags=re.DOTALL)
        for name, text in blocks:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        assert [name for name, _ in blocks] == [
            "shuttle.py",
            "shuttle_prompts/set.toml",
            "shuttle_prompts/rules/shuttle.jinja",
            "shuttle_prompts/examples.toml",
        ]
        monkeypatch.syspath_prepend(tmp_path)
        yield
        sys.modules.pop("shuttle", None)
        gym.registry.pop("Shuttle-v0", None)

    def test_without_a_set_the_actions_have_numbers_and_nothing_is_known(self, capsys):
        assert main(["preview", "shuttle:Shuttle-v0"]) == 0
        printed = capsys.readouterr().out
        assert "- action_0" in printed
        assert "Nothing more is known than its name" in printed

    def test_with_it_names_rules_and_the_example_in_words_are_told(self, capsys):
        assert main(["preview", "shuttle:Shuttle-v0", "--prompts", "shuttle_prompts", "--save", "after"]) == 0
        printed = capsys.readouterr().out
        assert "- right: move the train one cell right" in printed
        assert "The red square is the train" in printed
        assert "The train is in cell 9" in printed
        assert "The train is in cell 4" not in printed
        assert Path("after/picture.png").exists()

    def test_the_example_with_a_picture_is_true(self, provider):
        with Path("shuttle_prompts/set.toml").open("r+") as file:
            rest = file.read()
            file.seek(0)
            file.write("example_pictures = 1\n" + rest)
        assert main(["ask", "shuttle:Shuttle-v0", "--prompts", "shuttle_prompts", "--model", MODEL]) == 0
        env = made("shuttle:Shuttle-v0")
        env.reset(seed=0)
        env.step(0)
        analysis, action = (exchange.seen.turns for exchange in provider.log)
        assert analysis[1].pictures == (viewer(env).view().picture.png,)
        train, station = env.unwrapped.train, env.unwrapped.station
        assert f"The train is in cell {train}. The station is in cell {station}, three cells" in analysis[2].text
        assert "three cells to the right" in action[2].text
        assert station - train == 3

    def test_asking_once_gives_a_probability_for_every_action(self, provider, capsys):
        command = ["ask", "shuttle:Shuttle-v0", "--prompts", "shuttle_prompts", "--model", MODEL]
        assert main([*command, "--budget-usd", "0.01", "--json"]) == 0
        assert list(json.loads(capsys.readouterr().out)["probs"]) == ["left", "stay", "right"]
        assert len(provider.log) == 2
