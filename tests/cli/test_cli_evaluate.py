"""``lvlm2p evaluate``: the metrics of a real teacher, their folder, and resuming it."""

import json
import os

import pytest
from minigrid.envs import LavaGapEnv

from lvlm2p_wrappers.cli import main
from lvlm2p_wrappers.evaluation import EvaluationFolder, read_folder
from lvlm2p_wrappers.records import EvaluationArguments
from tests.provider import FAULTS

LAVA = "MiniGrid-LavaGapS5-v0"
PLANNER = "embedded/minigrid-planner"
UNPRICED = "ollama_chat/llava"  # no views are counted for the price of a run


@pytest.fixture
def evaluate(capsys):
    """Runs ``lvlm2p evaluate ... --json`` and returns what it prints; ``code`` is the exit code that is expected."""

    def run(*args, env_id=LAVA, model=PLANNER, code=0):
        assert main(["evaluate", env_id, "--model", model, *map(str, args), "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return run


def inside(rate, value):
    return rate["low"] <= value <= rate["high"]


class TestMetrics:
    @pytest.mark.slow
    def test_a_teacher_that_errs_in_a_tenth_of_all_situations_is_found_out(self, evaluate):
        found = evaluate("--episodes", 100, env_id="MiniGrid-LavaGapS7-v0", model=f"{PLANNER}?error=0.1")["metrics"]
        assert inside(found["action"]["agreement"], 0.9)
        assert found["action"]["agreement"]["n"] == 200
        assert found["analysis"]["pose"]["value"] == found["analysis"]["targets"]["value"] == 1
        assert found["rollouts"]["argmax"]["success"]["value"] < found["rollouts"]["sampled"]["success"]["value"]

    @pytest.mark.slow
    def test_a_teacher_that_misreads_a_tenth_of_all_pictures_is_found_out(self, evaluate):
        found = evaluate("--episodes", 0, env_id="MiniGrid-LavaGapS7-v0", model=f"{PLANNER}?misread=0.1")["metrics"]
        assert inside(found["analysis"]["pose"], 0.9)
        assert found["analysis"]["cell"]["value"] > found["analysis"]["pose"]["value"]
        wrong = sum(
            n for true, said in found["analysis"]["headings"].items() for name, n in said.items() if name != true
        )
        assert wrong == round(200 * (1 - found["analysis"]["heading"]["value"]))

    def test_a_teacher_is_judged_on_what_it_sees_says_and_does(self, evaluate):
        found = evaluate("--states", 8, "--episodes", 1, model=f"{PLANNER}?error=1")
        assert found["complete"] and found["model"] == f"{PLANNER}?error=1" and found["prompts"] == "minigrid"
        assert found["metrics"]["analysis"]["pose"]["value"] == 1
        assert found["metrics"]["action"]["agreement"]["value"] == 0
        assert found["metrics"]["rollouts"]["argmax"]["success"]["value"] == 0
        assert found["metrics"]["price"]["usd_20000_frames"] == 0

    def test_people_get_it_as_tables(self, capsys):
        assert main(["evaluate", LAVA, "--model", PLANNER, "--states", "3", "--episodes", "1"]) == 0
        shown = capsys.readouterr().out
        for part in (
            "most probable action",
            "sampled action",
            "analysis: heading ",
            "true up",
            "price of a label",
        ):
            assert part in shown
        assert f"kept in evaluations/{LAVA}__embedded-minigrid-planner" in shown

    def test_without_episodes_there_is_no_empty_table_of_rollouts(self, capsys):
        assert main(["evaluate", LAVA, "--model", PLANNER, "--states", "3", "--episodes", "0"]) == 0
        assert "rollouts" not in capsys.readouterr().out

    @pytest.mark.slow
    def test_a_model_with_a_price_gets_one_for_a_run_too(self, evaluate, provider):
        found = evaluate("--states", 2, "--episodes", 0, model="openai/gpt-4o-mini")["metrics"]["price"]
        assert found["usd_per_label"] == pytest.approx(provider.cost_usd / 2)
        views = found["usd_20000_frames"] / found["usd_per_label"]
        assert 40 < views < 2_000  # LavaGapS5 has few layouts


class TestTheFolder:
    def test_it_is_named_after_environment_model_and_prompts(self, evaluate, tmp_path):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "set.toml").write_text("stages = 2")
        found = evaluate("--states", 1, "--episodes", 0, "--prompts", tmp_path / "mine")
        assert found["folder"] == f"evaluations/{LAVA}__embedded-minigrid-planner__mine"
        on_disk = json.loads((tmp_path / found["folder"] / "evaluation.json").read_text())
        assert on_disk == {name: value for name, value in found.items() if name != "folder"}

    def test_a_second_call_does_nothing_again(self, evaluate, provider, tmp_path):
        first = evaluate("--states", 3, "--episodes", 1, "--out", tmp_path / "e", model=UNPRICED)
        rows, calls = (tmp_path / "e/labels.jsonl").read_bytes(), len(provider.log)
        assert evaluate("--states", 3, "--episodes", 1, "--out", tmp_path / "e", model=UNPRICED) == first
        assert ((tmp_path / "e/labels.jsonl").read_bytes(), len(provider.log)) == (rows, calls)

    def test_after_a_spent_budget_the_same_command_goes_on(self, evaluate, provider, tmp_path):
        args = ("--states", 4, "--episodes", 0, "--out", tmp_path / "e", "--concurrency", 1)
        part = evaluate(*args, "--budget-calls", 5, model=UNPRICED, code=1)
        assert not part["complete"]
        assert part["metrics"]["replies"]["labels"] == 2
        whole = evaluate(*args, model=UNPRICED)
        assert whole["complete"]
        assert (whole["metrics"]["replies"]["labels"], len(provider.log)) == (4, 8)

    def test_ctrl_c_keeps_what_is_there(self, evaluate, tmp_path, monkeypatch):
        def interrupted(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr("lvlm2p_wrappers.evaluation.run.roll_out", interrupted)
        args = ("--states", 3, "--episodes", 1, "--out", tmp_path / "e")
        assert not evaluate(*args, code=130)["complete"]
        monkeypatch.undo()
        assert len((tmp_path / "e/labels.jsonl").read_text().splitlines()) == 3

    def test_a_second_evaluation_into_one_folder_is_told_of_the_first(self, evaluate, capsys, tmp_path):
        """Both used to write, so that a folder had 120 rows for 60 states."""
        evaluate("--states", 2, "--episodes", 0, "--out", tmp_path / "e")
        arguments = EvaluationArguments(
            **read_folder(tmp_path / "e")[0].model_dump(include=set(EvaluationArguments.model_fields))
        )
        args = ["--model", PLANNER, "--states", "2", "--episodes", "0", "--out", str(tmp_path / "e")]
        with EvaluationFolder(tmp_path / "e", arguments):
            assert main(["evaluate", LAVA, *args]) == 2
        shown = " ".join(capsys.readouterr().err.split())
        assert f"is being written by another `lvlm2p evaluate` (process {os.getpid()} on " in shown
        assert main(["evaluate", LAVA, *args]) == 0

    def test_offline_answers_come_from_the_store_alone(self, evaluate, provider, tmp_path):
        evaluate("--states", 2, "--episodes", 0, "--out", tmp_path / "one", model=UNPRICED)
        provider.faults = lambda _: FAULTS["500"]
        args = ("--episodes", 0, "--offline")
        found = evaluate("--states", 2, *args, "--out", tmp_path / "two", model=UNPRICED)
        assert found["metrics"]["replies"]["labels"] == 2
        found = evaluate("--states", 3, *args, "--out", tmp_path / "three", model=UNPRICED, code=1)
        assert found["metrics"]["replies"]["labels"] == 2


class TestMistakes:
    def test_other_arguments_are_not_mixed_into_a_folder(self, evaluate, capsys):
        evaluate("--states", 2, "--episodes", 0)
        assert main(["evaluate", LAVA, "--model", PLANNER, "--states", "3", "--episodes", "0"]) == 2
        assert "states 2, not 3" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("args", "said"),
        [
            (("NoSuchEnv-v0", "--model", PLANNER), "cannot be made"),
            (("Pendulum-v1", "--model", PLANNER), "needs a Discrete one"),
            ((LAVA, "--model", "nobody/knows"), "names no provider"),
            ((LAVA, "--model", PLANNER, "--prompts", "nowhere"), "there is no prompt folder"),
            ((LAVA, "--model", PLANNER, "--out", __file__), "Not a directory"),
        ],
    )
    def test_a_mistake_is_explained_and_exits_with_2(self, capsys, args, said):
        assert main(["evaluate", *args]) == 2
        assert said in capsys.readouterr().err

    def test_an_environment_that_lacks_its_files_is_explained(self, capsys, monkeypatch):
        def reset(*_, **__):
            raise FileNotFoundError("no pattern.png")

        monkeypatch.setattr(LavaGapEnv, "reset", reset)
        assert main(["evaluate", LAVA, "--model", PLANNER]) == 2
        assert "cannot be reset: no pattern.png" in capsys.readouterr().err

    def test_a_missing_key_is_all_that_is_said(self, capsys):
        assert main(["evaluate", LAVA, "--model", "openai/gpt-4o-mini", "--states", "2"]) == 2
        shown = capsys.readouterr()
        assert "OPENAI_API_KEY" in shown.err
        assert shown.out == ""

    @pytest.mark.parametrize("flag", ["--states=0", "--episodes=-1", "--episodes=x", "--budget-calls=1.5"])
    def test_a_number_that_cannot_be_is_refused(self, capsys, flag):
        assert main(["evaluate", LAVA, "--model", PLANNER, flag]) == 2
        assert flag.partition("=")[0] in capsys.readouterr().err
