"""``lvlm2p estimate``: how many views, how many tokens, and what is paid already."""

import json
from dataclasses import replace

import gymnasium as gym
import pytest
from minigrid.envs.babyai import GoToLocal

from lvlm2p_wrappers import TeacherWrapper
from lvlm2p_wrappers.cli import main
from lvlm2p_wrappers.cli.estimate import roll_out, tokens_of
from lvlm2p_wrappers.prompts import PromptSet
from lvlm2p_wrappers.store import Store, calls
from lvlm2p_wrappers.views import EpisodeMemory, viewer

EMPTY = "MiniGrid-Empty-5x5-v0"  # 8 cells that are not the goal, 4 headings
EMBEDDED = "embedded/minigrid-planner?error=0.1"


@pytest.fixture
def estimate(capsys):
    """Runs ``lvlm2p estimate ... --json``, which has to succeed, and returns what it prints."""

    def run(env_id=EMPTY, model="openai/gpt-4o-mini", timesteps=20_000, *args):
        command = ["estimate", env_id, "--model", model, "--total-timesteps", str(timesteps), "--json", *args]
        assert main(command) == 0
        return json.loads(capsys.readouterr().out)

    return run


def seen(env_id, frames, seed=1, history=0):
    env = gym.make(env_id, render_mode="rgb_array")
    return roll_out(env, viewer(env), frames, seed=seed, memory=EpisodeMemory(history=history))


class TestDistinctViews:
    def test_an_environment_with_few_states_is_known_after_a_few_frames(self):
        assert seen(EMPTY, 3000).distinct_views(10**6).tolist() == [32, 32]

    def test_where_every_episode_has_a_new_layout_a_skilled_student_sees_a_new_view_a_frame(self):
        low, high = seen("MiniGrid-Fetch-6x6-N2-v0", 2000).distinct_views(20_000)
        assert low < 1_000
        assert 15_000 < high <= 20_000

    @pytest.mark.parametrize(
        ("env_id", "views"),
        [("MiniGrid-LavaGapS7-v0", 858), pytest.param("MiniGrid-Fetch-6x6-N2-v0", 13_244, marks=pytest.mark.slow)],
    )
    def test_what_a_student_saw_in_20000_frames_lies_between(self, env_id, views):
        """The numbers are of students that `algos/ppo_lvlm2p.py` trained with the embedded teacher."""
        for seed in (1, 2, 3):
            low, high = seen(env_id, 5_000, seed).distinct_views(20_000)
            assert low < views < high

    @pytest.mark.parametrize("env_id", ["MiniGrid-LavaGapS5-v0", "MiniGrid-Fetch-6x6-N2-v0"])
    def test_what_a_random_policy_sees_in_a_longer_run_lies_between(self, env_id):
        short, long = seen(env_id, 1000), seen(env_id, 4000, seed=99)
        low, high = short.distinct_views(4000)
        assert low <= len(long.views) <= high

    def test_a_run_as_long_as_the_rollout_shows_at_least_what_that_showed(self):
        rollout = seen("MiniGrid-LavaGapS7-v0", 500)
        assert rollout.distinct_views(500)[0] == len(rollout.views)

    def test_views_that_are_paid_for_are_left_out_of_both_ends(self):
        rollout = seen("MiniGrid-LavaGapS7-v0", 1000)
        rollout.stored = set(rollout.views[::2])
        every, unpaid = rollout.distinct_views(20_000), rollout.distinct_views(20_000, unpaid=True)
        assert unpaid[0] == len(rollout.views) // 2
        assert unpaid[1] < every[1]
        rollout.stored = set(rollout.views)
        assert rollout.distinct_views(20_000, unpaid=True).tolist() == [0, 0]

    def test_the_same_seed_sees_the_same(self):
        one, two = (seen("MiniGrid-Fetch-6x6-N2-v0", 200, seed) for seed in (5, 5))
        assert one.views == two.views
        assert seen("MiniGrid-Fetch-6x6-N2-v0", 200, seed=6).views != one.views

    def test_a_history_multiplies_the_views(self):
        assert len(seen(EMPTY, 500, history=2).views) > 3 * len(seen(EMPTY, 500).views)

    def test_environments_without_a_state_key_are_told_apart_by_their_pictures(self):
        assert 5 < len(seen("FrozenLake-v1", 300).views) <= 16


class TestTokens:
    def test_text_and_pictures_are_counted_by_rules_of_thumb(self):
        env = gym.make("MiniGrid-LavaGapS7-v0")
        env.reset(seed=0)
        question = PromptSet(None, "minigrid").analysis(viewer(env).view())
        blind = question._replace(messages=tuple(replace(message, picture=None) for message in question.messages))
        with_picture, without = (tokens_of([asked]).prompt for asked in (question, blind))
        assert with_picture - without == pytest.approx([85, 1200])
        text = sum(len(message.text) for message in question.messages)
        assert text / 4.5 < without[0] < text / 4 < without[1]


class TestEstimate:
    def test_it_adds_up(self, estimate):
        found = estimate()
        assert found["distinct_views"] == found["new_views"] == {"low": 32, "high": 32}
        assert found["calls"] == {"low": 64, "high": 64}
        sent, received, usd = found["prompt_tokens"], found["reply_tokens"], found["usd"]
        assert usd["high"] == pytest.approx(0.15e-6 * sent["high"] + 0.6e-6 * received["high"], rel=1e-3)
        assert usd["low"] == pytest.approx(0.15e-6 * sent["low"] + 0.6e-6 * received["low"], rel=1e-3)
        assert found["seconds"] == {"low": 64 / 16, "high": 3 * 64 / 16}
        assert found["usd_at_most"] > usd["high"]

    def test_it_fits_what_the_embedded_teacher_then_bills(self, estimate):
        run(200)
        with_log = estimate(model=EMBEDDED)
        assert "as billed for" in with_log["tokens_from"]["action"]
        guessed = estimate(EMPTY, EMBEDDED, 20_000, "--store", "elsewhere.sqlite")
        assert "characters a token" in guessed["tokens_from"]["action"]
        billed = spent()
        assert guessed["prompt_tokens"]["low"] / 64 < billed < guessed["prompt_tokens"]["high"] / 64

    def test_what_the_store_has_is_not_paid_for_again(self, estimate):
        assert estimate(model=EMBEDDED)["measured"]["stored"] == 0
        run(40)
        some = estimate(model=EMBEDDED)
        assert 0 < some["measured"]["stored"] < 32
        assert some["new_views"]["low"] == 32 - some["measured"]["stored"]
        run(3000)
        everything = estimate(model=EMBEDDED)
        assert everything["distinct_views"] == {"low": 32, "high": 32}
        assert everything["calls"] == {"low": 0, "high": 0}
        assert estimate(model=EMBEDDED.replace("0.1", "0.2"))["measured"]["stored"] == 0

    def test_a_set_of_one_stage_costs_half_the_calls(self, estimate, tmp_path):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/set.toml").write_text("stages = 1")
        found = estimate(EMPTY, "openai/gpt-4o-mini", 20_000, "--prompts", str(tmp_path / "mine"))
        assert found["calls"] == {"low": 32, "high": 32}
        assert list(found["tokens_from"]) == ["action"]

    def test_it_looks_without_making_a_store(self, estimate, tmp_path):
        estimate()
        assert not (tmp_path / "store.sqlite").exists()

    def test_a_model_without_a_price_gets_calls_and_tokens(self, estimate, capsys):
        found = estimate(model="openai/a-model-of-our-own")
        assert found["usd"] is None
        assert found["calls"]["low"] == 64
        main(["estimate", EMPTY, "--model", "openai/a-model-of-our-own", "--total-timesteps", "9"])
        assert "LiteLLM has no price for this model: it may be free" in capsys.readouterr().out

    def test_a_retired_model_is_said_to_be_retired(self, capsys):
        main(["estimate", EMPTY, "--model", "gemini/gemini-1.5-flash", "--total-timesteps", "9"])
        assert (
            "gemini-1.5-flash is retired; the nearest today is gemini/gemini-2.5-flash-lite" in capsys.readouterr().out
        )

    def test_people_get_a_table_that_says_what_it_rests_on(self, capsys):
        main(["estimate", EMPTY, "--model", "gemini/gemini-2.5-flash-lite", "--total-timesteps", "20000"])
        shown = capsys.readouterr().out
        for part in (
            "distinct views",
            "calls ",
            "US dollars",
            "random policy",
            "85 to 1,200 tokens a picture",
        ):
            assert part in shown

    def test_what_an_environment_prints_stays_out_of_the_output(self, estimate, monkeypatch):
        def noisy(self, *args, **kwargs):
            print("Sampling rejected")
            return original(self, *args, **kwargs)

        original = GoToLocal.gen_mission
        monkeypatch.setattr(GoToLocal, "gen_mission", noisy)
        assert estimate("BabyAI-GoToLocal-v0", timesteps=50)["measured"]["frames"] == 50

    @pytest.mark.parametrize(
        ("env_id", "model", "said"),
        [
            ("MiniGrid-LavaGapS9-v0", "openai/gpt-4o-mini", "Did you mean: `MiniGrid-LavaGapS"),
            ("no_such_module:Maze-v0", "openai/gpt-4o-mini", "No module named 'no_such_module'"),
            ("Pendulum-v1", "openai/gpt-4o-mini", "needs a Discrete one"),
            (EMPTY, "nobody/knows", "names no provider that LiteLLM knows"),
            (EMPTY, "gemini-2.5-flash", "write 'gemini/gemini-2.5-flash'"),
        ],
    )
    def test_a_mistake_is_explained_and_exits_with_2(self, capsys, env_id, model, said):
        assert main(["estimate", env_id, "--model", model, "--total-timesteps", "100"]) == 2
        assert said in capsys.readouterr().err

    def test_a_broken_prompt_set_is_explained_and_exits_with_2(self, capsys, tmp_path):
        (tmp_path / "action.user.jinja").write_text("{{ misson }}")
        command = ["estimate", EMPTY, "--model", "openai/gpt-4o-mini", "--total-timesteps", "100"]
        assert main([*command, "--prompts", str(tmp_path)]) == 2
        assert "'misson' is undefined" in capsys.readouterr().err


def run(frames):
    """A random policy under the embedded teacher, with the default store."""
    env = TeacherWrapper(gym.make(EMPTY), EMBEDDED)
    env.reset(seed=1)
    env.action_space.seed(1)
    for _ in range(frames):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()


def spent():
    """Prompt tokens per call, as logged in the default store."""
    with Store() as store:
        counts = [logged.call.prompt_tokens for logged in calls(store)]
    return sum(counts) / len(counts)
