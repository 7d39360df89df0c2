"""The table of teachers is made of report cards, which anybody may add."""

import json
import sys
from pathlib import Path

import pytest

from lvlm2p_wrappers import UsageError
from lvlm2p_wrappers.cli import main

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import compare_teachers  # noqa: E402

ENV = "MiniGrid-LavaGapS5-v0"


@pytest.fixture
def compare(tmp_path):
    """Evaluates teachers, puts their cards into a folder, and returns the lines of the page's table."""

    def run(*models, **changes):
        cards = tmp_path / "cards"
        cards.mkdir(exist_ok=True)
        for number, model in enumerate(models):
            out = tmp_path / str(number)
            assert main(["evaluate", ENV, f"--model={model}", f"--out={out}", "--states=8", "--episodes=4"]) == 0
            card = json.loads((out / "evaluation.json").read_text()) | changes
            (cards / f"{number}.json").write_text(json.dumps(card))
        page = tmp_path / "page.md"
        compare_teachers.main(compare_teachers.Args(cards=cards, out=page))
        return [line for line in page.read_text().splitlines() if line.startswith("| `")]

    return run


def test_the_better_teacher_stands_first_with_its_numbers(compare):
    worse, better = "embedded/minigrid-planner?error=1", "embedded/minigrid-planner"
    rows = compare(worse, better)
    assert [row.split("`")[1] for row in rows] == [better, worse]
    assert "| 1.00 (" in rows[0]


def test_a_card_that_is_not_complete_is_told(compare):
    with pytest.raises(UsageError, match="LavaGapS5-v0 is not complete"):
        compare("embedded/minigrid-planner", complete=False)


def test_a_models_name_ends_no_cell(compare):
    (row,) = compare("embedded/minigrid-planner", model="a|b\x1b[31m")
    assert "a\\|b" in row
    assert "\x1b" not in row


def test_a_file_that_is_no_card_is_told(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UsageError, match=r"x\.json"):
        compare_teachers.main(compare_teachers.Args(cards=tmp_path, out=tmp_path / "page.md"))
