"""What version 0.1.0 paid for stays paid for: with its prompt sets, its keys, answers and stores are those of today.

``golden_0_1_0`` was written by version 0.1.0 itself: ``answers.json`` has the keys of both stages for several tasks and
models, and the embedded teacher's answers; ``store.sqlite`` is the store that these answers went into.
"""

import json
import shutil
from pathlib import Path

import gymnasium as gym
import pytest

from lvlm2p_wrappers import Teacher
from lvlm2p_wrappers.views import viewer

GOLDEN = Path(__file__).parent / "golden_0_1_0"
ROWS = json.loads((GOLDEN / "answers.json").read_text())
ANSWERED = [row for row in ROWS if "probs" in row]


def name(row):
    return f"{row['env_id']}-{row['seed']}-{row['model']}"


def teacher_of(row, **options):
    """A teacher with the prompt set of 0.1.0 that fits."""
    is_grid = row["env_id"].startswith(("MiniGrid-", "BabyAI-"))
    return Teacher(row["model"], prompts="minigrid-0.1" if is_grid else "default-0.1", **options)


def view_of(row):
    options = {"is_slippery": False, "map_name": "4x4"} if row["env_id"].startswith("FrozenLake") else {}
    env = gym.make(row["env_id"], render_mode="rgb_array", **options)
    env.reset(seed=row["seed"])
    env.action_space.seed(row["seed"])
    for _ in range(row["steps"]):
        env.step(int(env.action_space.sample()))
    return viewer(env).view()


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_the_keys_of_both_stages_are_what_they_were(row):
    view, teacher = view_of(row), teacher_of(row, store=None)
    prompts = teacher.prompts(view.env_info)
    questions = prompts.analysis(view), prompts.action(view, row["analysis"])
    assert view.picture.digest == row["picture"]
    assert [teacher.requests(question)[0].key for question in questions] == row["keys"]


@pytest.mark.parametrize("row", ANSWERED, ids=name)
def test_the_embedded_teacher_answers_as_it_did(row):
    advice = teacher_of(row, store=None).advise(view_of(row))
    assert advice.probs.tolist() == pytest.approx(row["probs"], abs=1e-6)
    assert advice.analysis == row["analysis"]


@pytest.mark.parametrize("row", ANSWERED, ids=name)
def test_a_store_of_0_1_0_opens_and_answers_without_a_call(row, tmp_path):
    store = tmp_path / "store.sqlite"
    shutil.copy(GOLDEN / "store.sqlite", store)
    teacher = teacher_of(row, store=store, offline=True)
    advice = teacher.advise(view_of(row))
    assert advice.cached
    assert advice.probs.tolist() == pytest.approx(row["probs"], abs=1e-6)
    teacher.store.close()
