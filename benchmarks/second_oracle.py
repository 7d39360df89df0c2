"""How far MiniGrid's ground truth agrees with two oracles that share no code with it.

python benchmarks/second_oracle.py

Exhaustive search visits every state that can be reached in small environments, by stepping copies of them, and counts
the steps to success. BabyAI's own bot, which comes with the package minigrid, plays its levels. It finds a way, not
always a shortest one, and has to explore what its agent has not seen yet, which the ground truth knows; so the steps of
whole episodes are compared as well. One row an environment; those that are there are skipped the next time.
"""

import contextlib
import copy
import csv
import io
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import minigrid  # noqa: F401 -- registers its environments
import tyro
from minigrid.utils.baby_ai_bot import BabyAIBot
from run import RESULTS, append

from lvlm2p_wrappers.evaluation.ground_truth import ground_truth
from lvlm2p_wrappers.views import action_names

SMALL = (
    "MiniGrid-Empty-5x5-v0 MiniGrid-LavaGapS5-v0 MiniGrid-LavaCrossingS9N1-v0 MiniGrid-Fetch-5x5-N2-v0 "
    "MiniGrid-GoToDoor-5x5-v0 MiniGrid-DoorKey-5x5-v0 MiniGrid-Unlock-v0 MiniGrid-MemoryS7-v0 "
    "MiniGrid-RedBlueDoors-6x6-v0 MiniGrid-MultiRoom-N2-S4-v0 BabyAI-GoToObj-v0 BabyAI-GoToLocalS5N2-v0"
)
LEVELS = (
    "BabyAI-GoToObj-v0 BabyAI-GoToLocal-v0 BabyAI-GoTo-v0 BabyAI-Open-v0 BabyAI-Pickup-v0 BabyAI-PickupLoc-v0 "
    "BabyAI-PutNextLocal-v0 BabyAI-UnlockLocal-v0"
)
COLUMNS = ("oracle", "env_id", "states", "judged", "agree", "subset", "episodes", "their_steps", "our_steps", "failed")


@dataclass
class Args:
    """How much is compared."""

    layouts: int = 1  # whose states are searched, of each small environment
    most_states: int = 3000  # an environment with more is left out
    episodes: int = 10  # played by the bot on each level
    most_steps: int = 200  # of such an episode
    results: Path = RESULTS / "second_oracle.csv"  # where the rows are appended


def state_of(env):
    """What tells a state of an unwrapped environment from others."""
    held = env.carrying and (env.carrying.type, env.carrying.color)
    return env.grid.encode().tobytes(), tuple(map(int, env.agent_pos)), int(env.agent_dir), held


def reached(env, most):
    """Every state that can be reached: a copy of the environment, and for each action the next state or how it ends."""
    found, waiting = {state_of(env): [env, []]}, [state_of(env)]
    while waiting:
        env, outcomes = found[waiting.pop()]
        for action in range(env.action_space.n):
            there = copy.deepcopy(env)
            there.step_count = 0
            _, reward, terminated, _, _ = there.step(action)
            state = state_of(there)
            outcomes.append(reward > 0 if terminated else state)
            if not terminated and state not in found:
                found[state] = [there, []]
                waiting.append(state)
                if len(found) > most:
                    return None
    return found


def steps_to_success(found):
    """The fewest steps from each state from which there is a way; swept until nothing gets shorter."""
    steps, is_shorter = {}, True
    while is_shorter:
        is_shorter = False
        for state, (_, outcomes) in found.items():
            least = min(1 if end is True else 1 + steps.get(end, 10**6) for end in outcomes if end is not False)
            if least < min(steps.get(state, 10**6), 10**6):
                steps[state], is_shorter = least, True
    return steps


def searched(env_id, args):
    """The row of an environment that is searched; None if it has too many states."""
    tally = dict.fromkeys(COLUMNS[2:], 0)
    for seed in range(args.layouts):
        env = gym.make(env_id)
        env.reset(seed=seed)
        names, found = action_names(env), reached(env.unwrapped, args.most_states)
        if found is None:
            return None
        steps = steps_to_success(found)
        for state, (there, outcomes) in found.items():
            if state not in steps:
                continue
            ends = dict(zip(names, outcomes, strict=True))
            best = {n for n, end in ends.items() if (1 if end is True else 1 + steps.get(end, 10**6)) == steps[state]}
            truth = set(ground_truth(there, names).optimal)
            tally["states"] += 1
            tally["judged"] += bool(truth)
            tally["agree"] += truth == best
            tally["subset"] += bool(truth) and truth <= best
    return {"oracle": "exhaustive search", "env_id": env_id, **tally}


def played(env_id, args):
    """The row of a level that BabyAI's bot plays, and then one by the ground truth alone, from the same beginnings."""
    tally = dict.fromkeys(COLUMNS[2:], 0)
    for seed in range(args.episodes):
        env = gym.make(env_id)
        theirs, ours = _episode(env, seed, args, tally), _episode(env, seed, args, None)
        if theirs is None or ours is None:
            tally["failed"] += 1
            continue
        tally["episodes"] += 1
        tally["their_steps"] += theirs
        tally["our_steps"] += ours
    return {"oracle": "BabyAI's bot", "env_id": env_id, **tally}


def _episode(env, seed, args, tally):
    """The steps to success, by the bot where there is a tally, else by the ground truth; None without success."""
    env.reset(seed=seed)
    names, bot = action_names(env), tally is not None and BabyAIBot(env)
    action = None
    for step in range(1, args.most_steps + 1):
        optimal = ground_truth(env, names).optimal
        if tally is None:
            if not optimal:
                return None
            action = names.index(optimal[0])
        else:
            try:
                action = int(bot.replan(action))
            except Exception:  # noqa: BLE001 -- the bot gives up with assertions and whatever else
                return None
            tally["states"] += 1
            tally["judged"] += bool(optimal)
            tally["agree"] += names[action] in optimal
        _, reward, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            return step if reward > 0 else None
    return None


def main(args):
    """Compare what is missing."""
    there = (
        {(row["oracle"], row["env_id"]) for row in csv.DictReader(args.results.open())} if args.results.exists() else ()
    )
    for oracle, judge, env_ids in (("exhaustive search", searched, SMALL), ("BabyAI's bot", played, LEVELS)):
        for env_id in env_ids.split():
            if (oracle, env_id) not in there:
                with contextlib.redirect_stdout(io.StringIO()):  # BabyAI tells of every layout that it rejects
                    row = judge(env_id, args)
                if row is not None:
                    append(args.results, COLUMNS, [row])
                print(row or f"{env_id}: more than {args.most_states:,} states", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Args))
