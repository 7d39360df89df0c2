"""The few-shot examples of the minigrid set are true by the environments' own rules.

Each situation is built in a real environment, from its words or by the actions that lead to its picture. There every
action is tried, and the shortest way to success after each is searched: the probabilities have to be those of the scale
that the action template states.
"""

import math
import re
import tomllib
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import gymnasium as gym
import pytest
from minigrid.core.grid import Grid
from minigrid.core.world_object import Ball, Box, Door, Goal, Key, Lava, Wall
from minigrid.envs.babyai.core.verifier import GoToInstr, ObjDesc, OpenInstr
from minigrid.envs.memory import MemoryEnv

from lvlm2p_wrappers.embedded_teacher.action_probabilities import extra_steps
from lvlm2p_wrappers.embedded_teacher.goals import target_cells
from lvlm2p_wrappers.embedded_teacher.mission import current_instruction
from lvlm2p_wrappers.embedded_teacher.transition import step
from lvlm2p_wrappers.evaluation.ground_truth import scene_of
from lvlm2p_wrappers.prompts import PromptSet, bundled_prompts
from lvlm2p_wrappers.prompts.options import by_task
from lvlm2p_wrappers.schemas import analysis_form

EXAMPLES = tomllib.loads((bundled_prompts() / "minigrid/examples.toml").read_text())["example"]
IN_WORDS = [example for example in EXAMPLES if "picture" not in example]
PICTURED = [example for example in EXAMPLES if "picture" in example]
HEADINGS = ["right", "down", "left", "up"]
ACTIONS = ["left", "right", "forward", "pickup", "drop", "toggle", "done"]
DETOUR = 4  # the search ends so many steps after the best; an action that costs more must have no probability

WALL = Wall()


def row(number, columns):
    return [(number, column) for column in range(columns)]


def column(number, rows, *, door=None):
    return [(row, number) for row in range(rows) if row != door]


@dataclass
class Setting:
    """What a situation leaves unsaid: the environment, the size of its grid, inner walls, and how the mission is kept.

    ``mission`` sets the attributes that the environment checks success by; it is given the environment, the mission's
    words, and the things by name with their cells.
    """

    env_id: str
    columns: int
    rows: int
    walls: list = field(default_factory=list)
    things: str = ""  # written as in a situation
    mission: Callable[..., None] = lambda *_: None


def fetch(env, words, things):  # noqa: ARG001
    env.targetColor, env.targetType = re.search(r"fetch a (\w+) (\w+)", words).groups()


def go_to_door(env, words, things):
    _, env.target_pos = things[re.search(r"the (\w+ door)", words)[1]]
    env.target_color = words.split()[-2]


def go_to_object(env, words, things):
    _, env.target_pos = things[re.search(r"the (\w+ \w+)", words)[1]]


def put_near(env, words, things):
    env.moveColor, env.move_type, target = re.search(r"the (\w+) (\w+) near the (\w+ \w+)", words).groups()
    _, env.target_pos = things[target]


def pick_up(env, words, things):
    env.obj, _ = things[re.search(r"the (\w+ \w+)", words)[1]]


def red_before_blue(env, words, things):  # noqa: ARG001
    (env.red_door, _), (env.blue_door, _) = things["red door"], things["blue door"]


def babyai(env, words, things):  # noqa: ARG001
    verb, colour, kind = re.search(r"(\w+) (?:to )?the (\w+) (\w+)", words).groups()
    # The whole grid is one room: situations are not told in rooms.
    one_room = env.room_grid[0][0]
    env.room_from_pos = lambda *_: one_room
    env.instrs = {"go": GoToInstr, "open": OpenInstr}[verb](ObjDesc(kind, colour))
    env.instrs.reset_verifier(env)


# A small first room: there are many ways to carry a key about a large one.
DOOR_KEY_WALLS = [*column(11, 15, door=10), *row(7, 15), *column(7, 15), *row(11, 11)]
UNLOCK_WALLS = [*column(10, 12, door=8), *row(5, 16)]
CORRIDOR_WALLS = [*column(10, 13, door=9), *row(6, 16)]
TWO_DOOR_WALLS = [*column(8, 12, door=8), *column(13, 12, door=9), *row(5, 22)]
SETTINGS = {
    "*": Setting("MiniGrid-Empty-16x16-v0", 16, 16),
    "MiniGrid-Lava*": Setting("MiniGrid-LavaGapS7-v0", 15, 15, row(7, 15)),
    "MiniGrid-Dynamic-Obstacles*": Setting("MiniGrid-Dynamic-Obstacles-16x16-v0", 16, 16),
    "MiniGrid-Fetch*": Setting("MiniGrid-Fetch-8x8-N3-v0", 16, 16, mission=fetch),
    "MiniGrid-GoToDoor*": Setting("MiniGrid-GoToDoor-8x8-v0", 13, 13, row(10, 13), mission=go_to_door),
    "MiniGrid-GoToObject*": Setting("MiniGrid-GoToObject-8x8-N2-v0", 16, 16, mission=go_to_object),
    "MiniGrid-PutNear*": Setting("MiniGrid-PutNear-8x8-N3-v0", 16, 16, mission=put_near),
    "MiniGrid-RedBlueDoors*": Setting("MiniGrid-RedBlueDoors-6x6-v0", 22, 12, TWO_DOOR_WALLS, mission=red_before_blue),
    "MiniGrid-DoorKey*": Setting("MiniGrid-DoorKey-8x8-v0", 15, 15, DOOR_KEY_WALLS),
    "MiniGrid-*UnlockPickup*": Setting("MiniGrid-UnlockPickup-v0", 16, 12, UNLOCK_WALLS, "", pick_up),
    "MiniGrid-KeyCorridor*": Setting(
        "MiniGrid-KeyCorridorS3R3-v0", 16, 13, CORRIDOR_WALLS, "open red door (9, 10)", pick_up
    ),
    "BabyAI-*": Setting("BabyAI-GoToLocal-v0", 16, 16, mission=babyai),
}

THING = re.compile(
    r"(?:(closed|locked|open) )?(red|green|blue|purple|yellow|grey) (key|ball|box|door) \((\d+), (\d+)\)"
)


def things_in(text):
    """The things that a situation names, each with its (column, row)."""
    for state, colour, kind, r, c in THING.findall(text):
        make = {"key": Key, "ball": Ball, "box": Box}.get(kind)
        thing = make(colour) if make else Door(colour, is_open=state == "open", is_locked=state == "locked")
        yield f"{colour} {kind}", thing, (int(c), int(r))
    for cells in re.findall(r"balls ((?:\(\d+, \d+\)(?:, )?)+)", text):
        for r, c in re.findall(r"\((\d+), (\d+)\)", cells):
            yield f"ball {r} {c}", Ball(), (int(c), int(r))
    for r, c in re.findall(r"(?:goal|cell to enter is) \((\d+), (\d+)\)", text):
        yield "goal", Goal(), (int(c), int(r))
    for c, first, last, gap in re.findall(r"lava in column (\d+), rows (\d+) to (\d+), but for the gap \((\d+),", text):
        for r in range(int(first), int(last) + 1):
            if r != int(gap):
                yield f"lava {r}", Lava(), (int(c), r)


def pose_in(text):
    r, c, heading = re.search(r"[Aa](?:gent|t) \((\d+), (\d+)\) facing (\w+)", text).groups()
    return (int(c), int(r)), HEADINGS.index(heading)


def built(example):
    """The environment in the situation of an example."""
    if "picture" in example:
        return played(**example["picture"])
    text = example["situation"]
    if example["env"] == "MiniGrid-Memory*":
        return built_memory(text)
    setting = SETTINGS[example["env"]]
    env = gym.make(setting.env_id).unwrapped
    env.reset(seed=0)
    env.width, env.height, env.grid = setting.columns, setting.rows, Grid(setting.columns, setting.rows)
    env.grid.wall_rect(0, 0, setting.columns, setting.rows)
    for r, c in setting.walls:
        env.grid.set(c, r, WALL)
    env.mission = text.partition(".")[0].removeprefix("Mission: ").lower()
    things = {}
    opened = " open yellow door (8, 10)" if "the yellow door is open" in text else setting.things
    for name, thing, cell in [*things_in(text), *things_in(opened)]:
        things[name] = thing, cell
        env.grid.set(*cell, thing)
        thing.init_pos = thing.cur_pos = cell
    env.agent_pos, env.agent_dir = pose_in(text)
    held = re.search(r"Carrying: a (\w+) (\w+)", text)
    env.carrying = {"key": Key, "ball": Ball}[held[2]](held[1]) if held else None
    if hasattr(env, "obstacles"):
        env.obstacles = []  # they stay where they are
    setting.mission(env, text.partition(".")[0], things)
    return env


def played(env_id, seed, actions=()):
    """A real environment, brought to the moment that an example's picture shows."""
    env = gym.make(env_id).unwrapped
    env.reset(seed=seed)
    for action in actions:
        assert not env.step(ACTIONS.index(action))[2]
    if hasattr(env, "obstacles"):
        env.obstacles = []  # they stay where they are
    return env


def built_memory(text):
    """A Memory environment whose three objects are those of the situation."""
    env = MemoryEnv(size=15)
    for seed in range(100):
        env.reset(seed=seed)
        shown = [env.grid.get(column, row) for column, row in ((1, 6), (13, 5), (13, 9))]
        if [(thing.color, thing.type) for thing in shown] == [("green", "ball"), ("green", "key"), ("green", "ball")]:
            break
    assert {name: cell for name, _, cell in things_in(text)} == {"green key": (13, 5), "green ball": (13, 9)}
    env.agent_pos, env.agent_dir = pose_in(text)
    return env


class World:
    """An environment that can be put into any state that it was in before."""

    def __init__(self, env):
        self.env = env
        env.max_steps = math.inf
        env.gen_obs = dict  # nobody looks
        self._things = {cell for cell in env.grid.grid if cell is not None and cell.type != "wall"}
        self._doors = [thing for thing in self._things if thing.type == "door"]
        self._instruction = getattr(env, "instrs", None)

    @property
    def state(self):
        env = self.env
        return (
            (*map(int, env.agent_pos), int(env.agent_dir)),
            env.carrying,
            tuple(env.grid.grid),
            tuple((door.is_open, door.is_locked) for door in self._doors),
            tuple(self._instruction.desc.obj_poss) if self._instruction else None,
        )

    @state.setter
    def state(self, state):
        env = self.env
        (column, row, env.agent_dir), env.carrying, cells, doors, places = state
        env.agent_pos, env.grid.grid = (column, row), list(cells)
        for door, (is_open, is_locked) in zip(self._doors, doors, strict=True):
            door.is_open, door.is_locked = is_open, is_locked
        if self._instruction:
            self._instruction.desc.obj_poss = list(places)

    def after(self, state, action):
        """What comes of an action: "success", "fatal", "nothing", or the next state."""
        self.state = state
        _, reward, terminated, _, _ = self.env.step(action)
        if terminated:
            return "success" if reward > 0 else "fatal"
        state_after = self.state
        return "nothing" if state_after == state else state_after


def steps_to_success(env):
    """For every action: the steps to success with it as the first, "fatal", "nothing", or None if it leads too far."""
    world = World(env)
    start = world.state
    actions = range(env.action_space.n)
    results, leads_to, open_, nearest = {}, defaultdict(set), deque([(start, 0)]), math.inf
    while open_ and open_[0][1] < nearest + DETOUR:
        state, depth = open_.popleft()
        if state in results:
            continue
        results[state] = [world.after(state, action) for action in actions]
        for result in results[state]:
            leads_to[result].add(state)
            if result == "success":
                nearest = min(nearest, depth + 1)
            elif result not in ("fatal", "nothing"):
                open_.append((result, depth + 1))
    steps, reached = {"success": 0}, deque(["success"])
    while reached:
        result = reached.popleft()
        for state in leads_to[result] - steps.keys():
            steps[state] = steps[result] + 1
            reached.append(state)

    def with_first(result):
        return result if result in ("fatal", "nothing") else steps[result] + 1 if result in steps else None

    return {ACTIONS[action]: with_first(results[start][action]) for action in actions}


def planned_steps(env):
    """The same by the embedded teacher's search, where every way of carrying things about would take minutes."""
    scene = scene_of(env)
    task = current_instruction(env.mission, scene.world)
    extra, _ = extra_steps(task, scene, ACTIONS, target_cells(task, scene.world))
    return {name: "nothing" if step(scene, name) is scene else round(1 + extra[name]) for name in ACTIONS}


def steps_past_balls(env):
    """The same in Dynamic-Obstacles, where the balls have jumped elsewhere after the first action."""
    world = World(env)
    start = world.state
    outcomes = [world.after(start, action) for action in range(env.action_space.n)]
    steps = {}
    for action, outcome in enumerate(outcomes):
        world.state = start if outcome in ("success", "fatal", "nothing") else outcome
        env.grid.grid = [None if cell is not None and cell.type == "ball" else cell for cell in env.grid.grid]
        later = 0 if outcome == "success" else min(n for n in steps_to_success(env).values() if isinstance(n, int))
        steps[ACTIONS[action]] = outcome if outcome in ("fatal", "nothing") else 1 + later
    return steps


@pytest.fixture(scope="module", params=EXAMPLES, ids=[f"{i}-{example['env']}" for i, example in enumerate(EXAMPLES)])
def example(request):
    return request.param


@pytest.fixture(scope="module")
def steps(example):
    env = built(example)
    if "Dynamic-Obstacles" in example["env"]:
        return steps_past_balls(env)
    return planned_steps(env) if "blocks the door" in example["reasoning"] else steps_to_success(env)


def asked(env_id):
    """The actions that the set asks about, by their own names."""
    return by_task(PromptSet(None, "minigrid").options.choices, env_id, ACTIONS)


def env_id_of(example):
    if "picture" in example:
        return example["picture"]["env_id"]
    if example["env"] == "BabyAI-*":
        return "BabyAI-GoTo-v0"
    return SETTINGS[example["env"]].env_id if example["env"] in SETTINGS else "MiniGrid-MemoryS7-v0"


def test_the_action_template_states_the_scale():
    text = (bundled_prompts() / "minigrid/action.system.jinja").read_text()
    assert "1 step more: 0.10. 2 steps more: 0.05. 3 or more: 0.02." in text
    assert "It changes nothing, or ends the episode without success: 0." in text
    assert "The best actions share the rest, in equal parts." in text


def test_every_number_is_that_of_the_one_scale(example, steps):
    """Second-best actions had anything from 0.02 to 0.18, and equally good ones different numbers in places."""
    useful = {
        name: count for name, count in steps.items() if isinstance(count, int) and name in asked(env_id_of(example))
    }
    least = min(useful.values())
    best = [name for name, count in useful.items() if count == least]
    expected = {name: {1: 0.10, 2: 0.05}.get(count - least, 0.02) for name, count in useful.items() if name not in best}
    share = (1 - sum(expected.values())) / len(best)
    told = {name.removeprefix("turn_"): p for name, p in example["probabilities"].items() if p}
    assert told == pytest.approx(expected | dict.fromkeys(best, share)), steps


def test_probabilities_sum_to_one(example):
    assert math.isclose(math.fsum(example["probabilities"].values()), 1)


def test_the_reasoning_begins_where_the_agent_is_and_sees_what_is_ahead(example):
    env, reasoning = built(example), example["reasoning"]
    assert pose_in(reasoning) == (tuple(env.agent_pos), env.agent_dir)
    ahead = re.search(r"ahead is \((\d+), (\d+)\), (?:the )?(.*?)[,.:;]", reasoning)
    if ahead:
        assert (int(ahead[2]), int(ahead[1])) == tuple(map(int, env.front_pos))
        cell = env.grid.get(*env.front_pos)
        assert re.search(cell.type if cell else "floor|empty|far from", ahead[3]), reasoning


def test_the_turn_that_the_reasoning_looks_up_is_right(example):
    _, heading = pose_in(example["reasoning"])  # which is right, says the test above
    assert not re.search(r"turns to|[Tt]urn (left|right)", example["reasoning"])
    for old, turn, new in re.findall(r"From (\w+), turn_(left|right) faces (\w+)", example["reasoning"]):
        assert old == HEADINGS[heading]
        assert new == HEADINGS[(heading + (1 if turn == "right" else -1)) % 4]


def next_cells(make, turns=()):
    """The cells that a shortest way may enter or act on next, by the search alone: ahead, or ahead after some turns."""
    env = make()
    for turn in turns:
        env.step(ACTIONS.index(turn))
    ahead, here = tuple(map(int, env.front_pos)), tuple(map(int, env.agent_pos))
    steps = {name: count for name, count in steps_to_success(env).items() if isinstance(count, int)}
    cells = set()
    for name in (name for name, count in steps.items() if count == min(steps.values())):
        cells |= next_cells(make, (*turns, name)) if name in ("left", "right") else {here if name == "done" else ahead}
    return cells


@pytest.mark.parametrize("example", IN_WORDS, ids=[example["reasoning"][:30] for example in IN_WORDS])
def test_the_cell_that_the_reasoning_enters_next_is_the_way_s_own(example):
    found = re.search(r"enters (?:the gap )?\((\d+), (\d+)\) next", example["reasoning"])
    if found:
        cells = next_cells(lambda: without_balls(built(example)))
        row, column = map(int, found.groups())
        # Another way that is as short may begin elsewhere, where a ball lies in the cell ahead.
        assert (column, row) in cells or "Another short way" in example["reasoning"]


def without_balls(env):
    if hasattr(env, "obstacles"):
        env.grid.grid = [None if cell is not None and cell.type == "ball" else cell for cell in env.grid.grid]
    return env


def test_every_setting_is_used():
    assert {example["env"] for example in IN_WORDS} == {*SETTINGS, "MiniGrid-Memory*"}


def said(cells):
    return sorted((cell["what"], cell["row"], cell["column"]) for cell in cells)


def name_of(thing):
    if thing.type == "door":
        return f"{'locked' if thing.is_locked else 'open' if thing.is_open else 'closed'} {thing.color} door"
    return "lava" if thing.type == "lava" else f"{thing.color} {thing.type}"


@pytest.fixture(scope="module", params=PICTURED, ids=[example["picture"]["env_id"] for example in PICTURED])
def pictured(request):
    return request.param, built(request.param)


def test_the_analysis_of_a_picture_says_what_is_in_the_environment(pictured):
    example, env = pictured
    analysis = example["analysis"]
    assert (analysis["agent_row"], analysis["agent_column"]) == (env.agent_pos[1], env.agent_pos[0])
    assert analysis["heading"] == HEADINGS[env.agent_dir]
    things = [(thing, n // env.width, n % env.width) for n, thing in enumerate(env.grid.grid)]
    things = [place for place in things if place[0] is not None and place[0].type != "wall"]
    wanted = [p for p in things if p[0].type == "goal" or f"{p[0].color} {p[0].type}" in env.mission]
    deadly = [p for p in things if p[0].type == "lava" or (p[0].type == "ball" and "Obstacles" in example["env"])]
    for key, places in (("targets", wanted), ("hazards", deadly)):
        truth = sorted((name_of(thing), row, column) for thing, row, column in places)
        assert said(analysis.get(key, [])) == truth, key


def test_the_analysis_of_a_picture_says_what_is_ahead_and_where_the_way_goes(pictured):
    example, env = pictured
    cell = env.grid.get(*env.front_pos)
    assert example["analysis"]["ahead"] == (
        "floor" if cell is None else cell.type if cell.type == "wall" else name_of(cell)
    )
    step = example["analysis"]["next_step"]
    assert (step["column"], step["row"]) in next_cells(lambda: without_balls(built(example)))


def test_a_picture_s_analysis_fits_the_form_of_its_own_task(pictured):
    example, _ = pictured
    options = PromptSet(None, "minigrid").options
    form = analysis_form("grid", frozenset(by_task(options.report, example["picture"]["env_id"], [])))
    assert form.model_validate(example["analysis"])


def test_the_four_task_families_and_every_other_environment_have_two_pictures():
    for pattern in ("MiniGrid-Lava*", "MiniGrid-Dynamic-Obstacles*", "MiniGrid-Fetch*", "MiniGrid-GoToDoor*", "*"):
        assert [example["env"] for example in PICTURED].count(pattern) == 2
