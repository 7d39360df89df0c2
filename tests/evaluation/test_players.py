"""Whose rollouts give the states: the teacher's own, a saved student's, and policies by their names."""

import json

import gymnasium as gym
import numpy as np
import pytest

from lvlm2p_wrappers import Teacher, UsageError
from lvlm2p_wrappers.cli import main
from lvlm2p_wrappers.evaluation import collect_states
from lvlm2p_wrappers.evaluation.folder import read_folder
from lvlm2p_wrappers.evaluation.players import Players
from tests.cli.test_cli_play import LAVA, student  # noqa: F401 -- the fixture that writes a student's file
from tests.teacher import experts

EMBEDDED = "embedded/minigrid-planner"


def states(env_id, count, players, seed=0):
    return collect_states(gym.make(env_id, render_mode="rgb_array"), count, seed=seed, players=players)


def test_a_teachers_play_gives_states_where_nobody_else_knows_how_to_play():
    """All states of an environment without ground truth were a random policy's, near the start."""
    teacher = Teacher("python:tests.teacher.experts:upright")
    steps = {}
    for name in ("random", "teacher"):
        found = states("CartPole-v1", 60, Players(name, teacher=teacher))
        assert {state.source for state in found} == {name}
        steps[name] = max(abs(float(state.view.observation[2])) for state in found)
    assert steps["teacher"] < steps["random"], "an expert holds the pole upright"


def test_a_teacher_is_asked_with_the_pictures_and_the_observation_of_the_moment():
    experts.CALLS.clear()
    teacher = Teacher("python:tests.teacher.experts:recorded")
    states("CartPole-v1", 6, Players("teacher", teacher=teacher))
    assert all(view.observation.shape == (4,) for view in experts.CALLS)
    assert len({view.observation.tobytes() for view in experts.CALLS}) == len(experts.CALLS)


def test_a_saved_student_plays_its_own_observations_without_torch(student):  # noqa: F811
    """It goes forward, so that there are not many states in which it can be found."""
    found = states(LAVA, 20, Players(f"random,{student(action=2)}"))
    assert {state.source for state in found} == {"random", "saved_student"}
    moved = [state for state in found if state.source == "saved_student"]
    taken = [name for state in moved for name in state.view.history]
    assert taken.count("forward") > 0.9 * len(taken) > 0
    assert all(state.truth is not None for state in found)
    assert all(isinstance(state.view.observation, np.ndarray) for state in moved)


def test_the_same_policies_and_seed_give_the_same_states(student):  # noqa: F811
    def gist():
        players = Players(f"mixed,teacher,{student()}", teacher=Teacher(EMBEDDED))
        return [(s.source, s.seed, s.step, s.view.picture.digest) for s in states(LAVA, 25, players)]

    first = gist()
    assert first == gist()
    assert {source for source, *_ in first} == {"random", "noisy_expert", "expert", "teacher", "saved_student"}


def test_a_student_of_another_environment_is_refused(student):  # noqa: F811
    with pytest.raises(UsageError, match="the saved student plays MiniGrid-LavaGapS5-v0, not MiniGrid-Empty-5x5-v0"):
        states("MiniGrid-Empty-5x5-v0", 4, Players(str(student())))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("student", "'student' is none of mixed, random, noisy_expert, expert, and no folder of a run"),
        ("teacher", "'teacher' is none of"),
        ("runs/missing", "'runs/missing' is none of"),
        (".", "holds no student.onnx: `python algos/evaluate.py .` makes it"),
    ],
)
def test_who_is_not_there_is_told(name, problem):
    with pytest.raises(UsageError, match=problem):
        Players(name)


def test_a_students_module_is_imported_only_with_trust(student):  # noqa: F811
    file = str(student(env_id="antigravity:Maze-v0"))
    with pytest.raises(UsageError, match="add --trust to import it"):
        Players(file)
    assert Players(file, trust=True).sources == ("saved_student",)


def test_evaluate_takes_them_and_resumes_with_them_alone(capsys, student, tmp_path):  # noqa: F811
    command = ["evaluate", LAVA, "--model", EMBEDDED, "--states", "12", "--episodes", "0", "--out", str(tmp_path / "e")]
    chosen = ["--states-from", f"teacher,{student()}"]
    assert main([*command, *chosen]) == main([*command, *chosen]) == 0
    evaluation, labels, _ = read_folder(tmp_path / "e")
    assert evaluation.states_from == chosen[1]
    assert {label.source for label in labels} == {"teacher", "saved_student"}
    assert main(command) == 2
    assert "with states_from 'teacher," in capsys.readouterr().err


def test_where_the_teacher_gives_no_answer_for_now_the_evaluation_is_incomplete(provider, capsys, tmp_path):  # noqa: ARG001
    command = ["evaluate", LAVA, "--model", "openai/gpt-4o-mini", "--states", "4", "--episodes", "0"]
    command += ["--states-from", "teacher", "--out", str(tmp_path / "e"), "--json"]
    assert main([*command, "--budget-calls", "3"]) == 1
    assert "The same command resumes the evaluation" in capsys.readouterr().err
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["complete"]


def test_old_rows_of_the_expert_that_errs_are_named_as_what_they_were(tmp_path):
    """It was called student, and no student had played."""
    command = ["evaluate", LAVA, "--model", EMBEDDED, "--states", "6", "--episodes", "0", "--out", str(tmp_path / "e")]
    assert main(command) == 0
    rows, card = tmp_path / "e/labels.jsonl", tmp_path / "e/evaluation.json"
    rows.write_text(rows.read_text().replace('"noisy_expert"', '"student"'))
    old = json.loads(card.read_text()) | {"format": 2}
    del old["states_from"]
    card.write_text(json.dumps(old))
    evaluation, labels, _ = read_folder(tmp_path / "e")
    assert evaluation.states_from == "mixed"
    assert {label.source for label in labels} == {"random", "noisy_expert", "expert"}
    assert main(command) == 0


class Says(gym.Env):
    """An environment that says itself whether an episode was a success."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 -- Gymnasium's name for it
    action_space, observation_space = gym.spaces.Discrete(2), gym.spaces.Discrete(1)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        return 0, {}

    def step(self, action):
        return 0, 1.0, True, False, {"is_success": bool(action)}

    def render(self):
        return np.zeros((32, 32, 3), np.uint8)


@pytest.mark.parametrize(("expert", "value"), [("rules.teach", 1.0), ("recorded", 0.0)])
def test_a_success_is_what_the_environment_says(expert, value, monkeypatch, tmp_path):
    monkeypatch.setitem(gym.registry, "Says-v0", gym.envs.registration.EnvSpec("Says-v0", Says))
    flags = ["--states", "1", "--episodes", "2", "--out", str(tmp_path / "e")]
    assert main(["evaluate", "Says-v0", "--model", f"python:tests.teacher.experts:{expert}", *flags]) == 0
    assert read_folder(tmp_path / "e")[0].metrics.rollouts["argmax"].success.value == value


def test_where_nobody_says_what_a_success_is_there_is_none(capsys, tmp_path):
    """Every episode of CartPole counted as a success, since its last reward is 1."""
    flags = ["--states", "1", "--episodes", "1", "--out", str(tmp_path / "e")]
    assert main(["evaluate", "CartPole-v1", "--model", "python:tests.teacher.experts:recorded", *flags]) == 0
    found = read_folder(tmp_path / "e")[0].metrics.rollouts["argmax"]
    assert (found.success, found.episodic_return.n) == (None, 1)
    assert main(["report", str(tmp_path / "e"), "--out", str(tmp_path / "page.html")]) == 0
    assert "without success" not in (tmp_path / "page.html").read_text()
    capsys.readouterr()
