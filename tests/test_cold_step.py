"""The way of a new label is short: whoever wants to know how a step gets its advice can read all of it."""

import sys
import threading
from pathlib import Path

import gymnasium as gym

import lvlm2p_wrappers
from lvlm2p_wrappers import TeacherWrapper
from lvlm2p_wrappers.client import background_loop

PACKAGE = Path(lvlm2p_wrappers.__file__).parent
MOST_FILES, MOST_LINES = 12, 1900

# What all of it shares, and what stands in place of a provider.
APART = ("records/", "embedded_teacher/", "errors.py", "redaction.py")


def files_entered(env, actions):
    """The files of ours, by their paths in the package, whose functions any thread runs while an env is stepped."""
    codes, loop = set(), background_loop()

    def note(frame, event, _):
        if event == "call":
            codes.add(frame.f_code.co_filename)

    threading.setprofile(note)  # for the store's thread, which begins now
    loop.call_soon_threadsafe(sys.setprofile, note)  # for the event loop's, which may have begun before
    try:
        env.reset(seed=0)  # imports, connections and checks come with the first question
        codes.clear()
        sys.setprofile(note)
        for action in actions:
            env.step(action)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        loop.call_soon_threadsafe(sys.setprofile, None)
    ours = (Path(code).relative_to(PACKAGE).as_posix() for code in codes if Path(code).is_relative_to(PACKAGE))
    return sorted(name for name in ours if not name.startswith(APART))


def test_a_step_whose_answer_is_not_in_the_store_enters_a_dozen_short_files(tmp_path):
    """One step was spread over twenty files with 3,382 lines."""
    env = TeacherWrapper(
        gym.make("MiniGrid-LavaGapS7-v0"), model="embedded/minigrid-planner", store=tmp_path / "store.sqlite"
    )
    files = files_entered(env, [1, 2, 0])
    assert env.teacher.counters.calls == 2 * env.teacher.counters.labels == 8, "every answer was new"
    env.teacher.close()
    # A file of each thread's: that of the step, the event loop's, and the store's.
    assert {"wrapper.py", "client/litellm_backend.py", "store/statements.py"} <= set(files)
    lines = {name: len((PACKAGE / name).read_text().splitlines()) for name in files}
    assert len(lines) <= MOST_FILES, lines
    assert sum(lines.values()) <= MOST_LINES, lines
