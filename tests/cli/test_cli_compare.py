"""``lvlm2p compare``: real differences are told, and none is where there is none."""

import json
import shutil

import pytest

from lvlm2p_wrappers.cli import main
from lvlm2p_wrappers.prompts import bundled_prompts

LAVA = "MiniGrid-LavaGapS7-v0"
PLANNER = "embedded/minigrid-planner"


@pytest.fixture
def compare(capsys):
    """Runs ``lvlm2p compare ... --json`` and returns its rows by environment and metric."""

    def run(*args):
        assert main(["compare", *map(str, args), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["environments"]
        return {(env_id, row["metric"]): row for env_id, rows in found.items() for row in rows}

    return run


@pytest.fixture
def without_mission(tmp_path):
    """A prompt folder whose templates do not tell the mission."""
    folder = tmp_path / "without_mission"
    folder.mkdir()
    for name in ("analysis.user.jinja", "action.user.jinja"):
        lines = (bundled_prompts() / "minigrid" / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(line for line in lines if not line.startswith("Mission:")))
    return folder


@pytest.fixture
def one_stage(tmp_path):
    """A prompt folder that asks for the action at once."""
    (tmp_path / "one_stage").mkdir()
    (tmp_path / "one_stage/set.toml").write_text("stages = 1\n")
    return tmp_path / "one_stage"


class TestWhatItShows:
    @pytest.mark.parametrize("states", [40, pytest.param(200, marks=pytest.mark.slow)])
    def test_prompts_that_drop_the_mission_are_worse(self, compare, without_mission, states):
        envs = ("MiniGrid-Fetch-6x6-N2-v0", "MiniGrid-GoToDoor-6x6-v0")
        flags = [f"--env={env_id}" for env_id in envs]
        found = compare("minigrid", without_mission, "--model", PLANNER, *flags, "--states", states)
        for env_id in envs:
            row = found[env_id, "best action optimal"]
            assert row["differs"] and row["difference"]["high"] < 0
            assert not found[env_id, "heading right"]["differs"]

    @pytest.mark.parametrize("states", [60, pytest.param(200, marks=pytest.mark.slow)])
    def test_a_teacher_that_misreads_in_its_first_stage_is_better_without_it(self, compare, one_stage, states):
        found = compare("minigrid", one_stage, "--model", f"{PLANNER}?misread=0.2", "--env", LAVA, "--states", states)
        row = found[LAVA, "best action optimal"]
        assert row["differs"] and row["difference"]["low"] > 0
        assert found[LAVA, "heading right"]["other"] is None

    @pytest.mark.parametrize("states", [20, pytest.param(200, marks=pytest.mark.slow)])
    def test_equal_prompts_do_not_differ(self, compare, tmp_path, states):
        shutil.copytree(bundled_prompts() / "minigrid", tmp_path / "same")
        found = compare(
            "minigrid", tmp_path / "same", "--model", f"{PLANNER}?error=0.2", "--env", LAVA, "--states", states
        )
        assert len(found) >= 6
        assert not any(row["differs"] for row in found.values())
        assert found[LAVA, "best action optimal"]["difference"] == {"value": 0, "low": 0, "high": 0, "n": states}

    def test_models_and_prompts_can_be_mixed(self, compare, one_stage):
        found = compare(f"{PLANNER}@minigrid", f"{PLANNER}?error=1@{one_stage}", "--env", LAVA, "--states", 8)
        assert found[LAVA, "best action optimal"]["other"] == 0
        assert found[LAVA, "heading right"]["other"] is None

    def test_people_get_a_table_that_says_who_is_who(self, capsys):
        sides = (PLANNER, f"{PLANNER}?error=1")
        assert main(["compare", *sides, "--env", LAVA, "--states", "24"]) == 0
        shown = capsys.readouterr().out
        assert f"B  {PLANNER}?error=1" in shown
        (row,) = (line for line in shown.splitlines() if "best action optimal" in line)
        assert row.split()[-1] == "differs" and "-1.000" in row

    def test_what_was_asked_once_is_not_paid_for_again(self, provider, compare):
        args = ("openai/gpt-4o-mini", "gemini/gemini-2.5-flash-lite", "--env", LAVA, "--states", 4)
        first = compare(*args)
        assert len(provider.log) == 16
        assert compare(*args) == first
        assert len(provider.log) == 16


class TestMistakes:
    def test_a_budget_holds_for_all_sides_together(self, provider, capsys):
        args = ["openai/gpt-4o-mini", "gemini/gemini-2.5-flash-lite", "--env", LAVA, "--states", "4"]
        assert main(["compare", *args, "--budget-calls", "10"]) == 1
        assert "of 4 states have no answer" in capsys.readouterr().err
        assert len(provider.log) == 10

    @pytest.mark.parametrize(
        ("sides", "said"),
        [
            ((PLANNER,), "Missing from lvlm2p compare: B"),
            (("minigrid", "default"), "--model"),
            (("nowhere", PLANNER), "no folder of prompts, and no model either"),
        ],
    )
    def test_a_mistake_is_explained_and_exits_with_2(self, capsys, sides, said):
        assert main(["compare", *sides, "--env", LAVA]) == 2
        assert said in capsys.readouterr().err

    def test_an_at_in_a_models_own_name_is_no_folder(self, capsys):
        """Vertex AI has such names; this one is refused for its missing key, not for a missing folder."""
        assert main(["compare", "anthropic/claude@20240620", PLANNER, "--env", LAVA, "--states", "1"]) == 2
        assert "ANTHROPIC_API_KEY" in capsys.readouterr().err
