"""The end of a script, of a teacher and of a wrapper: what is stored, what is not asked any more, what stays open."""

import copy
import gc
import json
import os
import pickle
import subprocess
import sys
import threading
import time

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from lvlm2p_wrappers import Teacher, TeacherWrapper, UsageError, VectorTeacherWrapper, View
from lvlm2p_wrappers.store import Store, calls

MODEL, EMBEDDED = "openai/gpt-4o-mini", "embedded/minigrid-planner"

SCRIPT = """
import sys, time
import gymnasium as gym
from lvlm2p_wrappers import VectorTeacherWrapper
envs = gym.vector.SyncVectorEnv([lambda: gym.make("MiniGrid-Fetch-6x6-N2-v0")] * 8)
envs = VectorTeacherWrapper(envs, "openai/gpt-4o-mini", defer=True, concurrency=4)
envs.reset(seed=0)
while envs.teacher.counters.calls < 4:
    time.sleep(0.01)
{end}
"""


def frames(count):
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param("", 0, marks=pytest.mark.slow),
        ("raise RuntimeError('a mistake of the user')", 1),
        pytest.param("sys.exit(3)", 3, marks=pytest.mark.slow),
        pytest.param(
            "import os, signal; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)", 1, marks=pytest.mark.slow
        ),
    ],
    ids=["end", "exception", "exit", "ctrl-c"],
)
def test_a_script_that_ends_without_closing_its_teacher_stores_what_was_sent(provider, tmp_path, end, code):
    """A script that ended, or was ended by an exception, threw away the replies of the calls in flight."""
    provider.latency = 1.5
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(end=end)], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    with Store(tmp_path / "store.sqlite") as store:
        stored = [row.call.outcome for row in calls(store)]
    assert stored == ["ok"] * len(provider.answers) == ["ok"] * len(provider.log)
    assert 4 <= len(stored) <= 6, "what was not sent is not sent"
    assert "Traceback" not in done.stderr or end


@pytest.mark.slow
def test_a_reply_that_never_comes_holds_a_script_for_its_timeout_only(provider):
    provider.latency = 60.0
    code = SCRIPT.format(end="").replace("concurrency=4", "concurrency=4, timeout_s=2")
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
    assert time.monotonic() - started < 40


def test_thousands_of_questions_are_given_up_in_a_second_and_what_was_sent_is_stored(provider, tmp_path):
    """Ctrl-C went on paying for what had not been sent yet."""
    teacher = Teacher(MODEL, store=tmp_path / "s.sqlite", concurrency=8)
    warm, *shown = (View((frame,), ("left", "right")) for frame in frames(4097))
    teacher.advise(warm)  # LiteLLM is there
    provider.latency = 1.0
    rows = [teacher.submit(view) for view in shown]
    while provider.in_flight < 8:
        time.sleep(0.01)
    sent = len(provider.log)
    started = time.monotonic()
    teacher.drain(rows)
    took = time.monotonic() - started
    assert took < 1.0 + 1.0 + 1.0, "a second, the calls in flight, and a slow machine"
    assert len(provider.log) - sent <= 8
    assert all(row.future.done() for row in rows)
    with Store(tmp_path / "s.sqlite") as store:
        assert [row.call.outcome for row in calls(store)] == ["ok"] * len(provider.log)
        assert store.get_or_claim("any other", seconds=1) is True
        with store.transaction() as connection:
            claimed = connection.exec_driver_sql("SELECT COUNT(*) FROM claims").scalar()
    assert claimed == 1, "no question stays claimed that nobody asks"


def test_what_waits_for_its_turn_is_left_to_other_processes(provider, tmp_path):
    provider.latency = 1.0
    one, two = (Teacher(MODEL, store=tmp_path / "s.sqlite", concurrency=2) for _ in range(2))
    shown = [View((frame,), ("left", "right")) for frame in frames(4)]
    rows = [one.submit(view) for view in shown], [two.submit(view) for view in shown[::-1]]
    for teacher, asked in zip((one, two), rows, strict=True):
        assert len(teacher.collect(asked, on_error="raise")) == 4
    assert one.counters.calls + two.counters.calls == len(provider.log) == 8
    assert min(one.counters.calls, two.counters.calls) >= 2, "the second asks, too, and does not only wait"


def handles():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts the handles in /proc")  # noqa: PTH112
@pytest.mark.parametrize("kind", ["teacher", "with", "wrapper", "vector"])
def test_teachers_and_wrappers_that_are_closed_leave_no_handle_and_no_thread(tmp_path, kind):
    """700 teachers made and closed could open no further store: 507 of them was the most."""

    def make_and_close(i):
        options = {"store": tmp_path / f"{i}.sqlite"}
        if kind == "teacher":
            Teacher(EMBEDDED, **options).close()
        elif kind == "with":
            with Teacher(EMBEDDED, **options) as teacher:
                teacher.store.get("a key")
        elif kind == "wrapper":
            env = TeacherWrapper(gym.make("MiniGrid-Empty-5x5-v0"), EMBEDDED, **options)
            env.reset(seed=0)
            env.close()
        else:
            envs = gym.make_vec("MiniGrid-Empty-5x5-v0", num_envs=1, vectorization_mode="sync")
            envs = VectorTeacherWrapper(envs, EMBEDDED, defer=True, **options)
            envs.reset(seed=0)
            envs.close()

    make_and_close(0)  # LiteLLM is there, and its connections
    before = handles(), threading.active_count()
    for i in range(1, 100 if kind == "teacher" else 10):
        make_and_close(i)
    gc.collect()
    assert (handles(), threading.active_count()) <= before


def test_a_closed_teacher_can_be_read_and_asked_again(provider):
    view, other = (View((frame,), ("left", "right")) for frame in frames(2))
    with Teacher(MODEL) as teacher:
        teacher.advise(view)
    assert teacher.counters.labels == 1
    assert teacher.advise(other).probs.shape == (2,)
    assert len(provider.log) == 4
    teacher.close()


def test_closing_one_wrapper_leaves_the_teacher_to_the_other(provider):
    provider.latency = 0.3
    envs = gym.make_vec("MiniGrid-Fetch-6x6-N2-v0", num_envs=2, vectorization_mode="sync")
    envs = VectorTeacherWrapper(envs, MODEL, defer=True)
    single = TeacherWrapper(gym.make("MiniGrid-Empty-5x5-v0"), MODEL)
    assert single.teacher is envs.teacher
    envs.reset(seed=0)
    envs.step([0, 0])
    single.close()
    assert envs.gather()[1].all()
    envs.close()


def test_a_copy_or_a_pickle_of_a_wrapper_works_with_the_same_teacher():
    """Copying or pickling a wrapper ended in a TypeError about a lock."""
    env = TeacherWrapper(gym.make("MiniGrid-LavaGapS5-v0"), EMBEDDED)
    env.reset(seed=0)
    for again in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        assert again.teacher is env.teacher
        ours, theirs = env.step(0)[4], again.step(0)[4]
        assert np.array_equal(ours["teacher_probs"], theirs["teacher_probs"])
        env.reset(seed=0)
        env.unwrapped.step(0) if again.unwrapped is env.unwrapped else None


def test_a_teacher_is_its_own_copy_and_is_rebuilt_from_its_arguments_in_another_process(tmp_path):
    teacher = Teacher(MODEL, store=None, budget_calls=3)
    assert copy.deepcopy(teacher) is copy.copy(teacher) is teacher, "two would have two budgets"
    arguments = {"store": str(tmp_path / "s.sqlite"), "max_tokens": 9, "fallback_models": ("openai/gpt-4o",)}
    (tmp_path / "teacher.pickle").write_bytes(pickle.dumps(Teacher(MODEL, **arguments)))
    code = (
        "import json, pickle, sys; from lvlm2p_wrappers import Teacher;"
        "teacher = pickle.load(open(sys.argv[1], 'rb'));"
        f"shared = Teacher.shared({MODEL!r}, json.loads(sys.argv[2]));"
        "print(teacher is shared)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "teacher.pickle"), json.dumps(arguments)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"


@pytest.mark.parametrize("dump", [copy.deepcopy, pickle.dumps])
def test_a_vector_wrapper_says_that_it_cannot_be_copied(dump):
    envs = SyncVectorEnv([lambda: gym.make("MiniGrid-Empty-5x5-v0")], autoreset_mode=AutoresetMode.SAME_STEP)
    envs = VectorTeacherWrapper(envs, EMBEDDED, defer=True)
    envs.reset(seed=0)
    with pytest.raises(UsageError, match="a VectorTeacherWrapper can be neither copied nor pickled"):
        dump(envs)
    envs.close()
