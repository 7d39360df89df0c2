"""How soft, how faithful and how imperfect the answers are."""

import itertools
import json
from collections import Counter

import gymnasium as gym
import minigrid  # noqa: F401  (registers the environments)
import numpy as np
import pytest

from tests.embedded_teacher.drawing import (
    ACTIONS,
    ANALYSIS_SCHEMA,
    action_schema,
    analyse,
    answer,
    best,
    lines_of,
    messages,
    picture_of,
    picture_of_map,
    read_options,
    read_request,
    response_format,
    weigh,
    weigh_map,
)

GOAL = "get to the green goal square"
DOORS = "# # # # #|# > dr . #|# dg # . #|# . . . #|# # # # #"
CORNER = "# # # # # #|# > . . . #|# . . . . #|# . . . G #|# # # # # #"


def situations(env_id, count, *, seed=0):
    """Picture and lines of different situations, from random play."""
    env = gym.make(env_id, disable_env_checker=True)
    rng, seen = np.random.default_rng(seed), set()
    for episode in itertools.count(seed):
        env.reset(seed=episode)
        for _ in range(60):
            view = picture_of(env), *lines_of(env)
            if view not in seen:
                seen.add(view)
                yield view
            if len(seen) == count:
                return
            _, _, ended, cut, _ = env.step(int(rng.integers(env.action_space.n)))
            if ended or cut:
                break


@pytest.mark.parametrize("tau", [0.05, 0.5, 3, 1000])
@pytest.mark.parametrize("env_id", ["MiniGrid-LavaGapS7-v0", "MiniGrid-Fetch-8x8-N3-v0", "MiniGrid-GoToDoor-8x8-v0"])
def test_probabilities_are_a_distribution_over_all_actions(env_id, tau):
    for view in situations(env_id, 20):
        weights = weigh(*view, model=f"minigrid-planner?tau={tau}")
        assert tuple(weights) == ACTIONS
        assert min(weights.values()) >= 0
        assert sum(weights.values()) == pytest.approx(1, abs=1e-5)


def test_a_larger_tau_is_softer():
    tops = [max(weigh_map(CORNER, GOAL, model=f"minigrid-planner?tau={tau}").values()) for tau in (0.1, 0.5, 1, 2, 5)]
    assert tops == sorted(tops, reverse=True)
    assert tops[0] - tops[-1] > 0.5


def test_each_further_step_costs_the_same_factor():
    weights = weigh_map("# # # # # #|# > . . G #|# # # # # #", GOAL, model="minigrid-planner?tau=2")
    assert weights["left"] / weights["forward"] == pytest.approx(np.exp(-2 / 2), rel=1e-3)


def test_a_deadly_action_stays_deadly_however_soft_the_answer():
    room = "# # # # #|# > ~ G #|# . . . #|# # # # #"
    for tau in (0.1, 1, 100):
        assert weigh_map(room, GOAL, model=f"minigrid-planner?tau={tau}")["forward"] <= 0.005


def test_only_the_actions_asked_for_are_weighed_whatever_they_are_called():
    weights = weigh_map(CORNER, GOAL, actions=("Turn_Left", "turn_right", "move_forward", "jump"))
    assert best(weights) == {"move_forward"}
    assert weights["jump"] < 0.05


def test_the_second_stage_follows_the_heading_of_the_first():
    picture = picture_of_map("# # # # #|# > . G #|# # # # #")
    analysis = analyse(picture, f"Mission: {GOAL}")
    assert best(weigh(picture, f"Mission: {GOAL}", f"Analysis: {json.dumps(analysis)}")) == {"forward"}
    analysis["heading"] = "down"
    assert best(weigh(picture, f"Mission: {GOAL}", f"Analysis: {json.dumps(analysis)}")) == {"left"}


def test_the_second_stage_follows_the_cell_of_the_first():
    picture = picture_of_map("# # # #|# > . #|# . . #|# . G #|# # # #")
    claim = json.dumps({"agent_row": 1, "agent_column": 2, "heading": "right"})
    assert best(weigh(picture, f"Mission: {GOAL}")) == {"forward"}
    assert best(weigh(picture, f"Mission: {GOAL}", f"Analysis: {claim}")) == {"right"}


@pytest.mark.parametrize(
    ("mission", "what", "real"),
    [("fetch a red ball", "red ball", "br"), ("go to the red key", "red key", "kr"), (GOAL, "green goal square", "G")],
)
def test_the_second_stage_follows_the_target_of_the_first(mission, what, real):
    picture = picture_of_map(f"# # # # #|# . . . #|# . > . {real}|# . . . #|# # # # #".replace(f"{real}|", "#|", 1))
    claim = json.dumps({"targets": [{"what": what, "row": 2, "column": 1}]})
    weights = weigh(picture, f"Mission: {mission}", f"Analysis: {claim}")
    assert best(weights) == {"left", "right"}


@pytest.mark.parametrize("claim", ["{}", '{"agent_row": 99, "heading": "sideways"}', '{"targets": [3, {"row": "x"}]}'])
def test_what_the_first_stage_leaves_open_is_read_from_the_picture(claim):
    picture = picture_of_map("# # # # #|# > . G #|# # # # #")
    assert weigh(picture, f"Mission: {GOAL}", f"Analysis: {claim}") == weigh(picture, f"Mission: {GOAL}")


def test_an_agent_said_to_stand_in_a_wall_gets_an_answer_all_the_same():
    claim = json.dumps({"agent_row": 0, "agent_column": 0})
    weights = weigh(picture_of_map(CORNER), f"Mission: {GOAL}", f"Analysis: {claim}")
    assert sum(weights.values()) == pytest.approx(1, abs=1e-5)


def optimal(weights, right):
    return bool(best(weights) & best(right))


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_the_share_of_errors_is_the_one_that_was_asked_for(share):
    views = list(situations("MiniGrid-Fetch-8x8-N3-v0", 200))
    wrong = sum(not optimal(weigh(*view, model=f"minigrid-planner?error={share}"), weigh(*view)) for view in views)
    assert wrong / 200 == pytest.approx(share, abs=4 * (share * (1 - share) / 200) ** 0.5)


def test_errors_are_spread_over_all_wrong_actions():
    views = list(situations("MiniGrid-Fetch-8x8-N3-v0", 80))
    drawn = Counter(
        max(weights, key=weights.get) for weights in (weigh(*view, model="minigrid-planner?error=1") for view in views)
    )
    assert set(drawn) == set(ACTIONS)


def test_the_same_situation_goes_wrong_in_the_same_way_whatever_the_prompt():
    for picture, mission, carrying in situations("MiniGrid-Fetch-8x8-N3-v0", 40):
        model = "minigrid-planner?error=0.5&noise_seed=3"
        assert weigh(picture, mission, carrying, model=model) == weigh(
            picture, "Please think.", carrying.upper(), mission, "Now answer.", model=model
        )


def test_another_noise_seed_makes_other_situations_go_wrong():
    views = list(situations("MiniGrid-Fetch-8x8-N3-v0", 60))
    wrong = [
        {
            n
            for n, view in enumerate(views)
            if not optimal(weigh(*view, model=f"minigrid-planner?error=0.3&noise_seed={seed}"), weigh(*view))
        }
        for seed in (1, 2)
    ]
    assert wrong[0] != wrong[1]
    assert all(5 < len(some) < 35 for some in wrong)


def test_misreading_moves_or_turns_the_agent_in_the_share_that_was_asked_for():
    kinds = Counter()
    for view in situations("MiniGrid-Fetch-8x8-N3-v0", 120):
        truth, told = analyse(*view), analyse(*view, model="minigrid-planner?misread=0.5")
        turned = truth["heading"] != told["heading"]
        moved = (truth["agent_row"], truth["agent_column"]) != (told["agent_row"], told["agent_column"])
        kinds[turned, moved] += 1
        assert truth["targets"] == told["targets"]
    assert kinds[True, True] == 0
    assert 40 < kinds[True, False] + kinds[False, True] < 80
    assert min(kinds[True, False], kinds[False, True]) > 12


def test_a_misread_heading_misleads_the_second_stage_but_not_one_that_stands_alone():
    model, misled = "minigrid-planner?misread=1", 0
    for view in situations("MiniGrid-Fetch-8x8-N3-v0", 40):
        told = json.dumps(analyse(*view, model=model))
        misled += not optimal(weigh(*view, f"Analysis: {told}", model=model), weigh(*view))
        assert weigh(*view, model=model) == weigh(*view)
    assert misled > 8


def test_a_confused_heading_is_taken_for_the_other_in_every_state_and_no_other_heading_is():
    model = "minigrid-planner?confuse=up:down"
    for view in situations("MiniGrid-Fetch-8x8-N3-v0", 60):
        truth, told = analyse(*view), analyse(*view, model=model)
        assert told["heading"] == ("down" if truth["heading"] == "up" else truth["heading"])
        assert all(told[name] == truth[name] for name in ("agent_row", "agent_column", "targets", "obstacles"))


@pytest.mark.parametrize("analysed", [True, False])
def test_a_confused_heading_misleads_the_second_stage_once(analysed):
    model = "minigrid-planner?confuse=up:down"
    view = picture_of_map("# # # # #|# . . . #|# . ^ G #|# . . . #|# # # # #"), f"Mission: {GOAL}"
    lines = [f"Analysis: {json.dumps(analyse(*view, model=model))}"] if analysed else []
    assert best(weigh(*view)) == {"right"}
    assert best(weigh(*view, *lines, model=model)) == {"left"}


@pytest.mark.parametrize(
    ("unseen", "room", "mission", "seeing", "blind"),
    [
        ("lava", "# # # # #|# > ~ G #|# . . . #|# # # # #", GOAL, {"right"}, {"forward"}),
        ("wall", "# # # # #|# > # G #|# . . . #|# # # # #", GOAL, {"right"}, {"forward"}),
        ("ball", "# # # # #|# > br . #|# . . kr #|# # # # #", "fetch a red key", {"right"}, {"forward"}),
        ("red door", DOORS, "open the red door", {"toggle"}, {"forward"}),
        ("green door", DOORS, "open the red door", {"toggle"}, {"toggle"}),
    ],
)
@pytest.mark.parametrize("analysed", [True, False])
def test_a_kind_of_thing_to_which_it_is_blind_is_empty_floor_to_it(unseen, room, mission, seeing, blind, analysed):
    model = f"minigrid-planner?blind={unseen.replace(' ', '+')}"
    view = picture_of_map(room), f"Mission: {mission}"
    analysis = analyse(*view, model=model)
    lines = [f"Analysis: {json.dumps(analysis)}"] if analysed else []
    assert unseen not in json.dumps(analysis)
    assert best(weigh(*view)) == seeing
    weights = weigh(*view, *lines, model=model)
    assert best(weights) == blind


def test_blindness_to_walls_ends_at_the_edge_of_the_picture():
    weights = weigh_map("# # #|# > #|# # #", GOAL, model="minigrid-planner?blind=wall")
    assert sum(weights.values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("error", ["confuse=right:up", "blind=wall"])
def test_label_noise_strikes_in_the_same_states_beside_a_systematic_error(error):
    def struck(view, model):
        clean, noisy = weigh(*view, model=model), weigh(*view, model=f"{model}&error=0.5")
        return clean != noisy

    for view in situations("MiniGrid-Fetch-8x8-N3-v0", 30):
        assert struck(view, f"minigrid-planner?{error}") == struck(view, "minigrid-planner?tau=0.5")


def test_it_says_that_it_is_no_language_model():
    request = read_request(messages(picture_of_map(CORNER)), response_format(ANALYSIS_SCHEMA))
    assert "not a language model" in json.loads(answer(request, read_options("minigrid-planner")))["summary"]


def test_it_admits_that_it_knows_no_plan():
    walled_in = picture_of_map("# # # # #|# > # G #|# # # # #")
    request = read_request(messages(walled_in, f"Mission: {GOAL}"), response_format(action_schema()))
    assert "No plan to the end is known" in json.loads(answer(request, read_options("minigrid-planner")))["reasoning"]
