"""The runner of the experiments and the figures made of its rows, on one small task."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import measures  # noqa: E402
import plot  # noqa: E402
import run  # noqa: E402
import suites  # noqa: E402
import tables  # noqa: E402


def runner(*flags):
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--suite", "smoke", "--store", "answers.sqlite", *flags]
    return subprocess.run([*command, "--results", "results"], check=True, capture_output=True, text=True).stdout


def rows_of(name):
    with Path("results", name).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_smoke_suite_runs_end_to_end_and_is_made_into_figures_and_tables(monkeypatch):
    out = runner()
    rows = rows_of("runs.csv")
    cells = {cell.id: cell for cell in suites.smoke({})}
    assert {row["id"] for row in rows} == set(cells) == {row["id"] for row in rows_of("curves.csv")}
    for row in rows:
        assert row["command"] == cells[row["id"]].command
        assert 0 < int(row["frames"]) <= 2000
        assert bool(row["labels"]) == (row["method"] != "plain")
    assert "solved at" in out
    taught = [row for row in rows if row["method"] == "best"]
    assert all(row["solved_frames"] for row in taught)

    lost = rows[-1]["id"]  # as if that run had been killed
    kept = [
        line for line in Path("results/runs.csv").read_text().splitlines(keepends=True) if not line.startswith(lost)
    ]
    Path("results/runs.csv").write_text("".join(kept))
    assert runner("--dry-run").splitlines() == [cells[lost].command]
    runner()
    assert [row["id"] for row in rows_of("runs.csv")] == [row["id"] for row in rows]
    again = rows_of("runs.csv")[-1]
    assert (again["solved_frames"], again["final_return"]) == (rows[-1]["solved_frames"], rows[-1]["final_return"])

    Path("out/docs").mkdir(parents=True)
    marks = "<!-- headline -->\n<!-- end -->\n<!-- stricter -->\n<!-- end -->\n<!-- final -->\n<!-- end -->\n"
    Path("out/docs/results.md").write_text(f"Before.\n{marks}After.\n")
    for suite in ("headline", "threshold", "ablation", "quality"):
        monkeypatch.setitem(suites.SUITES, suite, suites.smoke)
    for module in (plot, tables):
        monkeypatch.setattr(module, "TASKS", {"Empty-5x5": next(iter(cells.values())).task})
    monkeypatch.setattr(plot, "ABLATED", ("Empty-5x5",))
    plot.main(plot.Args(results=Path("results"), out=Path("out")))
    text = Path("out/docs/results.md").read_text()
    assert text.startswith("Before.")
    assert text.endswith("After.\n")
    assert "| Empty-5x5 | PPO |" in text
    for name in ("headline_ppo", "headline_a2c", "frames_to_threshold", "ablation", "quality"):
        assert Path(f"out/docs/images/{name}.png").stat().st_size > 9_000


def needed(*frames):
    """What some runs needed; None for one that never got there in 300,000 frames."""
    return measures.needed([{"solved_frames": each and str(each), "frames": "300000"} for each in frames])


def test_a_speed_up_is_the_ratio_of_the_frames_that_plain_rl_and_the_method_need():
    found = measures.speed_up([(needed(9000, 10_000, 11_000), needed(900, 1000, 1100))])
    assert found.value == pytest.approx(10)
    assert 8 < found.low < 10 < found.high < 13
    assert str(found).startswith("10.0x (")


def test_a_speed_up_over_a_single_seed_has_no_interval():
    assert str(measures.speed_up([(needed(30_000, 40_000, 20_000), needed(3000))])) == "10.0x"


def test_the_mean_speed_up_of_several_tasks_is_geometric():
    pairs = [(needed(1000, 1000, 1000), needed(500, 500, 500)), (needed(8000, 8000, 8000), needed(1000, 1000, 1000))]
    assert measures.speed_up(pairs).value == pytest.approx(4)


def test_a_plain_run_that_never_gets_there_makes_the_speed_up_a_lower_bound_without_an_upper_end():
    found = measures.speed_up([(needed(None, 300_000), needed(3000, 3000))])
    assert found.is_bound
    assert str(found) == ">= 100.0x (100.0 or more)"


def test_a_method_that_fails_on_more_than_a_fifth_of_its_seeds_has_no_speed_up():
    plain = needed(*[10_000] * 5)
    assert "never got there" in str(measures.speed_up([(plain, needed(None, None, 1000, 1000, 1000))]))
    assert "never got there" not in str(measures.speed_up([(plain, needed(None, 1000, 1000, 1000, 1000))]))


def results_of(tmp_path, returns, every):
    """The results of one run, looked at so often; and its row, solved at a mean return of 0.9."""
    curve = [(every * (i + 1), value) for i, value in enumerate(returns)]
    lines = [f"a,{step},{value},1" for step, value in curve]
    (tmp_path / "curves.csv").write_text("\n".join(["id,global_step,mean_return_50,success_100", *lines]))
    solved = next((str(step) for step, value in curve if value >= 0.9), "")
    return measures.Results(tmp_path), {"id": "a", "solved_frames": solved, "frames": str(curve[-1][0])}


def test_a_run_that_is_looked_at_more_often_than_others_is_not_solved_between_their_looks(tmp_path):
    results, row = results_of(tmp_path, [0.1, 0.95, 0.1, 0.1, 0.1, 0.1, 0.1, 0.95], every=256)
    assert row["solved_frames"] == "512"
    assert measures.looked_at_alike(results, row, 0.9) == 2048


def test_a_run_that_ended_as_soon_as_it_was_solved_would_have_been_seen_at_the_next_look(tmp_path):
    results, row = results_of(tmp_path, [0.1, 0.95], every=256)
    assert measures.looked_at_alike(results, row, 0.9) == 1024


def test_a_threshold_that_is_lost_again_is_not_held(tmp_path):
    lost = [0.1, 0.95, *[0.5] * 10, *[0.95] * 10]
    results, row = results_of(tmp_path, lost, every=1000)
    assert measures.return_afterwards(results, row) == pytest.approx(0.5, abs=0.12)
    assert 11_000 <= measures.held(results, row, 0.9) <= 14_000
    results, row = results_of(tmp_path, lost[:12], every=1000)
    assert np.isnan(measures.held(results, row, 0.9))


def test_a_race_is_over_for_a_run_that_is_half_as_slow_again_as_its_fastest_rival():
    race = {"task": "LavaGapS7", "algo": "ppo", "seed": "1", "method": "tune: base", "solved_frames": "20000"}
    cell = suites.plain(suites.TASKS["LavaGapS7"], "ppo", "64 steps", 1, frames_after_solved=0, is_race=True)
    assert cell.races(race)
    assert not cell.races(race | {"seed": "2"})
    assert not cell.races(race | {"method": "plain"})
    curve = [{"global_step": "30001", "mean_return_50": "0.1", "success_100": ""}]
    assert run.why_to_end(cell, curve, lambda: 1.5 * 20_000) == "outpaced"
    assert not run.why_to_end(cell, curve, lambda: float("inf"))
    curve[0]["mean_return_50"] = "0.95"
    assert run.why_to_end(cell, curve, lambda: float("inf")) == "solved"


def test_every_cell_of_a_suite_is_another_run_and_every_command_can_be_given_to_a_shell():
    for suite in suites.SUITES.values():
        cells = list(suite({}))
        assert len({cell.id for cell in cells}) == len(cells)
        assert not [cell.command for cell in cells if "?" in cell.command and "'embedded" not in cell.command]
