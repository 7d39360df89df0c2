"""The states that teachers label."""

from collections import Counter

import gymnasium as gym
import pytest

from lvlm2p_wrappers.evaluation import collect_states


def states(env_id, count, seed=0):
    return collect_states(gym.make(env_id, render_mode="rgb_array"), count, seed=seed)


def gist(found):
    return [(s.id, s.source, s.seed, s.step, s.view.picture.digest, s.view.mission, s.truth) for s in found]


def test_they_follow_from_environment_and_seed_alone():
    first = gist(states("MiniGrid-Fetch-6x6-N2-v0", 20))
    assert gist(states("MiniGrid-Fetch-6x6-N2-v0", 20)) == first
    assert gist(states("MiniGrid-Fetch-6x6-N2-v0", 20, seed=1)) != first


def test_more_of_them_begin_with_the_same_ones():
    assert gist(states("MiniGrid-LavaGapS7-v0", 24))[:12] == gist(states("MiniGrid-LavaGapS7-v0", 12))


def test_they_come_from_all_three_policies_and_no_two_are_alike():
    found = states("MiniGrid-LavaGapS7-v0", 60)
    counts = Counter(state.source for state in found)
    assert all(16 <= counts[source] <= 24 for source in ("random", "noisy_expert", "expert"))
    assert len({(state.view.picture.digest, state.view.mission, state.view.carrying) for state in found}) == 60


def test_a_state_is_found_again_by_its_seed_where_the_episode_begins():
    env = gym.make("MiniGrid-Fetch-6x6-N2-v0")
    first = next(state for state in states("MiniGrid-Fetch-6x6-N2-v0", 30) if state.step == 0)
    env.reset(seed=first.seed)
    assert env.unwrapped.mission == first.view.mission
    assert env.unwrapped.agent_pos == (first.truth.column, first.truth.row)


def test_an_environment_with_few_states_gives_those_it_has():
    """Empty-5x5 has 8 cells that are not the goal, and 4 headings."""
    assert len(states("MiniGrid-Empty-5x5-v0", 200)) == 32


def test_without_ground_truth_all_states_are_random_ones():
    found = states("Blackjack-v1", 8)
    assert {state.source for state in found} == {"random"}
    assert {state.truth for state in found} == {None}


@pytest.mark.parametrize("env_id", ["MiniGrid-GoToDoor-6x6-v0", "MiniGrid-Dynamic-Obstacles-6x6-v0"])
def test_they_hold_situations_in_which_something_can_be_lost(env_id):
    assert sum(bool(state.truth.fatal) for state in states(env_id, 30)) >= 5
