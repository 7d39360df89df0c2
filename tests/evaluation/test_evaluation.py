"""An evaluation from beginning to end: asked for real, stored as it arrives, resumed."""

import functools
import json
import re

import gymnasium as gym
import pytest

from lvlm2p_wrappers import Teacher, TeacherError, UsageError
from lvlm2p_wrappers.evaluation import EvaluationFolder, UnfinishedError, collect_states, compute_metrics, label_states
from lvlm2p_wrappers.evaluation.run import evaluate
from lvlm2p_wrappers.records import EvaluationArguments
from lvlm2p_wrappers.views import viewer, with_lines
from tests.provider import FAULTS

LAVA = "MiniGrid-LavaGapS5-v0"
EMBEDDED = "embedded/minigrid-planner"


def make(env_id=LAVA):
    return gym.make(env_id, render_mode="rgb_array")


def folder_of(teacher, path, env_id=LAVA, states=6, episodes=2, seed=0):
    env_info = viewer(make(env_id)).env_info
    teacher.resume()
    named = {"env_id": env_id, "model": teacher.model, "prompts": env_info.family}
    numbers = {"seed": seed, "states": states, "episodes": episodes}
    fingerprint = teacher.read_prompts(env_info).fingerprint
    return EvaluationFolder(path, EvaluationArguments(**named, **numbers, fingerprint=fingerprint))


def evaluated(teacher, folder, env_id=LAVA, width=4):
    return evaluate(teacher, functools.partial(make, env_id), folder, width=width, progress=lambda *_: None)


class TestRows:
    def test_every_state_is_labelled_and_every_episode_played_both_ways(self, tmp_path):
        teacher = Teacher(EMBEDDED)
        folder = folder_of(teacher, tmp_path / "e")
        assert evaluated(teacher, folder) is None
        assert sorted(row.id for row in folder.labels) == list(range(6))
        assert {(row.policy, row.seed) for row in folder.episodes} == {
            (w, s) for w in ("argmax", "sampled") for s in (0, 1)
        }
        assert all(row.success and 0 < row.episodic_return <= 1 for row in folder.episodes if row.policy == "argmax")
        assert {file.stem for file in (tmp_path / "e/pictures").iterdir()} == {
            row.picture.digest for row in folder.labels
        }

    def test_a_label_holds_the_whole_conversation(self, tmp_path):
        teacher = Teacher(EMBEDDED)
        folder = folder_of(teacher, tmp_path / "e", states=1, episodes=0)
        evaluated(teacher, folder)
        (label,) = folder.labels
        first, second = label.exchanges
        assert (first.stage, second.stage) == ("analysis", "action")
        assert [(message.role, message.picture) for message in first.messages] == [
            ("system", None),
            ("user", label.picture),
        ]
        assert json.loads(first.reply) == label.analysis
        assert first.latency_s > 0 and first.prompt_tokens > 100 and first.cost_usd == 0
        assert (label.analysis["agent_row"], label.analysis["heading"]) == (label.truth.row, label.truth.heading)

    def test_truth_never_reaches_the_teacher(self, provider, tmp_path):
        teacher = Teacher("openai/gpt-4o-mini")
        folder = folder_of(teacher, tmp_path / "e", states=3, episodes=0)
        evaluated(teacher, folder)
        sent = " ".join(turn.text for exchange in provider.log for turn in exchange.seen.turns)
        assert "optimal" not in sent
        assert "'fatal'" not in sent and '"fatal"' not in sent

    def test_questions_are_put_side_by_side(self, provider, tmp_path):
        provider.latency = 0.3
        teacher = Teacher("openai/gpt-4o-mini", concurrency=8)
        evaluated(teacher, folder_of(teacher, tmp_path / "e", states=8, episodes=0), width=8)
        assert provider.peak_in_flight >= 6

    def test_answers_out_of_the_store_tell_what_they_cost_when_they_were_bought(self, provider, tmp_path):
        cards = []
        for name in ("one", "two"):
            teacher = Teacher("openai/gpt-4o-mini", store=tmp_path / "s.sqlite")
            folder = folder_of(teacher, tmp_path / name, states=4, episodes=0)
            evaluated(teacher, folder)
            cards.append(compute_metrics(folder.labels, [], run_views=10).price)
        assert len(provider.log) == 8
        assert cards[0] == cards[1]
        assert cards[0].usd_per_label == pytest.approx(provider.cost_usd / 4)
        assert all(label.cached for label in folder.labels)

    def test_an_environment_without_truth_gets_everything_else(self, provider, tmp_path):
        teacher = Teacher("openai/gpt-4o-mini")
        folder = folder_of(teacher, tmp_path / "e", "Blackjack-v1", states=3, episodes=1)
        assert evaluated(teacher, folder, "Blackjack-v1") is None
        found = compute_metrics(folder.labels, folder.episodes)
        assert provider.log
        assert found.analysis is found.action.agreement is None
        assert found.action.entropy > 0
        assert found.rollouts["sampled"].success is None
        assert found.rollouts["sampled"].episodic_return.n == 1


class TestFailures:
    def test_a_reply_that_stays_bad_is_a_row_and_its_actions_are_drawn_at_random(self, provider, tmp_path):
        provider.faults = lambda seen: FAULTS["sum_7"] if seen.asks_for_an_action and seen.digest[0] % 2 else None
        teacher = Teacher("openai/gpt-4o-mini")
        folder = folder_of(teacher, tmp_path / "e", states=8, episodes=1)
        assert evaluated(teacher, folder) is None
        found = compute_metrics(folder.labels, folder.episodes).replies
        assert 0 < found.failures < 8
        assert found.by_kind == {"sum": found.failures}
        assert found.bad_replies == 2 * found.failures
        spoilt = next(row for row in folder.labels if row.failure)
        assert spoilt.probs is None and spoilt.analysis is not None
        assert re.search(r"probabilities sum to (6\.99|7\b)", spoilt.exchanges[1].problem)
        assert sum(row.failures for row in folder.episodes) > 0

    def test_a_repaired_reply_counts_as_a_bad_one_and_its_label_as_a_good_one(self, provider, tmp_path):
        provider.faults = [FAULTS["malformed_json"]]
        teacher = Teacher("openai/gpt-4o-mini")
        folder = folder_of(teacher, tmp_path / "e", states=3, episodes=0)
        evaluated(teacher, folder)
        found = compute_metrics(folder.labels, []).replies
        assert (found.labels, found.failures, found.bad_replies) == (3, 0, 1)

    @pytest.mark.slow
    def test_a_teacher_that_always_fails_is_given_up_and_the_rows_are_kept(self, provider, tmp_path):
        provider.faults = lambda _: FAULTS["malformed_json"]
        teacher = Teacher("openai/gpt-4o-mini")
        folder = folder_of(teacher, tmp_path / "e", states=40, episodes=0)
        with pytest.raises(TeacherError, match="20 questions in a row"):
            evaluated(teacher, folder)
        assert len(folder.labels) >= 19

    def test_a_spent_budget_leaves_the_rest_for_the_next_time(self, provider, tmp_path):
        for calls, labels in ((7, 3), (None, 8)):
            teacher = Teacher("openai/gpt-4o-mini", budget_calls=calls)
            with folder_of(teacher, tmp_path / "e", states=8, episodes=0) as folder:
                problem = evaluated(teacher, folder, width=1)
            assert (problem is None) == (calls is None)
            assert len(folder.labels) == labels
        assert len(provider.log) == 16

    def test_a_fault_of_the_transport_is_no_row(self, provider):
        provider.faults = lambda seen: FAULTS["400"] if seen.asks_for_an_action else None
        teacher = Teacher("openai/gpt-4o-mini", max_retries=0)
        states = collect_states(make(), 2, seed=0)
        rows = []
        with pytest.raises((UnfinishedError, UsageError)):
            rows.extend(label_states(teacher, states, width=2))
        assert not rows


class TestResuming:
    def test_only_what_is_missing_is_done_and_the_end_is_the_same(self, tmp_path):
        teacher = Teacher(EMBEDDED + "?error=0.3")
        whole = folder_of(teacher, tmp_path / "whole", states=6, episodes=3)
        evaluated(teacher, whole)
        with folder_of(teacher, tmp_path / "part", states=6, episodes=3) as part:
            part.save(compute_metrics([], []), complete=False)
            for state in collect_states(make(), 3, seed=0):
                label = next(row for row in whole.labels if row.id == state.id)
                part.add_label(label.model_copy(update={"picture": with_lines(state.view.picture)}))
            part.add_episode(whole.episodes[2])
        again = folder_of(teacher, tmp_path / "part", states=6, episodes=3)
        seen = []
        evaluate(teacher, make, again, width=2, progress=lambda *step: seen.append(step))
        assert seen[0] == ("states", 3, 6)
        assert by_id(again) == by_id(whole)
        assert {(row.policy, row.seed): row for row in again.episodes} == {
            (r.policy, r.seed): r for r in whole.episodes
        }
        assert compute_metrics(again.labels, []).action == compute_metrics(whole.labels, []).action

    def test_half_a_line_at_the_end_is_dropped_and_done_again(self, tmp_path):
        teacher = Teacher(EMBEDDED)
        evaluated(teacher, folder_of(teacher, tmp_path / "e", states=4, episodes=1))
        file = tmp_path / "e/labels.jsonl"
        file.write_bytes(file.read_bytes()[:-100])
        folder = folder_of(teacher, tmp_path / "e", states=4, episodes=1)
        assert len(folder.labels) == 3
        evaluated(teacher, folder)
        assert len(file.read_text().splitlines()) == 4

    @pytest.mark.parametrize(
        "other", [{"states": 5}, {"episodes": 3}, {"seed": 1}, {"env_id": "MiniGrid-Empty-5x5-v0"}]
    )
    def test_other_arguments_are_refused_by_name(self, tmp_path, other):
        teacher = Teacher(EMBEDDED)
        evaluated(teacher, folder_of(teacher, tmp_path / "e", states=1, episodes=0))
        with pytest.raises(UsageError, match=f"{next(iter(other))} .*--out"):
            folder_of(teacher, tmp_path / "e", **({"states": 1, "episodes": 0} | other))

    def test_edited_prompts_are_other_arguments(self, tmp_path):
        (tmp_path / "mine").mkdir()
        for number, expected in ((0, None), (1, "fingerprint")):
            (tmp_path / "mine/repair.jinja").write_text(f"Again! {number}")
            teacher = Teacher(EMBEDDED, prompts=tmp_path / "mine")
            if expected:
                with pytest.raises(UsageError, match=expected):
                    folder_of(teacher, tmp_path / "e", states=1, episodes=0)
            else:
                evaluated(teacher, folder_of(teacher, tmp_path / "e", states=1, episodes=0))

    def test_states_of_another_version_are_not_mixed_in(self, tmp_path):
        teacher = Teacher(EMBEDDED)
        evaluated(teacher, folder_of(teacher, tmp_path / "e", states=1, episodes=0))
        file = tmp_path / "e/labels.jsonl"
        file.write_text(file.read_text().replace(json.loads(file.read_text())["picture"], "0" * 64))
        with pytest.raises(UsageError, match="not those that would be labelled now"):
            evaluated(teacher, folder_of(teacher, tmp_path / "e", states=1, episodes=0))

    def test_a_folder_of_something_else_is_left_alone(self, tmp_path):
        (tmp_path / "precious.txt").write_text("mine")
        with pytest.raises(UsageError, match="something else"):
            folder_of(Teacher(EMBEDDED), tmp_path)
        assert [file.name for file in tmp_path.iterdir() if not file.name.startswith("store.sqlite")] == [
            "precious.txt"
        ]


def by_id(folder):
    rows = sorted(folder.labels, key=lambda row: row.id)
    return [row.model_copy(update={"cached": False}) for row in rows]
