"""A training run's folder, log and end, without anything that learns."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lvlm2p_wrappers import TeacherError, TrainingRun, UsageError, command_line
from lvlm2p_wrappers.teacher.counters import Counters

FLAGS = {"env_id": "CartPole-v1", "seed": 3, "lam": 0.0, "total_timesteps": 100}
NOTHING = np.zeros(2)


def ended(returns):
    """The infos of a step at which every environment ended an episode with such a return."""
    episode = {"r": np.array(returns), "l": np.full(len(returns), 7)}
    return {"_final_info": np.ones(len(returns), bool), "final_info": {"episode": episode}}


def rows_of(run):
    with (run.folder / "curve.csv").open() as file:
        return list(csv.DictReader(file))


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own():
    """Two scripts begun in the same second wrote into one folder."""
    runs = [TrainingRun("name") for _ in range(3)]
    assert len({run.folder for run in runs}) == 3
    assert all(run.folder.parent == Path("runs") and run.folder.name.startswith("name__") for run in runs)


def test_a_run_leaves_its_curve_and_its_summary():
    with TrainingRun("name") as run:
        run.begin("algo", FLAGS)
        for step in range(50):
            run.step(np.array([1.0, 0.0]), ended([step, -step]))
        run.log({"teacher/kl": 0.5}, lam=0.0)
    (row,) = rows_of(run)
    assert (row["global_step"], row["episodes"], row["kl"]) == ("100", "100", "0.5")
    assert float(row["mean_return_100"]) == 0
    assert row["success_100"] == ""  # nothing says what a success is
    assert json.loads((run.folder / "summary.json").read_text()) == run.summary
    assert list(run.summary)[:5] == ["env_id", "algo", "seed", "lam", "global_step"]
    assert run.summary["teacher"] is None


def test_an_episode_is_a_success_if_its_info_says_so_else_from_a_return_that_the_user_names():
    """An episode whose last reward was above 0 counted as a success in every environment, CartPole's falls too."""
    says = {"is_success": np.array([True, False]), "_is_success": np.array([True, False])}
    infos = ended([0.1, 0.3])
    infos["final_info"] |= says  # the first environment alone says it
    for flags, expected in (
        ({}, ["1", ""]),
        ({"success_return": 0.3}, ["1", "1"]),
        ({"success_return": 0.4}, ["1", "0"]),
    ):
        with TrainingRun("name") as run:
            run.begin("algo", FLAGS | flags)
            run.step(NOTHING, infos)
            run.log({}, lam=0.0)
        lines = (run.folder / "episodes.csv").read_text().splitlines()[1:]
        assert [line.split(",")[3] for line in lines] == expected
    with TrainingRun("name") as run:
        run.begin("algo", FLAGS | {"success_return": 25.0})
        for step in range(100):
            run.step(NOTHING, ended([step]))
    assert run.summary["success_100"] == 0.75


def test_the_folder_of_an_env_with_a_slash_in_its_id_is_no_folder_in_a_folder():
    assert TrainingRun("ALE/Freeway-v5__ppo").folder.parent == Path("runs")


def test_whatever_ends_a_run_leaves_its_curve_and_its_summary():
    with pytest.raises(ZeroDivisionError), TrainingRun("name") as run:
        run.begin("algo", FLAGS)
        run.step(NOTHING, {})
        run.log({}, lam=0.0)
        _ = 1 / 0
    assert rows_of(run)
    assert run.summary["global_step"] == 2


def test_a_run_that_failed_before_it_began_leaves_no_folder():
    with pytest.raises(ZeroDivisionError), TrainingRun("name") as run:
        _ = 1 / 0
    assert not run.folder.exists()


# Continuing


def test_a_continued_run_has_one_curve_and_one_count():
    with TrainingRun("name") as first:
        first.begin("algo", FLAGS)
        states = []
        for _ in range(3):
            first.step(NOTHING, ended([1.0, 2.0]))
            first.log({}, lam=0.0)
            states.append(first.state())
    with TrainingRun(resume=first.folder) as run:
        run.begin("algo", FLAGS, state=json.loads(json.dumps(states[1])))  # plain values alone
        run.step(NOTHING, ended([1.0, 2.0]))
        run.log({}, lam=0.0)
    assert [row["global_step"] for row in rows_of(run)] == ["2", "4", "6"]
    assert run.summary["episodes"] == 6


class Paid:
    """What stands in for a teacher: it has made some calls."""

    model, store_path = "openai/gpt-4o-mini", "none"
    counters = Counters()


def test_a_continued_run_has_spent_what_its_killed_process_had_spent_after_its_checkpoint():
    """A resumed run had its whole budget anew."""
    with TrainingRun("name") as run:
        run.begin("algo", FLAGS, teacher=Paid())
        state = run.state()
        Paid.counters = Counters(calls=9, cost_usd=0.5, charged_usd=0.5)
        run.step(NOTHING, {})
        run.log({}, lam=1.0)
        at_checkpoint = state["counts"]
        assert (at_checkpoint["calls"], at_checkpoint["charged_usd"]) == (0, 0)
    for _ in range(2):  # killed again before it could write another checkpoint
        with TrainingRun(resume=run.folder) as again:
            assert again.spent(state) == {"spent_usd": 0.5, "spent_calls": 9}
            again.begin("algo", FLAGS, teacher=Paid(), state=state)
            state = again.state()
    assert again.summary["teacher"]["calls"] == 9


def test_a_call_of_unknown_outcome_is_spent_too():
    with TrainingRun("name") as run:
        run.begin("algo", FLAGS, teacher=Paid())
        Paid.counters = Counters(calls=Paid.counters.calls + 1, charged_usd=Paid.counters.charged_usd + 0.25)
        state = run.state()
    with TrainingRun(resume=run.folder) as again:
        assert again.spent(state) == {"spent_usd": 0.25, "spent_calls": 1}


def test_a_folder_to_continue_in_must_be_there():
    with pytest.raises(UsageError, match="no/such/run: no such folder"):
        TrainingRun(resume="no/such/run")


def test_a_second_process_at_a_runs_folder_is_told_of_the_first():
    """Two processes that resumed one run mixed their curves."""
    with TrainingRun("name") as run:
        run.begin("algo", FLAGS)
        with (
            pytest.raises(UsageError, match=f"process {os.getpid()} is training there"),
            TrainingRun(resume=run.folder),
        ):
            pass
    with TrainingRun(resume=run.folder):
        pass


def test_the_lock_of_a_process_that_died_holds_nobody_up():
    code = "import os, signal; from lvlm2p_wrappers import TrainingRun; run = TrainingRun('name').__enter__(); "
    code += "run.begin('algo', dict(env_id='', seed=1, lam=0, total_timesteps=1)); os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    (folder,) = Path("runs").iterdir()
    with TrainingRun(resume=folder):
        pass


def test_nothing_is_written_through_links_in_the_folder():
    """In a run folder from somebody else, a file could be a link to any file of the user."""
    with TrainingRun("name") as run:
        run.begin("algo", FLAGS)
    Path("mine.txt").write_text("mine")
    for name in ("curve.csv", "summary.json", "curve.csv.part", "summary.json.part"):
        (run.folder / name).unlink(missing_ok=True)
        (run.folder / name).symlink_to(Path("mine.txt").resolve())
    with TrainingRun(resume=run.folder) as again:
        again.begin("algo", FLAGS)
        again.step(NOTHING, {})
        again.log({}, lam=0.0)
    assert Path("mine.txt").read_text() == "mine"
    assert "mine" not in (again.folder / "curve.csv").read_text()
    assert len(rows_of(again)) == 1


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda file: Path(file).symlink_to("../mine.txt")])
def test_a_lock_that_is_no_plain_file_is_named(make):
    """In a run folder from somebody else, the lock could be a link or a pipe; no message named it."""
    Path("run").mkdir()
    Path("mine.txt").write_text("mine")
    make("run/lock")
    with pytest.raises(UsageError, match="run/lock is a link or no plain file"), TrainingRun(resume="run"):
        pass
    assert Path("mine.txt").read_text() == "mine"


@pytest.mark.parametrize("more", ["9" * 5000 + ",1,2\n", f'1,"{"x" * 200_000}"\n', "1,nan,inf\n", "x" * (2**26 + 1)])
def test_whatever_a_curve_holds_is_read_or_named(more):
    """A curve of somebody else's ended in a traceback."""
    with TrainingRun("name") as run:
        run.begin("algo", FLAGS)
    with (run.folder / "curve.csv").open("a") as file:
        file.write("global_step,calls,cost_usd\n" + more)
    try:
        with TrainingRun(resume=run.folder) as again:
            assert again.spent({})["spent_calls"] in (0, 1)
            again.begin("algo", FLAGS)
    except UsageError as error:
        assert "curve.csv is larger" in str(error) or "its files are of another version, or damaged" in str(error)


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing_behind():
    with TrainingRun("name") as run:
        run.begin("algo", FLAGS)
        (run.folder / "data").mkdir()
        with pytest.raises(OSError, match=f"'{run.folder}/data'"):
            run.write("data", b"new")
        assert not [*run.folder.glob("*.part")]


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_at_its_next_step(number):
    with pytest.raises(SystemExit) as end, command_line(), TrainingRun("name") as run:
        run.begin("algo", FLAGS)
        run.step(NOTHING, {})
        signal.raise_signal(number)
        run.log({}, lam=0.0)  # what is under way is done first
        run.step(NOTHING, {})
        pytest.fail("the run went on")
    assert end.value.code == 128 + number
    assert rows_of(run)
    assert run.summary["global_step"] == 4


@pytest.mark.parametrize("is_waiting", [True, False])
def test_a_signal_ends_a_run_that_waits_for_its_teacher_at_once(is_waiting):
    """At the first Ctrl-C, a run went on until all questions of its rollout had been asked and answered."""
    reached = []
    with pytest.raises(KeyboardInterrupt), TrainingRun("name") as run:
        run.begin("algo", FLAGS)
        if not is_waiting:
            signal.raise_signal(signal.SIGTERM)
        with run.waiting():
            signal.raise_signal(signal.SIGTERM)
            reached.append("the next reply")
    assert not reached


def test_the_second_signal_ends_a_run_wherever_it_is():
    reached = []
    with pytest.raises(KeyboardInterrupt), TrainingRun("name") as run:
        run.begin("algo", FLAGS)
        signal.raise_signal(signal.SIGTERM)
        reached.append("first")
        signal.raise_signal(signal.SIGTERM)
        reached.append("second")
    assert reached == ["first"]
    assert run.summary


def test_after_a_run_signals_do_what_they_did_before():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with TrainingRun("name"):
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_where_ctrl_c_is_ignored_it_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with TrainingRun("name"):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


# The command line


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("--seed -1: give 0 or more"), 2),
        (TeacherError("20 questions in a row"), 1),
        (OSError(28, "No space left on device", "runs/x/student.pt"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_end_that_is_no_defect_is_one_message_and_an_exit_code(error, code, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["script.py"])
    with pytest.raises(SystemExit) as end, command_line():
        raise error
    assert end.value.code == code
    assert capsys.readouterr().err == ("" if code == 130 else f"{error}\n")


def test_a_defect_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["script.py"])
    with pytest.raises(ZeroDivisionError), command_line():
        _ = 1 / 0


def test_what_could_steer_a_terminal_is_not_printed(monkeypatch, capsys):
    """Escape sequences in a provider's message reached the terminal of a training script."""
    monkeypatch.setattr(sys, "argv", ["script.py"])
    with pytest.raises(SystemExit), command_line():
        raise TeacherError("busy\x1b]0;hello\x07, try again")
    assert capsys.readouterr().err == "busy, try again\n"
