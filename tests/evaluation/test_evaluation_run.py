"""An evaluation from beginning to end: asked for real, kept as it arrives, gone on with."""

import functools
import json
import re

import gymnasium as gym
import pytest

from lvlm2p_wrappers import Teacher, TeacherError, UsageError
from lvlm2p_wrappers.evaluation import Record, UnfinishedError, card, collect_states, label_states
from lvlm2p_wrappers.evaluation.run import arguments_of, evaluate
from lvlm2p_wrappers.views import viewer
from tests.provider import FAULTS

LAVA = "MiniGrid-LavaGapS5-v0"
EMBEDDED = "embedded/minigrid-planner"


def make(env_id=LAVA):
    return gym.make(env_id, render_mode="rgb_array")


def record_of(teacher, folder, env_id=LAVA, states=6, episodes=2, seed=0):
    env_info = viewer(make(env_id)).env_info
    numbers = {"seed": seed, "states": states, "episodes": episodes}
    return Record(folder, arguments_of(teacher, env_info, prompts=None, **numbers))


def evaluated(teacher, record, env_id=LAVA, width=4):
    return evaluate(teacher, functools.partial(make, env_id), record, width=width, watch=lambda *_: None)


class TestRows:
    def test_every_state_is_labelled_and_every_episode_played_both_ways(self, tmp_path):
        teacher = Teacher(EMBEDDED)
        record = record_of(teacher, tmp_path / "e")
        assert evaluated(teacher, record) is None
        assert sorted(row.id for row in record.labels) == list(range(6))
        assert {(row.way, row.seed) for row in record.episodes} == {
            (w, s) for w in ("argmax", "sampled") for s in (0, 1)
        }
        assert all(row.success and 0 < row.total <= 1 for row in record.episodes if row.way == "argmax")
        assert {file.stem for file in (tmp_path / "e/pictures").iterdir()} == {row.picture for row in record.labels}

    def test_a_label_holds_the_whole_conversation(self, tmp_path):
        teacher = Teacher(EMBEDDED)
        record = record_of(teacher, tmp_path / "e", states=1, episodes=0)
        evaluated(teacher, record)
        (label,) = record.labels
        first, second = label.exchanges
        assert (first.stage, second.stage) == ("analysis", "action")
        assert [(said.role, said.picture) for said in first.messages] == [("system", False), ("user", True)]
        assert json.loads(first.reply) == label.analysis
        assert first.latency_s > 0 and first.prompt_tokens > 100 and first.cost_usd == 0
        assert (label.analysis["agent_row"], label.analysis["heading"]) == (label.truth.row, label.truth.heading)

    def test_truth_never_reaches_the_teacher(self, provider, tmp_path):
        teacher = Teacher("openai/gpt-4o-mini")
        record = record_of(teacher, tmp_path / "e", states=3, episodes=0)
        evaluated(teacher, record)
        sent = " ".join(turn.text for exchange in provider.log for turn in exchange.seen.turns)
        assert "optimal" not in sent
        assert "'fatal'" not in sent and '"fatal"' not in sent

    def test_questions_are_put_side_by_side(self, provider, tmp_path):
        provider.latency = 0.3
        teacher = Teacher("openai/gpt-4o-mini", concurrency=8)
        evaluated(teacher, record_of(teacher, tmp_path / "e", states=8, episodes=0), width=8)
        assert provider.peak_in_flight >= 6

    def test_answers_out_of_the_store_tell_what_they_cost_when_they_were_bought(self, provider, tmp_path):
        cards = []
        for name in ("one", "two"):
            teacher = Teacher("openai/gpt-4o-mini", store=tmp_path / "s.sqlite")
            record = record_of(teacher, tmp_path / name, states=4, episodes=0)
            evaluated(teacher, record)
            cards.append(card(record.labels, [], run_views=10)["price"])
        assert len(provider.log) == 8
        assert cards[0] == cards[1]
        assert cards[0]["usd_per_label"] == pytest.approx(provider.cost_usd / 4)
        assert all(label.cached for label in record.labels)

    def test_an_environment_without_truth_gets_everything_else(self, provider, tmp_path):
        teacher = Teacher("openai/gpt-4o-mini")
        record = record_of(teacher, tmp_path / "e", "FrozenLake-v1", states=3, episodes=1)
        assert evaluated(teacher, record, "FrozenLake-v1") is None
        found = card(record.labels, record.episodes)
        assert provider.log
        assert found["stage1"] is found["stage2"]["agreement"] is None
        assert found["stage2"]["entropy"] > 0
        assert found["episodes"]["sampled"]["success"]["n"] == 1


class TestFailures:
    def test_a_reply_that_stays_bad_is_a_row_and_its_actions_are_drawn_at_random(self, provider, tmp_path):
        provider.faults = lambda seen: FAULTS["sum_7"] if seen.asks_for_an_action and seen.digest[0] % 2 else None
        teacher = Teacher("openai/gpt-4o-mini")
        record = record_of(teacher, tmp_path / "e", states=8, episodes=1)
        assert evaluated(teacher, record) is None
        found = card(record.labels, record.episodes)["replies"]
        assert 0 < found["failures"] < 8
        assert found["by_kind"] == {"sum": found["failures"]}
        assert found["bad_replies"] == 2 * found["failures"]
        spoilt = next(row for row in record.labels if row.failure)
        assert spoilt.probs is None and spoilt.analysis is not None
        assert re.search(r"probabilities sum to (6\.99|7\.)", spoilt.exchanges[1].problem)
        assert sum(row.failures for row in record.episodes) > 0

    def test_a_repaired_reply_counts_as_a_bad_one_and_its_label_as_a_good_one(self, provider, tmp_path):
        provider.faults = [FAULTS["malformed_json"]]
        teacher = Teacher("openai/gpt-4o-mini")
        record = record_of(teacher, tmp_path / "e", states=3, episodes=0)
        evaluated(teacher, record)
        found = card(record.labels, [])["replies"]
        assert (found["labels"], found["failures"], found["bad_replies"]) == (3, 0, 1)

    @pytest.mark.slow
    def test_a_teacher_that_always_fails_is_given_up_and_the_rows_are_kept(self, provider, tmp_path):
        provider.faults = lambda _: FAULTS["malformed_json"]
        teacher = Teacher("openai/gpt-4o-mini")
        record = record_of(teacher, tmp_path / "e", states=40, episodes=0)
        with pytest.raises(TeacherError, match="20 questions in a row"):
            evaluated(teacher, record)
        assert len(record.labels) >= 19

    def test_a_spent_budget_leaves_the_rest_for_the_next_time(self, provider, tmp_path):
        for calls, labels in ((7, 3), (None, 8)):
            teacher = Teacher("openai/gpt-4o-mini", budget_calls=calls)
            record = record_of(teacher, tmp_path / "e", states=8, episodes=0)
            problem = evaluated(teacher, record, width=1)
            assert (problem is None) == (calls is None)
            assert len(record.labels) == labels
        assert len(provider.log) == 16

    def test_a_fault_of_the_transport_is_no_row(self, provider):
        provider.faults = lambda seen: FAULTS["400"] if seen.asks_for_an_action else None
        teacher = Teacher("openai/gpt-4o-mini", max_retries=0)
        states = collect_states(make(), 2, seed=0)
        rows = []
        with pytest.raises((UnfinishedError, UsageError)):
            label_states(teacher, states, lambda _, label: rows.append(label), width=2)
        assert not rows


class TestGoingOn:
    def test_only_what_is_missing_is_done_and_the_end_is_the_same(self, tmp_path):
        teacher = Teacher(EMBEDDED + "?error=0.3")
        whole = record_of(teacher, tmp_path / "whole", states=6, episodes=3)
        evaluated(teacher, whole)
        part = record_of(teacher, tmp_path / "part", states=6, episodes=3)
        states = {state.id: state for state in collect_states(make(), 6, seed=0)}
        for row in whole.labels[:3]:
            part.add_label(row, states[row.id].view.picture)
        part.add_episode(whole.episodes[2])
        part.save({}, complete=False)
        again = record_of(teacher, tmp_path / "part", states=6, episodes=3)
        seen = []
        evaluate(teacher, make, again, width=2, watch=lambda *step: seen.append(step))
        assert seen[0] == ("states", 3, 6)
        assert by_id(again) == by_id(whole)
        assert {(row.way, row.seed): row for row in again.episodes} == {(r.way, r.seed): r for r in whole.episodes}
        assert card(again.labels, again.episodes)["stage2"] == card(whole.labels, whole.episodes)["stage2"]

    def test_half_a_line_at_the_end_is_dropped_and_done_again(self, tmp_path):
        teacher = Teacher(EMBEDDED)
        evaluated(teacher, record_of(teacher, tmp_path / "e", states=4, episodes=1))
        file = tmp_path / "e/labels.jsonl"
        file.write_bytes(file.read_bytes()[:-100])
        record = record_of(teacher, tmp_path / "e", states=4, episodes=1)
        assert len(record.labels) == 3
        evaluated(teacher, record)
        assert len(file.read_text().splitlines()) == 4

    @pytest.mark.parametrize(
        "other", [{"states": 5}, {"episodes": 3}, {"seed": 1}, {"env_id": "MiniGrid-Empty-5x5-v0"}]
    )
    def test_other_arguments_are_refused_by_name(self, tmp_path, other):
        teacher = Teacher(EMBEDDED)
        evaluated(teacher, record_of(teacher, tmp_path / "e", states=1, episodes=0))
        with pytest.raises(UsageError, match=f"{next(iter(other))} .*--out"):
            record_of(teacher, tmp_path / "e", **({"states": 1, "episodes": 0} | other))

    def test_edited_prompts_are_other_arguments(self, tmp_path):
        (tmp_path / "mine").mkdir()
        for number, expected in ((0, None), (1, "fingerprint")):
            (tmp_path / "mine/repair.jinja").write_text(f"Again! {number}")
            teacher = Teacher(EMBEDDED, prompts=tmp_path / "mine")
            if expected:
                with pytest.raises(UsageError, match=expected):
                    record_of(teacher, tmp_path / "e", states=1, episodes=0)
            else:
                evaluated(teacher, record_of(teacher, tmp_path / "e", states=1, episodes=0))

    def test_states_of_another_version_are_not_mixed_in(self, tmp_path):
        teacher = Teacher(EMBEDDED)
        evaluated(teacher, record_of(teacher, tmp_path / "e", states=1, episodes=0))
        file = tmp_path / "e/labels.jsonl"
        file.write_text(file.read_text().replace(json.loads(file.read_text())["picture"], "0" * 64))
        with pytest.raises(UsageError, match="not those that would be labelled now"):
            evaluated(teacher, record_of(teacher, tmp_path / "e", states=1, episodes=0))

    def test_a_folder_of_something_else_is_left_alone(self, tmp_path):
        (tmp_path / "precious.txt").write_text("mine")
        with pytest.raises(UsageError, match="something else"):
            record_of(Teacher(EMBEDDED), tmp_path)
        assert [file.name for file in tmp_path.iterdir() if file.name != "store.sqlite"] == ["precious.txt"]


def by_id(record):
    rows = sorted(record.labels, key=lambda row: row.id)
    return [row.model_copy(update={"cached": False}) for row in rows]
