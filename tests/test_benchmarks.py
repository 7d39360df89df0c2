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
import reading  # noqa: E402
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
    assert {row["id"] for row in rows} == set(cells) == {row["id"] for row in rows_of("looks.csv")}
    for row in rows:
        assert row["command"] == cells[row["id"]].command
        assert 0 < int(row["frames"]) <= 2048
        assert bool(row["labels"]) == (row["method"] != "plain")
    assert "held from" in out
    assert all(row["first_frames"] for row in rows if row["method"] == "ours")

    lost = rows[-1]["id"]  # as if that run had been killed
    kept = [
        line for line in Path("results/runs.csv").read_text().splitlines(keepends=True) if not line.startswith(lost)
    ]
    Path("results/runs.csv").write_text("".join(kept))
    assert runner("--dry-run").splitlines() == [cells[lost].command]
    runner()
    assert [row["id"] for row in rows_of("runs.csv")] == [row["id"] for row in rows]
    again = rows_of("runs.csv")[-1]
    assert [again[name] for name in ("frames", "held_frames", "final_return")] == [
        rows[-1][name] for name in ("frames", "held_frames", "final_return")
    ]

    Path("out/docs").mkdir(parents=True)
    marks = "<!-- paper -->\n<!-- end -->\n<!-- readme -->\n<!-- end -->\n<!-- cost -->\n<!-- end -->\n"
    Path("out/docs/results.md").write_text(f"Before.\n{marks}After.\n")
    task = next(iter(cells.values())).task
    monkeypatch.setitem(suites.SUITES, "paper", suites.smoke)
    monkeypatch.setitem(tables.TASKS_OF, "paper", {task.name: task})
    monkeypatch.setattr(tables, "PAPER_TASKS", {task.name: task})
    monkeypatch.setitem(plot.TASKS, task.name, task)
    plot.main(plot.Args(results=Path("results"), out=Path("out")))
    text = Path("out/docs/results.md").read_text()
    assert text.startswith("Before.")
    assert text.endswith("After.\n")
    assert "| Empty-5x5 | PPO |" in text
    for name in ("paper_ppo", "paper_a2c", "frames_to_threshold"):
        assert Path(f"out/docs/images/{name}.png").stat().st_size > 9_000


def needed(*frames):
    """What some runs needed; None for one that never got there in 300,000 frames."""
    return measures.needed([{"held_frames": each and str(each), "frames": "300000"} for each in frames])


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


def log_of(returns, every):
    """A run with an episode of some return each so many frames."""
    ends = every * np.arange(1, len(returns) + 1)
    return reading.Log(ends, np.array(returns, float), np.array(returns) > 0, int(ends[-1]))


def test_all_runs_are_looked_at_every_256_frames_once_they_have_50_episodes():
    looks = reading.looks(log := log_of([0.0] * 50 + [1.0] * 50, every=10), log.returns)
    assert len(looks) == 1000 // 256
    assert np.isnan(looks[0])  # 25 episodes
    assert looks[1:] == pytest.approx([0.02, 0.52])  # after 51 and 76 episodes


def test_a_threshold_that_is_lost_again_is_reached_but_not_held():
    lost = np.array([0.1] * 4 + [0.95] + [0.5] * 40)
    assert reading.first(lost, 0.9) == 5 * 256
    assert np.isnan(reading.held(lost, 0.9))
    found = np.array([0.1] * 4 + [0.95] + [0.5] * 40 + [0.95] * 40)
    assert reading.held(found, 0.9) == pytest.approx(46 * 256, abs=3 * 256)


def test_a_run_that_ends_before_5000_frames_holds_no_threshold():
    assert np.isnan(reading.held(np.full(19, 0.95), 0.9))
    assert reading.held(np.full(20, 0.95), 0.9) == 256


def test_the_lowest_look_after_the_threshold_was_held_is_found_though_the_mean_hides_it():
    returns = np.array([0.5] * 3 + [1.0] * 50 + [0.4] + [1.0] * 200)
    held = reading.held(returns, 0.9)
    share, lowest = reading.afterwards(returns, 0.9, held)
    assert lowest == pytest.approx(0.4 / 0.9)
    assert share == pytest.approx(1 - sum(returns[int(held) // 256 - 1 :][:118] < 0.765) / 118)


def test_a_run_whose_last_lines_are_being_written_is_read_up_to_them(tmp_path):
    assert reading.read_log(tmp_path) is None
    (tmp_path / "curve.csv").write_text("global_step,lam\n512,1\n1024,1\n15")
    (tmp_path / "episodes.csv").write_text("global_step,return,length,success\n256,0.5,9,1\n700,0.25,9,1\n1030,0.1")
    log = reading.read_log(tmp_path)
    assert log.frames == 1024
    assert log.ends.tolist() == [256, 700]
    assert log.returns.tolist() == [0.5, 0.25]


def test_a_race_is_over_for_a_run_that_cannot_hold_its_threshold_in_half_as_many_frames_again_as_its_fastest_rival(
    tmp_path,
):
    cell = suites.tuning(suites.TASKS["LavaGapS7"], "ppo", "64 steps", 1)
    rival = {"id": "a", "task": "LavaGapS7", "algo": "ppo", "seed": "1", "method": "tune: base", "held_frames": "20000"}
    assert cell.races(rival)
    assert not cell.races(rival | {"seed": "2"})
    assert not cell.races(rival | {"method": "plain"})
    run.append(tmp_path / "runs.csv", list(rival), [rival])
    outpaced_at = run.outpacer(cell, tmp_path)
    assert outpaced_at() == 35_000
    slow = log_of([0.1] * 4000, every=10)
    assert run.why_to_end(cell, slow, outpaced_at) == "outpaced"
    assert not run.why_to_end(cell, slow, lambda: float("inf"))
    assert run.why_to_end(cell, log_of([0.95] * 4000, every=10), outpaced_at) == "held"


def test_a_run_is_followed_for_30000_frames_after_it_held_its_threshold():
    cell = suites.taught(suites.TASKS["LavaGapS7"], "ppo", "ours", 1, {})
    good = log_of([0.95] * 3600, every=10)
    held = reading.held(reading.looks(good, good.returns), 0.91)
    assert not run.why_to_end(cell, good._replace(frames=int(held) + 34_999), lambda: float("inf"))
    assert run.why_to_end(cell, good._replace(frames=int(held) + 35_000), lambda: float("inf")) == "held"
    row, looks = run.row_of(cell, good, "held", 10.0, {"labels": 5, "distinct_views": 4, "calls": 8})
    assert row["frames"] == (held + 35_000) // 256 * 256
    assert len(looks["returns"].split()) == row["frames"] // 256


def test_plain_rl_is_compared_with_at_its_best_setting_of_those_that_most_seeds_have():
    task, rows = suites.TASKS["LavaGapS7"], {}

    def add(setting, seed, held):
        rows[suites.tuning(task, "ppo", setting, seed).id] = {"held_frames": str(held or ""), "final_return": "0.5"}

    assert suites.best_setting(rows, task, "ppo") is None
    add("base", 1, 30_000)
    add("8 epochs", 1, 40_000)
    add("64 steps", 1, None)
    assert suites.best_setting(rows, task, "ppo") == "base"
    for seed in (2, 3):
        add("base", seed, 60_000)
        add("8 epochs", seed, 40_000)
    assert suites.best_setting(rows, task, "ppo") == "8 epochs"
    plain = [cell for cell in suites.paper(rows) if cell.method == "plain"]
    assert [cell.seed for cell in plain] == [1, 2, 3, 4, 5]
    assert all("--update-epochs 8" in cell.command for cell in plain)


def test_every_cell_of_a_suite_is_another_run_and_every_command_can_be_given_to_a_shell():
    for suite in suites.SUITES.values():
        cells = list(suite({}))
        assert len({cell.id for cell in cells}) == len(cells)
        assert not [cell.command for cell in cells if "?" in cell.command and "'embedded" not in cell.command]
