"""The way of a new label is short: whoever wants to know how a step gets its advice can read all of it."""

import multiprocessing
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import gymnasium as gym

import lvlm2p_wrappers
from lvlm2p_wrappers import TeacherWrapper

PACKAGE = Path(lvlm2p_wrappers.__file__).parent
MOST_FILES, MOST_LINES = 12, 1900

# What all of it shares, and what stands in place of a provider.
APART = ("records/", "embedded_teacher/", "errors.py", "redaction.py")


def play(store, actions):
    """Step an environment whose teacher has its answers in a store.

    Returns:
        The files of ours, by their paths in the package, whose functions any thread ran meanwhile; and the counters.
    """
    codes = set()

    def note(frame, event, _):
        if event == "call":
            codes.add(frame.f_code.co_filename)

    threading.setprofile(note)  # in the threads that begin from now on: the event loop's, and the store's
    env = TeacherWrapper(gym.make("MiniGrid-LavaGapS7-v0"), model="embedded/minigrid-planner", store=store)
    env.reset(seed=0)  # imports, connections and checks come with the first question
    codes.clear()
    sys.setprofile(note)
    for action in actions:
        env.step(action)
    sys.setprofile(None)
    entered, counters = set(codes), env.teacher.counters
    env.teacher.close()
    ours = (Path(code).relative_to(PACKAGE).as_posix() for code in entered if Path(code).is_relative_to(PACKAGE))
    return sorted(name for name in ours if not name.startswith(APART)), counters


def test_a_step_whose_answer_is_not_in_the_store_enters_a_dozen_short_files(tmp_path):
    """One step was spread over twenty files with 3,382 lines."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:  # nothing else's threads run there
        files, counters = fresh.submit(play, tmp_path / "store.sqlite", [1, 2, 0]).result()
    assert counters.calls == 2 * counters.labels == 8, "every answer was new"
    # A file of each thread's: that of the step, the event loop's, and the store's.
    assert {"wrapper.py", "client/litellm_backend.py", "store/statements.py"} <= set(files)
    lines = {name: len((PACKAGE / name).read_text().splitlines()) for name in files}
    assert len(lines) <= MOST_FILES, sorted(lines)
    assert sum(lines.values()) <= MOST_LINES, lines
