"""The metrics: from rows to rates and their intervals."""

import math

import numpy as np
import pytest

from lvlm2p_wrappers.evaluation import compute_metrics
from lvlm2p_wrappers.evaluation.comparison import differences
from lvlm2p_wrappers.evaluation.intervals import mean, proportion
from lvlm2p_wrappers.records import (
    CalibrationBin,
    Episode,
    Exchange,
    Failure,
    GroundTruth,
    Label,
    Message,
    Metrics,
    Place,
    ReplyMetrics,
)
from lvlm2p_wrappers.saved_picture import SavedPicture

ACTIONS = ("left", "right", "forward")
PICTURE = SavedPicture.named("0" * 64)
GOAL, LAVA = Place(what="green goal square", row=3, column=3), Place(what="lava", row=2, column=1)


def exchange(**changes):
    given = {
        "stage": "action",
        "messages": (Message("user", "?", PICTURE),),
        "reply": "{}",
        "outcome": "ok",
        "problem": "",
        "model": "m",
        "latency_s": 1.0,
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "cost_usd": 0.001,
    }
    return Exchange(**(given | changes))


def analysis(**changes):
    given = {
        "agent_row": 1,
        "agent_column": 1,
        "heading": "right",
        "targets": [{"what": "goal", "row": 3, "column": 3}],
        "hazards": [{"what": "lava", "row": 2, "column": 1}],
        "ahead": "closed red door",
        "next_step": {"row": 1, "column": 2},
    }
    return given | changes


def label(number=0, probs=(0.1, 0.1, 0.8), found=None, truth=None, **changes):
    given = {
        "id": number,
        "source": "random",
        "seed": number,
        "step": 0,
        "picture": PICTURE,
        "mission": "go",
        "carrying": "nothing",
        "actions": ACTIONS,
        "probs": probs,
        "analysis": analysis() if found is None else found,
        "model": "m",
        "cached": False,
        "failure": None,
        "exchanges": (exchange(stage="analysis"), exchange()),
        "truth": truth or true(),
    }
    return Label(**(given | changes))


def true(**changes):
    given = {
        "row": 1,
        "column": 1,
        "heading": "right",
        "targets": (GOAL,),
        "hazards": (LAVA,),
        "optimal": ("forward",),
        "fatal": ("right",),
        "ahead": "closed red door",
        "next_steps": ((2, 1), (1, 2)),
    }
    return GroundTruth(**(given | changes))


def failed(number=0, kind="json"):
    return label(number, None, failure=Failure(kind=kind, message="no"), exchanges=(exchange(outcome="bad_reply"),))


class TestIntervals:
    @pytest.mark.parametrize(("hits", "n", "low", "high"), [(0, 10, 0.0, 0.2775), (81, 263, 0.2553, 0.3662)])
    def test_a_proportion_has_wilsons_interval(self, hits, n, low, high):
        """The second row is an example of Newcombe 1998, table I."""
        rate = proportion([True] * hits + [False] * (n - hits))
        assert (rate.low, rate.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))

    def test_a_mean_has_an_interval_as_wide_as_the_normal_distributions(self):
        values = np.random.default_rng(0).normal(5, 2, 400)
        rate = mean(values)
        half = 1.96 * values.std() / 20
        assert rate.value == pytest.approx(values.mean())
        assert (rate.low, rate.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)

    def test_values_that_belong_together_make_it_wider(self):
        values = np.repeat(np.random.default_rng(0).normal(size=50), 8)
        alone, together = mean(values), mean(values, np.repeat(np.arange(50), 8))
        assert together.high - together.low > 2 * (alone.high - alone.low)

    @pytest.mark.slow
    def test_the_interval_of_the_difference_of_equal_teachers_holds_0_nineteen_times_in_twenty(self):
        rng = np.random.default_rng(1)
        rates = [mean(rng.integers(-1, 2, 60)) for _ in range(200)]
        assert 0.90 <= np.mean([rate.low <= 0 <= rate.high for rate in rates]) <= 0.99


class TestStage1:
    @pytest.mark.parametrize(
        ("wrong", "names"),
        [
            ({"agent_row": 2}, {"agent_row", "cell", "pose"}),
            ({"agent_column": 0}, {"agent_column", "cell", "pose"}),
            ({"heading": "up"}, {"heading", "pose"}),
            ({"targets": []}, {"targets"}),
            ({"targets": [{"row": 3, "column": 3}, {"row": 1, "column": 2}]}, {"targets"}),
            ({"hazards": []}, {"hazards"}),
            ({"hazards": "none"}, {"hazards"}),
            ({"ahead": "wall"}, {"ahead"}),
            ({"ahead": "open red door"}, {"ahead"}),
            ({"ahead": "closed blue door"}, {"ahead"}),
            ({"next_step": {"row": 1, "column": 0}}, {"next_step"}),
            ({"next_step": "forward"}, {"next_step"}),
        ],
    )
    def test_each_mistake_counts_where_it_belongs(self, wrong, names):
        found = compute_metrics([label(found=analysis(**wrong))], []).analysis
        assert {name for name, rate in found if name != "headings" and rate.value == 0} == names

    @pytest.mark.parametrize(
        ("claim", "truth"),
        [("a Red door, closed", "closed red door"), ("empty", "floor"), ("green goal", "green goal square")],
    )
    def test_what_is_ahead_may_be_told_in_other_words(self, claim, truth):
        found = compute_metrics([label(found=analysis(ahead=claim), truth=true(ahead=truth))], []).analysis
        assert found.ahead.value == 1

    def test_fields_that_a_form_lacks_or_whose_truth_is_not_known_are_not_scored(self):
        short = {name: value for name, value in analysis().items() if name not in ("hazards", "ahead")}
        found = compute_metrics([label(found=short, truth=true(next_steps=()))], []).analysis
        assert (found.hazards, found.ahead, found.next_step) == (None, None, None)
        assert found.targets.value == 1

    def test_words_do_not_count_only_cells_do(self):
        told = analysis(targets=[{"what": "the thing over there", "row": 3, "column": 3}])
        assert compute_metrics([label(found=told)], []).analysis.targets.value == 1

    def test_parts_that_come_later_may_be_named_or_not(self):
        truth = true(also=(Place(what="blue door", row=5, column=5),))
        both = [{"row": 3, "column": 3}, {"row": 5, "column": 5}]
        for targets, right in ((both, 1), (both[:1], 1), (both[1:], 0)):
            found = compute_metrics([label(found=analysis(targets=targets), truth=truth)], []).analysis
            assert found.targets.value == right

    def test_headings_are_confused_in_a_table(self):
        labels = [label(found=analysis(heading=said)) for said in ("right", "left", "left")]
        assert compute_metrics(labels, []).analysis.headings["right"] == {"up": 0, "right": 1, "down": 0, "left": 2}

    def test_without_a_grid_or_without_truth_there_is_nothing_to_score(self):
        assert compute_metrics([label(found={"summary": "nice"})], []).analysis is None
        assert compute_metrics([label().model_copy(update={"truth": None})], []).analysis is None


class TestStage2:
    def test_it_is_scored_by_its_most_probable_action_and_by_its_masses(self):
        found = compute_metrics([label(), label(1, (0.5, 0.3, 0.2))], []).action
        assert (found.agreement.value, found.agreement.n) == (0.5, 2)
        assert found.mass_optimal.value == pytest.approx(0.5)
        assert found.mass_fatal.value == pytest.approx(0.2)
        entropies = [-sum(p * math.log(p) for p in probs) for probs in ((0.1, 0.1, 0.8), (0.5, 0.3, 0.2))]
        assert found.entropy == pytest.approx(np.mean(entropies))

    def test_states_without_a_fatal_action_say_nothing_about_fatal_mass(self):
        found = compute_metrics([label(), label(1, truth=true(fatal=()))], []).action
        assert found.mass_fatal.n == 1

    def test_without_a_verdict_only_entropy_is_left(self):
        found = compute_metrics([label(truth=true(optimal=(), fatal=()))], []).action
        assert (found.agreement, found.mass_optimal, found.mass_fatal, found.ece) == (None,) * 4
        assert found.entropy > 0

    def test_calibration_compares_confidence_with_accuracy_in_bins(self):
        """Four labels at 0.8, half of them right, and four at 0.95, all of them right."""
        right, wrong = true(), true(optimal=("left",))
        labels = [label(i, (0.1, 0.1, 0.8), truth=right if i % 2 else wrong) for i in range(4)]
        labels += [label(i, (0.05, 0.0, 0.95)) for i in range(4, 8)]
        found = compute_metrics(labels, []).action
        assert [(row.low, row.n, row.accuracy) for row in found.reliability] == [(0.8, 4, 0.5), (0.9, 4, 1)]
        assert found.ece == pytest.approx((4 * 0.3 + 4 * 0.05) / 8)

    def test_certainty_falls_into_the_last_bin(self):
        found = compute_metrics([label(probs=(0.0, 0.0, 1.0))], []).action
        assert found.reliability == (CalibrationBin(low=0.9, high=1.0, confidence=1.0, accuracy=1.0, n=1),)


class TestTheRest:
    def test_episodes_are_counted_by_policy(self):
        rows = [
            Episode(policy="argmax", seed=i, episodic_return=i / 2, length=10 + i, success=i > 0, failures=0)
            for i in range(3)
        ]
        found = compute_metrics([], rows).rollouts
        assert found["argmax"].success.value == pytest.approx(2 / 3)
        assert (found["argmax"].episodic_return.value, found["argmax"].length) == (0.5, 11)
        assert "sampled" not in found

    def test_failures_are_counted_by_kind_and_repaired_replies_as_bad_ones(self):
        said = (
            Message("user", "?", PICTURE),
            Message("assistant", "!"),
            Message("user", "again"),
        )
        repaired = label(2, exchanges=(exchange(messages=said),))
        found = compute_metrics([failed(), failed(1, "sum"), repaired, label(3)], []).replies
        assert found == ReplyMetrics(labels=2, failures=2, by_kind={"json": 1, "sum": 1}, bad_replies=3)

    def test_the_price_of_a_label_counts_what_failed_too(self):
        found = compute_metrics([label(), label(1), failed(2)], [], run_views=1000).price
        assert found.usd_per_label == pytest.approx(0.005 / 2)
        assert found.usd_20000_frames == pytest.approx(2.5)
        assert (found.latency_p50_s, found.latency_p95_s) == pytest.approx((2.0, 2.0))
        assert (found.prompt_tokens, found.completion_tokens) == pytest.approx((500 / 3, 50 / 3))

    def test_one_call_without_a_price_leaves_the_price_open(self):
        found = compute_metrics([label(exchanges=(exchange(cost_usd=None), exchange()))], [], run_views=1000).price
        assert found.usd_per_label is found.usd_20000_frames is None

    def test_no_rows_have_metrics_too_and_they_can_be_written_and_read(self):
        found = compute_metrics([], [])
        assert Metrics.model_validate_json(found.model_dump_json(by_alias=True)) == found


class TestDifferences:
    def test_equal_teachers_do_not_differ(self):
        labels = [label(i, (0.1, 0.3, 0.6)) for i in range(20)]
        assert not any(row.differs for row in differences(labels, labels))

    def test_a_clear_difference_is_told_and_its_sign_is_that_of_the_other_teacher(self):
        better = [label(i) for i in range(20)]
        worse = [label(i, (0.8, 0.1, 0.1) if i % 2 else (0.1, 0.1, 0.8)) for i in range(20)]
        row = next(row for row in differences(better, worse) if row.metric == "best action optimal")
        assert (row.first, row.other, row.differs) == (1.0, 0.5, True)
        assert row.difference.value == -0.5
        assert row.difference.low < -0.5 < row.difference.high < 0

    def test_the_order_of_the_answers_does_not_matter(self):
        one = [label(i, (0.1, 0.1, 0.8) if i % 3 else (0.8, 0.1, 0.1)) for i in range(20)]
        row = next(row for row in differences(one, one[::-1]) if row.metric == "best action optimal")
        assert (row.difference.low, row.difference.high) == (0, 0)

    def test_states_are_paired_by_id_and_only_where_both_have_an_answer(self):
        one = [label(i) for i in range(20)]
        two = [failed(i) if i < 5 else label(i) for i in reversed(range(20))]
        rows = {row.metric: row for row in differences(one, two)}
        assert rows["best action optimal"].n == 15
        assert not rows["best action optimal"].differs
        assert (rows["failures"].n, rows["failures"].difference.value, rows["failures"].differs) == (20, 0.25, True)

    def test_of_a_few_episodes_nothing_is_claimed(self):
        one = [label(i, seed=i % 9) for i in range(30)]
        two = [label(i, (0.8, 0.1, 0.1), seed=i % 9) for i in range(30)]
        assert not any(row.differs for row in differences(one, two))

    def test_what_one_side_does_not_have_is_not_compared(self):
        one = [label(i) for i in range(20)]
        two = [label(i).model_copy(update={"analysis": None}) for i in range(20)]
        row = next(row for row in differences(one, two) if row.metric == "heading right")
        assert (row.first, row.other, row.difference, row.n) == (1.0, None, None, 0)
