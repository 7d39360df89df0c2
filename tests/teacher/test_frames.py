"""Several pictures: the last ones of the episode, oldest first, since one shows no motion; and asking now and then."""

import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from lvlm2p_wrappers import PromptError, Teacher, TeacherWrapper, UsageError, VectorTeacherWrapper, View
from lvlm2p_wrappers.cli import main
from lvlm2p_wrappers.prompts import PromptSet
from lvlm2p_wrappers.store import Store, calls
from tests.teacher import experts
from tests.teacher.counting import Counting, expected, pictured

MODEL, RECORDED = "openai/gpt-4o-mini", "python:tests.teacher.experts:recorded"
MODES = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP]


@pytest.fixture(autouse=True)
def _no_calls():
    experts.CALLS.clear()


@pytest.fixture
def three(tmp_path):
    """A prompt set that shows three pictures and tells two actions."""
    (tmp_path / "set.toml").write_text("frames = 3\nhistory = 2")
    return str(tmp_path)


def vector(kind, mode, count=3):
    return kind([lambda number=number: Counting(number) for number in range(count)], autoreset_mode=mode)


def test_a_model_sees_the_last_pictures_oldest_first_and_named_in_both_stages(provider, three):
    env = TeacherWrapper(Counting(), MODEL, prompts=three)
    env.reset(seed=0)
    for _ in range(3):
        env.step(0)
    pictures = [len(exchange.seen.pictures) for exchange in provider.log]
    assert pictures == [1, 1, 2, 2, 3, 3, 3, 3]
    first, last = provider.log[0].seen.turns, provider.log[-1].seen.turns
    assert "The picture shows the situation now." in first[-1].text
    assert "Picture 1 of 3: 2 steps earlier." in last[-1].text
    assert "Picture 3 of 3 is the situation now." in last[-1].text
    assert [turn.role for turn in last] == ["system", "user"], "no two messages of one role in a row"
    logged = next(iter(calls(Store()))).call.messages
    assert [int(m.picture.pixels[0, 0, 1]) for m in logged if m.picture is not None] == [1, 2, 3]


def test_one_environment_shows_no_picture_of_the_episode_before(three):
    env = TeacherWrapper(Counting(), RECORDED, prompts=three)
    for _ in range(2):
        obs, _ = env.reset()
        is_over = False
        while not is_over:
            assert pictured(experts.CALLS[-1]) == expected(obs, 3)
            assert len(experts.CALLS[-1].history) == min(int(obs[1]), 2)
            obs, _, is_over, _, _ = env.step(1)
    assert len(experts.CALLS) == 8


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_a_vectors_rows_show_the_pictures_of_their_own_episode(kind, mode, three):
    """Whatever an off-by-one mixes up: a terminal picture, the episode before, another environment."""
    envs = VectorTeacherWrapper(vector(kind, mode), RECORDED, prompts=three)
    envs.reset(seed=1)
    for _ in range(15):
        envs.step([0, 1, 0])
    envs.close()
    assert len(experts.CALLS) >= 3 * 12
    for view in experts.CALLS:
        assert pictured(view) == expected(view.observation, 3)
    assert {int(view.observation[0]) for view in experts.CALLS} >= {1, 2, 3}


@pytest.mark.parametrize("mode", MODES)
def test_deferred_and_asked_by_hand_the_pictures_are_the_same(mode, three):
    envs = VectorTeacherWrapper(vector(SyncVectorEnv, mode), RECORDED, prompts=three, defer=True, ask="manual")
    envs.reset(seed=1)
    for step in range(12):
        envs.ask(np.array([step % 3 == 0, step % 4 == 2, True]))
        envs.step([0, 1, 0])
    envs.gather()
    assert len(experts.CALLS) > 12
    assert all(pictured(view) == expected(view.observation, 3) for view in experts.CALLS)


def test_a_reset_of_some_environments_leaves_the_pictures_of_the_others(three):
    envs = VectorTeacherWrapper(vector(SyncVectorEnv, AutoresetMode.SAME_STEP), RECORDED, prompts=three)
    envs.reset(seed=1)
    envs.step([0, 0, 0])
    envs.reset(options={"reset_mask": np.array([True, False, False])})
    envs.step([0, 0, 0])
    assert all(pictured(view) == expected(view.observation, 3) for view in experts.CALLS)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ask_every", [1, 2, 3])
def test_the_vector_wrapper_asks_as_a_vector_of_wrappers_does(mode, ask_every, three):
    options = {"prompts": three, "ask_every": ask_every}
    around = VectorTeacherWrapper(vector(SyncVectorEnv, mode, 2), RECORDED, **options)
    makers = [lambda n=n: TeacherWrapper(Counting(n), RECORDED, always_in_info=True, **options) for n in range(2)]
    inside = SyncVectorEnv(makers, autoreset_mode=mode)
    masks = []
    for envs in (around, inside):
        infos = [envs.reset(seed=1)[1], *(envs.step([0, 1])[4] for _ in range(14))]
        masks.append(np.array([info["_teacher_probs"] for info in infos]))
        masks[-1] &= np.array([info["teacher_probs"].any(-1) for info in infos])
    assert np.array_equal(*masks)


def test_every_so_many_observations_of_an_episode_are_asked_about(three):
    env = TeacherWrapper(Counting(length=9), RECORDED, prompts=three, ask_every=4)
    asked = ["teacher_probs" in env.reset()[1], *("teacher_probs" in env.step(0)[4] for _ in range(9))]
    assert asked == [True, False, False, False, True, False, False, False, True, False]
    assert all(pictured(view) == expected(view.observation, 3) for view in experts.CALLS)


@pytest.mark.parametrize("ask_every", [0, -3])
def test_how_often_to_ask_has_to_be_possible(ask_every):
    with pytest.raises(UsageError, match=f"ask_every must be at least 1, not {ask_every}"):
        TeacherWrapper(Counting(), RECORDED, ask_every=ask_every)
    with pytest.raises(UsageError, match="ask_every goes with ask='all'"):
        mode = AutoresetMode.SAME_STEP
        VectorTeacherWrapper(vector(SyncVectorEnv, mode), RECORDED, ask="manual", defer=True, ask_every=2)


def test_earlier_pictures_are_part_of_the_question(provider, three):
    def frame(value):
        return np.full((32, 32, 3), value, np.uint8)

    teacher = Teacher(MODEL, prompts=three)
    asked = [(frame(1), frame(2)), (frame(0), frame(2)), (frame(2),), (frame(1), frame(2))]
    teacher.label([View(pictures, ("left", "right")) for pictures in asked])
    assert len(provider.log) == 6


def test_more_pictures_and_actions_than_the_prompt_set_wants_are_left_out(provider, three):
    frames = [np.full((32, 32, 3), value, np.uint8) for value in range(5)]
    view = View(frames, ("left", "right"), history=("left", "left", "right"))
    for prompts, pictures, told in ((three, 3, "left, right"), (None, 1, "")):
        Teacher(MODEL, prompts=prompts, store=None).advise(view)
        seen = provider.log[-1].seen
        assert len(seen.pictures) == pictures
        assert ("Last actions, oldest first: " + told in seen.turns[-1].text) == bool(told)


def test_the_embedded_teacher_reads_the_last_picture(three):
    env = gym.make("MiniGrid-LavaGapS7-v0")
    several = TeacherWrapper(env, "embedded/minigrid-planner", prompts=three)
    one = TeacherWrapper(gym.make("MiniGrid-LavaGapS7-v0"), "embedded/minigrid-planner")
    assert np.array_equal(several.reset(seed=3)[1]["teacher_probs"], one.reset(seed=3)[1]["teacher_probs"])
    for action in (1, 2, 0):
        rows = [env.step(action)[4]["teacher_probs"] for env in (several, one)]
        assert np.array_equal(*rows)


def test_pictured_examples_show_as_many(tmp_path):
    (tmp_path / "set.toml").write_text("frames = 2\nexample_pictures = 1")
    (tmp_path / "examples.toml").write_text("""
[[example]]
env = "CartPole*"
picture = { env_id = "CartPole-v1", seed = 1, actions = ["push_left", "push_left"] }
analysis = { summary = "It falls to the right." }
reasoning = "After it."
probabilities = { push_right = 1.0 }
""")
    prompts = PromptSet(tmp_path, "default")
    pixels = np.zeros((64, 64, 3), np.uint8)
    view = View((pixels, pixels + np.uint8(1)), ("action_0", "action_1"), env_id="CartPole-v1")
    roles = [(m.role, m.picture is not None) for m in prompts.analysis(view).messages]
    user = [("user", True)] * 2
    assert roles == [("system", False), *user, ("assistant", False), *user]
    first, second = [m.picture.pixels for m in prompts.analysis(view).messages[1:3]]
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("toml", "counts"),
    [
        ("frames = 4", {"CartPole-v1": 4, "Taxi-v3": 4}),
        ('[frames]\n"Taxi*" = 2', {"CartPole-v1": 3, "Taxi-v3": 2, "FrozenLake-v1": 1}),
        ('[frames]\n"CartPole*" = 1', {"CartPole-v1": 1, "Acrobot-v1": 2}),
        ("", {"CartPole-v1": 3, "ALE/Freeway-v5": 2, "MountainCar-v0": 3, "Acrobot-v1": 2, "Taxi-v3": 1}),
    ],
)
def test_how_many_is_said_by_environment(tmp_path, toml, counts):
    (tmp_path / "set.toml").write_text(toml)
    options = PromptSet(tmp_path, "default").options
    assert {env_id: options.frames_of(env_id) for env_id in counts} == counts


@pytest.mark.parametrize("frames", ["0", "17", '"two"', "[2]", '{ "CartPole*" = 0 }'])
def test_how_many_has_to_be_possible(tmp_path, frames):
    (tmp_path / "set.toml").write_text(f"frames = {frames}")
    with pytest.raises(PromptError, match=r"set.toml: frames\."):
        PromptSet(tmp_path, "default")


def test_estimate_and_preview_know_both(capsys, tmp_path, three):
    def estimate(*flags):
        command = ["estimate", "MiniGrid-Empty-5x5-v0", "--model", MODEL, "--total-timesteps", "400", "--json", *flags]
        assert main(command) == 0
        return json.loads(capsys.readouterr().out)["distinct_views"]

    one, several, seldom = estimate(), estimate("--prompts", three), estimate("--ask-every", "8")
    assert 25 < one["low"] <= 32
    assert several["low"] > 100
    assert seldom["low"] < one["low"]
    saved = tmp_path / "saved"
    assert main(["preview", "CartPole-v1", "--steps", "4", "--json", "--save", str(saved)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["pictures"] == 3
    assert [message["picture"] for message in shown["stages"][0]["messages"]] == [False, True, True, True]
    assert len({file.read_bytes() for file in saved.glob("*.png")}) == 3


def test_evaluation_and_report_show_them(provider, capsys, tmp_path):  # noqa: ARG001
    folder, page = tmp_path / "e", tmp_path / "page.html"
    flags = ["--model", MODEL, "--states", "3", "--episodes", "0", "--out", str(folder)]
    assert main(["evaluate", "CartPole-v1", *flags]) == 0
    labels = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    assert max(len(label["earlier"]) for label in labels) == 2
    digests = {digest for label in labels for digest in (*label["earlier"], label["picture"])}
    assert {file.stem for file in (folder / "pictures").iterdir()} == digests
    for source in ([str(folder)], ["--store", str(tmp_path / "store.sqlite")]):
        assert main(["report", *source, "--out", str(page), "--force"]) == 0
        assert page.read_text().count('aria-label="What the teacher was shown 1 before"') == sum(
            bool(label["earlier"]) for label in labels
        )
    capsys.readouterr()
