"""The weight of the labels falls when the student has learnt what there is, and not before."""

import json

import pytest

from lvlm2p_wrappers import Lambda


def weights(rows, patience=0.5, lam=1.0):
    """The weight after each row of (frames, distance, mean return)."""
    weight = Lambda(lam, patience)
    found = []
    for row in rows:
        weight.update(*row)
        found.append(weight.lam)
    return found


def test_while_the_return_rises_the_weight_stays_and_then_falls_in_half_as_many_frames():
    rising = [(step, None, step / 4000) for step in range(500, 4001, 500)]
    level = [(step, None, 1.0) for step in range(4500, 6501, 500)]
    assert weights(rising + level) == [1.0] * 8 + [0.75, 0.5, 0.25, 0, 0]


def test_a_task_that_is_learnt_more_slowly_is_learnt_from_the_teacher_for_longer():
    def asked_for(slowness):
        rows = [(step * slowness, None, min(step / 4000, 1.0)) for step in range(500, 10_000, 500)]
        return rows[weights(rows).index(0)][0]

    assert asked_for(5) == 5 * asked_for(1)


def test_before_there_are_enough_episodes_nothing_is_known_and_nothing_falls():
    assert weights([(step, 1.0, None) for step in range(500, 20_000, 500)]) == [1.0] * 39


def test_smaller_distances_to_new_labels_are_progress_where_no_episode_succeeds_yet():
    falling = [(step, 2.0 - step / 5000, 0.0) for step in range(500, 8001, 500)]
    assert weights(falling) == [1.0] * 16
    assert weights([*falling, (10_000, 0.4, 0.0), (12_000, 0.4, 0.0)])[-2:] == [0.5, 0]


@pytest.mark.parametrize("scale", [0.01, 1, 500])
def test_whatever_the_scale_of_returns_noise_below_a_twentieth_of_their_range_is_no_progress(scale):
    rows = [(1000, None, 0.0), (2000, None, scale)]
    rows += [(2000 + 250 * i, None, scale * (1 + 0.04 * (i % 2))) for i in range(1, 5)]
    assert weights(rows)[-1] == 0


def test_new_progress_brings_the_weight_back_until_it_has_been_nothing():
    level = [(1000, None, 0.0), (2000, None, 0.5), (2500, None, 0.5)]
    assert weights([*level, (2600, None, 0.9)])[-2:] == [pytest.approx(0.512, abs=0.1), 1.0]
    assert weights([*level, (4000, None, 0.5), (4100, None, 0.9)])[-2:] == [0, 0]


def test_without_patience_the_weight_is_constant():
    assert set(weights([(step, 1.0, 0.0) for step in range(500, 50_000, 500)], patience=0, lam=0.3)) == {0.3}


def test_a_checkpoint_continues_where_the_weight_was():
    rows = [(1000, 1.0, 0.0), (2000, 0.5, 0.5), (2400, 0.5, 0.5), (2800, 0.5, 0.5)]
    first, second = Lambda(1.0, 0.5), Lambda(1.0, 0.5)
    for row in rows[:2]:
        first.update(*row)
    second.load_state({**json.loads(json.dumps(first.state()))})
    for row in rows[2:]:
        first.update(*row)
        second.update(*row)
    assert 0 < first.lam == second.lam < 1


class Learner:
    """What stands in for a student: its state is a number."""

    def __init__(self):
        self.weight = 0.0

    def state_dict(self):
        return {"weight": self.weight}

    def load_state_dict(self, state):
        self.weight = state["weight"]


# The best return is at frame 3000; from then on the student learns its teacher's errors by heart.
PEAKED = [(1000, 0.2), (2000, 0.6), (3000, 0.9), (3500, 0.8), (4000, 0.7), (5000, 0.6), (6000, 0.5)]


def test_when_the_weight_is_0_the_student_goes_back_to_its_best_and_stays_free_from_then_on():
    learner = Learner()
    weight = Lambda(1.0, 0.5, learner)
    seen = []
    for step, mean_return in PEAKED:
        learner.weight = step
        weight.update(step, None, mean_return)
        seen.append((weight.lam, learner.weight))
    assert seen[3][0] < 1
    assert seen[3][1] == 3500  # on the way down it learns on
    assert seen[5] == (0, 3000)
    assert seen[6] == (0, 6000)


def test_the_best_student_survives_a_kill():
    learner, after = Learner(), Learner()
    weight = Lambda(1.0, 0.5, learner)
    for step, mean_return in PEAKED[:4]:
        learner.weight = step
        weight.update(step, None, mean_return)
    resumed = Lambda(1.0, 0.5, after)
    resumed.load_state(json.loads(json.dumps(weight.state())))
    for step, mean_return in PEAKED[4:6]:
        resumed.update(step, None, mean_return)
    assert (resumed.lam, after.weight) == (0, 3000)
