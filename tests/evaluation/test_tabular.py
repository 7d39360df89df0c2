"""The ground truth of environments with a table of transitions."""

import gymnasium as gym
import numpy as np
import pytest

from lvlm2p_wrappers.cli import main
from lvlm2p_wrappers.evaluation import collect_states
from lvlm2p_wrappers.evaluation.folder import read_folder
from lvlm2p_wrappers.evaluation.ground_truth import best_actions, ground_truth, has_ground_truth
from lvlm2p_wrappers.evaluation.metrics import regret
from lvlm2p_wrappers.evaluation.tabular import DISCOUNT, action_values
from lvlm2p_wrappers.records import Label

NAMES = {
    "FrozenLake-v1": ("left", "down", "right", "up"),
    "CliffWalking-v1": ("up", "right", "down", "left"),
    "Taxi-v4": ("south", "north", "east", "west", "pickup", "dropoff"),
}


def made(env_id, **options):
    env = gym.make(env_id, render_mode="rgb_array", **options)
    env.reset(seed=0)
    return env


def at(env, state):
    env.unwrapped.s = state
    return ground_truth(env, NAMES[env.spec.id])


@pytest.mark.parametrize("env_id", list(NAMES))
def test_its_values_are_the_returns_that_the_best_policy_earns(env_id):
    """Played, not calculated: the mean discounted return of greedy episodes is the value of where they begin."""
    env = made(env_id).unwrapped
    values = action_values(env.P)
    gaps = []
    for seed in range(2000 if env_id == "FrozenLake-v1" else 20):
        env.reset(seed=seed)
        begin, earned, factor, over = int(env.s), 0.0, 1.0, False
        while not over and factor > 1e-3:
            _, reward, over, _, _ = env.step(int(values[env.s].argmax()))
            earned, factor = earned + factor * reward, factor * DISCOUNT
        gaps.append(earned - values[begin].max())
    assert abs(np.mean(gaps)) < (0.02 if env_id == "FrozenLake-v1" else 0.02 * abs(values).max())


def test_all_equally_good_ways_are_optimal_and_a_detour_costs_what_it_costs():
    lake = at(made("FrozenLake-v1", is_slippery=False), 0)
    assert set(lake.optimal) == {"down", "right"}
    value = DISCOUNT**5
    assert lake.regret == pytest.approx([value * (1 - DISCOUNT), 0, 0, value * (1 - DISCOUNT)], abs=1e-6)
    assert lake.fatal == ()
    assert (lake.row, lake.heading, lake.targets) == (None, None, ())


def test_a_slippery_lake_is_another_one():
    """Beside a hole it is best to walk away from it, so as to slip along."""
    truths = [at(made("FrozenLake-v1", is_slippery=slips), 6) for slips in (False, True)]
    assert truths[0].optimal == ("down",)
    assert set(truths[1].optimal) == {"left", "right"}


def test_the_cliff_costs_about_a_hundred():
    cliff = at(made("CliffWalking-v1"), 36)
    assert cliff.optimal == ("up",)
    assert cliff.regret[1] == pytest.approx(100, rel=0.05)


def test_a_taxi_takes_its_passenger_in_and_out():
    taxi = made("Taxi-v4")
    encode = taxi.unwrapped.encode
    assert at(taxi, encode(0, 0, 0, 1)).optimal == ("pickup",)
    assert at(taxi, encode(0, 4, 4, 1)).optimal == ("dropoff",)


def test_an_experts_rollouts_put_passengers_on_board():
    """With random states alone no taxi ever carried anybody."""
    env = gym.make("Taxi-v4", render_mode="rgb_array")
    found = collect_states(env, 60, seed=0)
    assert {state.source for state in found} > {"random", "expert"}
    on_board = [[*env.unwrapped.decode(int(state.view.observation))][2] == 4 for state in found]
    assert 10 < sum(on_board) < 50
    assert all(state.truth.optimal for state in found)
    assert all(min(state.truth.regret) == 0 for state in found)


def two_rooms(rows):
    """An environment of a user's own, whose table has these rows."""
    env = made("FrozenLake-v1")
    env.unwrapped.P = rows
    env.unwrapped.s = 0
    return env


def test_a_users_own_table_counts_and_one_that_cannot_be_is_no_ground_truth():
    stay, go = [(1.0, 0, 0.0, False)], [(0.5, 0, 0.0, False), (0.5, 1, 4.0, True)]
    good = {0: {0: stay, 1: go}, 1: {0: stay, 1: go}}
    env = two_rooms(good)
    assert best_actions(env, ("stay", "go")) == ("go",)
    value = 2 / (1 - DISCOUNT / 2)
    assert ground_truth(env, ("stay", "go")).regret[0] == pytest.approx(value * (1 - DISCOUNT), abs=1e-5)
    for bad in (
        {0: {0: [(0.5, 0, 0.0, False)]}},
        {0: {0: [(1.0, "x", 0.0, False)]}},
        {"a": {}},
        {0: {0: [(1.0,)]}},
        {},
    ):
        assert not has_ground_truth(two_rooms(bad))
    assert not has_ground_truth(made("Blackjack-v1"))


def test_regret_is_what_the_distribution_loses_on_average():
    def label(probs):
        truth = at(made("FrozenLake-v1", is_slippery=False), 0).model_copy(update={"regret": (1.0, 0.0, 0.0, 3.0)})
        told = {"picture": None, "mission": "", "carrying": "", "analysis": None, "model": None, "exchanges": ()}
        return Label(id=0, actions=NAMES["FrozenLake-v1"], probs=probs, truth=truth, **told)

    assert regret(label((0.5, 0.25, 0.25, 0.0))) == pytest.approx(0.5)
    assert regret(label((0.0, 0.0, 0.5, 0.5))) == pytest.approx(1.5)
    assert regret(label(None)) is None


def test_the_card_tells_agreement_and_regret(capsys, tmp_path):
    """Toy text had no ground truth: nothing said whether a teacher was right there."""
    flags = ["--states", "20", "--episodes", "0", "--out", str(tmp_path / "e")]
    assert main(["evaluate", "FrozenLake-v1", "--model", "python:tests.teacher.experts:rules.teach", *flags]) == 0
    printed = capsys.readouterr().out
    assert "best one is optimal" in printed
    assert "action: regret" in printed
    evaluation, labels, _ = read_folder(tmp_path / "e")
    metrics = evaluation.metrics.action
    assert metrics.agreement.n == metrics.regret.n == len(labels) == 11, "all states but holes and goal"
    assert metrics.regret.value == pytest.approx(np.mean([label.truth.regret[3] for label in labels]))
    assert evaluation.metrics.analysis is None
