"""One rule of MiniGrid at a time, on maps drawn for it."""

import gymnasium as gym
import minigrid  # noqa: F401  (registers the environments)
import numpy as np
import pytest

from tests.embedded_teacher.drawing import analyse, best, lines_of, picture_of, picture_of_map, weigh, weigh_map

GOAL = "get to the green goal square"
MOVES = ("left", "right", "forward")


def test_it_walks_straight_to_a_goal_ahead():
    assert best(weigh_map("# # # # #|# > . G #|# # # # #", GOAL)) == {"forward"}


def test_it_turns_the_shorter_way():
    assert best(weigh_map("# # # #|# > . #|# . . #|# G . #|# # # #", GOAL)) == {"right"}
    assert best(weigh_map("# # # #|# < . #|# . . #|# G . #|# # # #", GOAL)) == {"left"}


def test_both_ways_round_are_equally_good_for_a_goal_behind():
    assert best(weigh_map("# # # # #|# G . > #|# # # # #", GOAL)) == {"left", "right"}


def test_lava_ahead_gets_next_to_nothing_though_the_goal_lies_behind_it():
    weights = weigh_map("# # # # #|# > ~ G #|# . . . #|# # # # #", "avoid the lava and get to the green goal square")
    assert best(weights) == {"right"}
    assert weights["forward"] <= 0.005


def test_a_closed_door_on_the_way_is_opened():
    assert best(weigh_map("# # # # #|# > dr G #|# # # # #", GOAL)) == {"toggle"}


def test_an_open_door_is_walked_through_and_not_closed():
    weights = weigh_map("# # # # #|# > or G #|# # # # #", GOAL)
    assert best(weights) == {"forward"}
    assert weights["toggle"] < 0.05


LOCKED = "# # # # # # #|# ky . {} ly G #|# # # # # # #"


def test_a_door_that_is_locked_needs_its_key():
    assert best(weigh_map(LOCKED.format("<"), GOAL)) == {"forward"}
    assert best(weigh_map(LOCKED.format(">"), GOAL)) == {"left", "right"}
    assert best(weigh_map(LOCKED.format(">").replace("ky", "."), GOAL, "a yellow key")) == {"toggle"}


def test_a_key_of_another_color_is_put_away_and_the_right_one_fetched():
    room = "# # # # # # #|# . . > ly G #|# ky . . # # #|# # # # # # #"
    weights = weigh_map(room, GOAL, "a red key")
    assert weights["toggle"] < 0.05
    assert "forward" not in best(weights)


def test_a_key_ahead_is_picked_up():
    assert best(weigh_map("# # # # # #|# ky < ly G #|# # # # # #", GOAL)) == {"pickup"}


def test_a_box_is_opened_where_a_key_is_nowhere_to_be_seen():
    assert best(weigh_map("# # # # # #|# xe < ly G #|# # # # # #", GOAL)) == {"toggle"}


def test_a_ball_that_blocks_the_only_way_is_picked_up():
    assert best(weigh_map("# # # # # # #|# . > bb # # #|# . . # . G #|# # # dr # # #", GOAL)) != {"pickup"}
    assert best(weigh_map("# # # # # #|# > bb . G #|# # # # # #", GOAL, actions=(*MOVES, "pickup", "drop"))) == {
        "pickup"
    }


def test_a_way_round_is_better_than_clearing_the_way():
    weights = weigh_map("# # # # # #|# > bb . G #|# . . . . #|# # # # # #", GOAL, actions=(*MOVES, "pickup", "drop"))
    assert best(weights) == {"right"}


def test_the_wrong_thing_is_not_fetched():
    weights = weigh_map("# # # # #|# > kr bb #|# . . . #|# # # # #", "fetch a blue ball")
    assert weights["pickup"] <= 0.005
    assert best(weights) == {"right"}
    assert best(weigh_map("# # # # #|# > bb kr #|# . . . #|# # # # #", "go get a blue ball")) == {"pickup"}


DOORS = "# # dr # #|# {} . . #|dg . . . db|# . . . #|# # dy # #"


def test_done_is_said_beside_the_right_door_whichever_way_one_looks():
    weights = weigh_map(DOORS.replace("{} .", ". <"), "go to the red door")
    assert best(weights) == {"done"}
    assert weights["toggle"] <= 0.005


def test_done_and_toggle_elsewhere_would_end_the_episode():
    weights = weigh_map(DOORS.format(">"), "go to the yellow door")
    assert weights["done"] <= 0.005
    assert weights["toggle"] <= 0.005


def test_going_to_a_thing_ends_facing_it():
    assert best(weigh_map("# # # # #|# > kr . #|# . . . #|# # # # #", "go to the red key")) == {"done"}
    assert best(weigh_map("# # # # #|# v kr . #|# . . . #|# # # # #", "go to the red key")) == {"left"}


def test_the_red_door_is_opened_before_the_blue_one():
    mission = "open the red door then the blue door"
    weights = weigh_map("# # # # #|# dr > db #|# # # # #", mission)
    assert best(weights) == {"left", "right"}
    assert weights["toggle"] <= 0.005
    assert best(weigh_map("# # # # #|# or > db #|# # # # #", mission)) == {"toggle"}


@pytest.mark.parametrize(
    ("mission", "expected"),
    [
        ("open the red door, then open the blue door", {"left", "right"}),
        ("open the blue door after you open the red door", {"left", "right"}),
        ("open the blue door, then open the red door", {"toggle"}),
        ("open the red door after you open the blue door", {"toggle"}),
    ],
)
def test_parts_of_a_mission_are_done_in_their_order(mission, expected):
    assert best(weigh_map("# # # # #|# dr > db #|# # # # #", mission)) == expected


def test_a_thing_is_fetched_and_then_put_next_to_another():
    mission = "put the red key next to the blue ball"
    assert best(weigh_map("# # # # # #|# > kr . bb #|# . . . . #|# # # # # #", mission)) == {"pickup"}
    assert best(weigh_map("# # # # # #|# > . . bb #|# . . . . #|# # # # # #", mission, "a red key")) == {"forward"}
    assert best(weigh_map("# # # # # #|# . > . bb #|# . . . . #|# # # # # #", mission, "a red key")) == {"drop"}


def test_dropping_far_from_the_place_ends_put_near():
    room = "# # # # # #|# > . . bb #|# . . . . #|# # # # # #"
    assert weigh_map(room, "put the red key near the blue ball", "a red key")["drop"] <= 0.005


def test_the_matching_object_of_the_first_room_is_chosen():
    env = gym.make("MiniGrid-MemoryS7-v0")
    for seed in range(5):
        env.reset(seed=seed)
        (target,) = analyse(picture_of(env), *lines_of(env))["targets"]
        assert (target["column"], target["row"]) == env.unwrapped.success_pos


def test_without_a_mission_it_goes_for_the_goal_and_else_for_the_nearest_thing():
    assert best(weigh_map("# # # # #|# > . G #|# # # # #", "")) == {"forward"}
    assert best(weigh_map("# # # # # # # #|# br > . . . bb #|# # # # # # # #", "")) <= {"left", "right"}
    assert sum(weigh_map("# # # #|# > . #|# # # #", "").values()) == pytest.approx(1, abs=1e-5)


BALLS = "# # # # #|# {} #|# . . . #|# . . G #|# # # # #"


def test_it_never_walks_at_a_ball_that_moves_nor_at_a_wall():
    for ahead in ("> bb .", "v bb .", "^ . bb"):
        weights = weigh_map(BALLS.format(ahead), GOAL, actions=MOVES)
        assert (weights["forward"] <= 0.005) == (ahead != "v bb .")


def test_a_ball_that_may_jump_into_the_way_makes_going_on_a_little_worse():
    alone = weigh_map("# # # # # #|# > . . G #|# . . . . #|# . . . bb #|# # # # # #", GOAL, actions=MOVES)
    close = weigh_map("# # # # # #|# > . . G #|# . . bb . #|# . . . . #|# # # # # #", GOAL, actions=MOVES)
    assert best(alone) == best(close) == {"forward"}
    assert close["forward"] < alone["forward"]


def test_moving_balls_are_hazards_and_balls_that_lie_still_are_not():
    moving = picture_of_map("# # # #|# > bb #|# . G #|# # # #")
    still = picture_of_map("# # # #|# > bb #|# . kr #|# # # #")
    assert [place["what"] for place in analyse(moving)["hazards"]] == ["blue ball"]
    assert analyse(still)["hazards"] == []


def play(env_id, seeds, *, sampled=False, **options):
    """Share of episodes that end with a reward, following the planner through both of its stages."""
    env = gym.make(env_id, disable_env_checker=True)
    rng, wins = np.random.default_rng(0), 0
    names = ("left", "right", "forward", "pickup", "drop", "toggle", "done")[: env.action_space.n]
    for seed in seeds:
        env.reset(seed=seed)
        ended = cut = False
        while not (ended or cut):
            weights = list(weigh(picture_of(env), *lines_of(env), actions=names, **options).values())
            chance = np.array(weights) / sum(weights)
            _, reward, ended, cut, _ = env.step(int(rng.choice(len(names), p=chance) if sampled else np.argmax(chance)))
        wins += reward > 0
    return wins / len(seeds)


@pytest.mark.parametrize(
    "env_id",
    [
        "MiniGrid-LavaGapS7-v0",
        "MiniGrid-Fetch-8x8-N3-v0",
        "MiniGrid-GoToDoor-8x8-v0",
        "MiniGrid-Dynamic-Obstacles-6x6-v0",
        "MiniGrid-DoorKey-6x6-v0",
        "MiniGrid-BlockedUnlockPickup-v0",
    ],
)
def test_it_succeeds_when_it_plays_its_most_probable_action(env_id):
    assert play(env_id, range(5)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "env_id",
    [
        "MiniGrid-Empty-8x8-v0",
        "MiniGrid-FourRooms-v0",
        "MiniGrid-LavaCrossingS9N2-v0",
        "MiniGrid-MultiRoom-N4-S5-v0",
        "MiniGrid-Unlock-v0",
        "MiniGrid-UnlockPickup-v0",
        "MiniGrid-KeyCorridorS3R3-v0",
        "MiniGrid-PutNear-8x8-N3-v0",
        "MiniGrid-GoToObject-8x8-N2-v0",
        "MiniGrid-RedBlueDoors-6x6-v0",
        "MiniGrid-LockedRoom-v0",
        "MiniGrid-MemoryS13-v0",
        "MiniGrid-ObstructedMaze-1Dlhb-v0",
        "BabyAI-GoToLocal-v0",
        "BabyAI-PickupDist-v0",
        "BabyAI-OpenTwoDoors-v0",
        "BabyAI-PutNextLocal-v0",
        "BabyAI-MoveTwoAcrossS5N2-v0",
        "BabyAI-KeyInBox-v0",
        "BabyAI-UnlockToUnlock-v0",
    ],
)
def test_it_finds_its_way_through_the_other_families(env_id):
    assert play(env_id, range(10)) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    "env_id",
    [
        "MiniGrid-LavaGapS7-v0",
        "MiniGrid-Fetch-8x8-N3-v0",
        "MiniGrid-GoToDoor-8x8-v0",
        "MiniGrid-Dynamic-Obstacles-6x6-v0",
    ],
)
def test_its_sampled_actions_succeed_almost_always(env_id):
    assert play(env_id, range(100), sampled=True) >= 0.95
