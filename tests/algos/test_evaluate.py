"""A saved student alone: how it plays, what is exported of it, and what is said about its size and speed."""

import json
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.algos.scripts import called, evaluate, ppo, train


@pytest.fixture
def run_dir(script):
    return train(script, lam=0)[1]


def without_onnx(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)


def found_in(run_dir, **flags):
    evaluate.main(evaluate.Args(run_dir, **{"episodes": 3} | flags))
    return json.loads((run_dir / "student.json").read_text())


def test_the_students_of_all_scripts_are_played_and_measured(run_dir, monkeypatch, capsys):
    without_onnx(monkeypatch)
    found = found_in(run_dir)
    assert (found["env_id"], found["run_seed"], found["episodes"]) == ("MiniGrid-Empty-5x5-v0", 1, 3)
    for way in ("greedy", "sampled"):
        for name in ("success", "return"):
            rate = found[way][name]
            assert 0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1
            assert rate["n"] == 3
        assert 0 < found[way]["length"] <= 100
    weights = torch.load(run_dir / "student.pt", weights_only=True)["student"]
    assert found["parameters"] == sum(weight.numel() for weight in weights.values())
    assert found["bytes"]["student.pt"] == (run_dir / "student.pt").stat().st_size
    assert found["us_per_action"]["torch"] > 0
    assert found["teacher"] is None
    said = capsys.readouterr().out
    assert f"{found['parameters']:,} parameters" in said
    assert "no student.onnx: the package onnxscript is missing; pip install onnxscript" in said
    assert found["bytes"]["student.onnx"] is found["us_per_action"]["onnxruntime"] is None


def with_fixed_logits(run_dir, logits):
    """Make a run's student one that ignores what it sees."""
    saved = torch.load(run_dir / "student.pt", weights_only=True)
    saved["student"]["actor.weight"].zero_()
    saved["student"]["actor.bias"] = torch.tensor(logits)
    torch.save(saved, run_dir / "student.pt")


def test_a_greedy_student_takes_its_most_probable_action_and_a_sampled_one_all_in_turn(turn_to_the_ball, monkeypatch):
    without_onnx(monkeypatch)
    _, run_dir = train(ppo, env_id=turn_to_the_ball, lam=0)
    # Left is right in half of the episodes. Sampled, left and right are right in 0.4 / 2 + 0.5 / 2 of them.
    with_fixed_logits(run_dir, np.log([0.5, 0.4, *[0.02] * 5]).astype(np.float32).tolist())
    found = found_in(run_dir, episodes=150)
    env = gym.make(turn_to_the_ball).unwrapped
    lefts = [env.reset(seed=seed) and env.side < 0 for seed in range(found["seed"], found["seed"] + 150)]
    assert found["greedy"]["success"]["value"] == found["greedy"]["return"]["value"] == np.mean(lefts)
    assert found["greedy"]["length"] == 1
    assert found["sampled"]["success"]["value"] == pytest.approx(0.45, abs=0.15)
    assert found == found_in(run_dir, episodes=150) | {"us_per_action": found["us_per_action"]}


@pytest.mark.parametrize(
    ("hits", "n", "interval"), [(0, 20, (0, 0.1611)), (20, 20, (0.8389, 1)), (5, 10, (0.2366, 0.7634))]
)
def test_the_interval_of_a_success_is_wilsons(hits, n, interval):
    rate = evaluate.share([True] * hits + [False] * (n - hits))
    assert (rate["value"], rate["n"]) == (hits / n, n)
    assert (rate["low"], rate["high"]) == pytest.approx(interval, abs=1e-4)


def test_the_interval_of_a_return_is_the_bootstraps():
    values = np.random.default_rng(1).normal(3, 2, size=400)
    rate = evaluate.mean(values)
    assert rate["value"] == pytest.approx(values.mean())
    error = 1.96 * values.std() / 400**0.5  # for so many values the two come to the same
    assert (rate["low"], rate["high"]) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.02)


@pytest.mark.slow
def test_the_onnx_file_computes_the_students_logits_for_any_number_of_observations():
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    _, run_dir = train(ppo, lam=0)
    found = found_in(run_dir)
    file = run_dir / "student.onnx"
    assert found["bytes"]["student.onnx"] == file.stat().st_size
    assert found["us_per_action"]["onnxruntime"] > 0
    onnx.checker.check_model(onnx.load(file), full_check=True)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (given,), (logits,) = session.get_inputs(), session.get_outputs()
    length = 7 * 7 + 43  # the cells of the window, and what the agent carries and is to do
    assert (given.name, given.type, given.shape[1:]) == ("obs", "tensor(uint8)", [length])
    assert (logits.name, logits.type, logits.shape[1:]) == ("logits", "tensor(float)", [7])
    _, _, agent = evaluate.load_student(run_dir, trust=False)
    for batch in (1, 2, 5):
        obs = np.random.default_rng(batch).integers(0, 2, (batch, length), dtype=np.uint8)
        with torch.no_grad():
            *_, logprobs = agent.get_action_and_value(torch.as_tensor(obs))
        (computed,) = session.run(None, {"obs": obs})
        np.testing.assert_allclose(torch.as_tensor(computed).log_softmax(-1), logprobs, atol=1e-5)


def test_an_onnx_file_of_other_weights_does_not_stay(monkeypatch):
    without_onnx(monkeypatch)
    _, run_dir = train(ppo, lam=0)
    (run_dir / "student.onnx").write_bytes(b"of an earlier student")
    found_in(run_dir)
    assert not (run_dir / "student.onnx").exists()


@pytest.mark.slow
def test_the_teachers_seconds_for_a_label_are_read_from_the_calls_in_its_store(monkeypatch, capsys):
    without_onnx(monkeypatch)
    summary, run_dir = train(ppo, store="answers.sqlite")
    teacher = found_in(run_dir)["teacher"]
    assert (teacher["model"], teacher["calls"]) == ("embedded/minigrid-planner", summary["teacher"]["calls"])
    assert teacher["s_per_label"] > 0
    assert f"mean of {teacher['calls']} calls in the store): embedded/minigrid-planner" in capsys.readouterr().out
    Path("answers.sqlite").rename("elsewhere.sqlite")
    assert found_in(run_dir)["teacher"] is None


def test_where_there_is_no_student_the_way_to_one_is_told(monkeypatch, capsys):
    run_dir = Path("runs/killed")
    run_dir.mkdir(parents=True)
    assert called(evaluate, monkeypatch, capsys, run_dir) == (
        2,
        "runs/killed: no student.pt in it; "
        "give the folder of a run in runs/, which has one as soon as the run has ended",
    )
    (run_dir / "checkpoint.pt").touch()
    code, message = called(evaluate, monkeypatch, capsys, run_dir)
    assert code == 2
    assert "its script can go on with it: --resume runs/killed" in message


@pytest.mark.parametrize("content", [b"", b"no student", b"PK\x03\x04"])
def test_a_file_that_is_no_student_is_named(monkeypatch, capsys, content):
    Path("student.pt").write_bytes(content)
    code, message = called(evaluate, monkeypatch, capsys, ".")
    assert code == 2
    assert "student.pt holds no student of these scripts" in message


@pytest.mark.parametrize("flags", [{"store": 5}, {"model": ["a"]}, {"lam": "x"}, {"seed": None}, {"exp_name": {}}])
def test_a_student_whose_flags_are_of_another_kind_is_named(monkeypatch, capsys, flags):
    """Such a file ended in a traceback after the student had played."""
    torch.save({"args": vars(ppo.Args()) | flags, "student": {}}, "student.pt")
    code, message = called(evaluate, monkeypatch, capsys, ".")
    assert (code, "student.pt holds no student of these scripts: " in message) == (2, True)


def test_a_file_of_something_else_is_named(monkeypatch, capsys):
    torch.save({"args": vars(ppo.Args()), "student": {"weight": torch.zeros(1)}}, "student.pt")
    code, message = called(evaluate, monkeypatch, capsys, ".")
    assert code == 2
    assert "student.pt holds no student of these scripts: Error(s) in loading state_dict for Agent" in message


class RunsCode:
    def __reduce__(self):
        return Path.touch, (Path("code_ran"),)


def test_a_students_file_runs_no_code_and_no_module_is_imported_because_it_says_so(monkeypatch, capsys):
    """Evaluating a run folder from somebody else ran code: pickled in its file, or in the module that it names."""
    torch.save({"args": RunsCode(), "student": {}}, "student.pt")
    code, message = called(evaluate, monkeypatch, capsys, ".")
    assert code == 2
    assert "student.pt holds no student of these scripts" in message
    Path("their_module.py").write_text("from pathlib import Path\nPath('code_ran').touch()\n")
    monkeypatch.syspath_prepend(".")
    flags = vars(ppo.Args(env_id="their_module:MiniGrid-Empty-5x5-v0"))
    torch.save({"args": flags, "student": {}}, "student.pt")
    code, message = called(evaluate, monkeypatch, capsys, ".")
    assert (code, "add --trust to import it" in message) == (2, True)
    assert not Path("code_ran").exists()
    called(evaluate, monkeypatch, capsys, ".", "--trust")
    assert Path("code_ran").exists()


def test_nothing_is_written_through_a_link_in_the_folder(run_dir, monkeypatch):
    without_onnx(monkeypatch)
    Path("mine.txt").write_text("mine")
    for name in ("student.json", "student.onnx"):
        (run_dir / name).symlink_to(Path("mine.txt").resolve())
    found_in(run_dir)
    assert Path("mine.txt").read_text() == "mine"


def test_a_student_of_an_env_that_is_not_there_names_the_env(monkeypatch, capsys):
    torch.save({"args": vars(ppo.Args(env_id="MiniGrid-LavaGapS99-v0")), "student": {}}, "student.pt")
    code, message = called(evaluate, monkeypatch, capsys, ".")
    assert code == 2
    assert "MiniGrid-LavaGapS99" in message


@pytest.mark.parametrize(("flag", "value", "least"), [("--episodes", 1, 2), ("--seed", -1, 0)])
def test_flags_that_cannot_be_are_refused(monkeypatch, capsys, flag, value, least):
    code, message = called(evaluate, monkeypatch, capsys, ".", flag, value)
    assert code == 2
    assert f"{flag} {value}: give {least} or more" in message
