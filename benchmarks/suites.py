"""What is run: tasks x algorithms x methods x seeds, by suite. `run.py` runs it, `plot.py` draws it."""

import hashlib
import itertools
import shlex
from dataclasses import dataclass, field, replace

HORIZON = 300_000
FOLLOWED = 100_000
"""Frames for which learning curves are followed: plain PPO is above every threshold after two thirds of them, and what
plain A2C needs beyond them is in the threshold suite."""


@dataclass(frozen=True)
class Task:
    """An environment, the mean return that counts as solved, and how imperfect its teacher is."""

    env_id: str
    threshold: float
    error: float

    @property
    def name(self):
        """The env id without what all of them share."""
        return self.env_id.removeprefix("MiniGrid-").removesuffix("-v0")

    def teacher(self, salt, error=None):
        """The embedded teacher whose mistakes are those of one salt."""
        return f"embedded/minigrid-planner?error={self.error if error is None else error}&salt={salt}"


# Threshold: 0.95 times the mean return of the planner without errors, 0.91 on LavaGapS7 as in the paper.
TASKS = {
    task.name: task
    for task in (
        Task("MiniGrid-LavaGapS7-v0", 0.91, 0.04),
        Task("MiniGrid-Dynamic-Obstacles-6x6-v0", 0.875, 0.0125),
        Task("MiniGrid-Fetch-6x6-N2-v0", 0.931, 0.1),
        Task("MiniGrid-GoToDoor-6x6-v0", 0.924, 0.02),
    )
}

ALGOS = ("ppo", "a2c")

# Plain RL, one thing at a time around a setting that learnt in first trials; and what our best method does besides.
_PPO = {"num-envs": 8, "num-steps": 128, "update-epochs": 4}
_A2C = {"num-envs": 8, "num-steps": 5, "learning-rate": 7e-4}
TUNED = {
    "ppo": {
        "base": _PPO,
        "8 epochs": _PPO | {"update-epochs": 8},
        "8 epochs, 8 minibatches": _PPO | {"update-epochs": 8, "num-minibatches": 8},
        "64 steps": _PPO | {"num-steps": 64},
        "16 envs": _PPO | {"num-envs": 16},
        "learning rate 5e-4": _PPO | {"learning-rate": 5e-4},
        "learning rate 2e-3": _PPO | {"learning-rate": 2e-3},
        "entropy 0.003": _PPO | {"ent-coef": 0.003},
        "entropy 0.03": _PPO | {"ent-coef": 0.03},
        "as our best method's": _PPO | {"num-steps": 32, "num-minibatches": 2},
    },
    "a2c": {
        "base": _A2C,
        "16 steps": _A2C | {"num-steps": 16},
        "16 envs": _A2C | {"num-envs": 16},
        "learning rate 3e-4": _A2C | {"learning-rate": 3e-4},
        "learning rate 2e-3": _A2C | {"learning-rate": 2e-3},
        "entropy 0.003": _A2C | {"ent-coef": 0.003},
        "entropy 0.03": _A2C | {"ent-coef": 0.03},
        "entropy 0.1": _A2C | {"ent-coef": 0.1},
        "GAE 0.95": _A2C | {"gae-lambda": 0.95},
        "as our best method's": _A2C | {"num-steps": 16, "learning-rate": 1e-3, "gae-lambda": 0.95},
    },
}

# The best of them by the mean frames of three seeds, task by task.
PLAIN = {
    "ppo": {
        "LavaGapS7": "8 epochs",
        "Dynamic-Obstacles-6x6": "8 epochs, 8 minibatches",
        "Fetch-6x6-N2": "8 epochs, 8 minibatches",
        "GoToDoor-6x6": "8 epochs",
    },
    "a2c": {
        "LavaGapS7": "16 envs",
        "Dynamic-Obstacles-6x6": "entropy 0.1",  # none got there; this one learnt something
        "Fetch-6x6-N2": "GAE 0.95",
        "GoToDoor-6x6": "entropy 0.03",
    },
}

# The flags of the paper's method and of ours, both with the defaults of their scripts.
PAPER, BEST = {"lam": 1}, {}
# The paper's method as a setting of PPO's script with label replay, which alone can ask about a share of the frames.
PAPER_SHARED = {"num-envs": 4, "num-steps": 64, "num-minibatches": 4}
PAPER_SHARED |= {"lam-patience": 0, "label-temperature": 1, "replay-minibatches": 0}
PARTS = {
    "label replay": {"replay-minibatches": 0},
    "decay": {"lam-patience": 0},
    "short rollouts": {"num-steps": 128, "num-minibatches": 8, "replay-minibatches": 128},
    "sharpened labels": {"label-temperature": 1},
}
# Where parts, teachers and labels are taken away.
ABLATED = ("LavaGapS7", "GoToDoor-6x6")
SHARES = (0.3, 0.1)
# Errors meant to let a teacher succeed so often, its actions sampled; `teachers.py` says how often it does.
ERRORS = {"0.8": {"LavaGapS7": 0.12, "GoToDoor-6x6": 0.14}, "0.6": {"LavaGapS7": 0.22, "GoToDoor-6x6": 0.22}}


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        method: what the cell shows, in the words of the tables.
        flags: the script's flags.
        replay: whether the script is the one with label replay.
        frames_after_solved: how many frames after reaching the threshold a run may end (None: at its horizon).
        is_race: whether a run may end once it is behind one of another method on the same task and seed.
    """

    task: Task
    algo: str
    method: str
    seed: int
    flags: dict = field(hash=False)
    replay: bool = False
    frames: int = HORIZON
    frames_after_solved: int | None = None
    is_race: bool = False

    @property
    def command(self):
        """The command that makes this result again."""
        flags = {"env-id": self.task.env_id, "total-timesteps": self.frames, "seed": self.seed, **self.flags}
        words = []
        for name, value in flags.items():
            on_or_off = {True: [f"--{name}"], False: [f"--no-{name}"]}
            words += on_or_off[value] if isinstance(value, bool) else [f"--{name}", shlex.quote(str(value))]
        return f"python algos/{self.algo}_lvlm2p{'_replay' if self.replay else ''}.py {' '.join(words)}"

    @property
    def id(self):
        """Names the command and how long it is followed."""
        followed = f"{self.command} {self.frames_after_solved} {self.is_race}"
        return hashlib.sha256(followed.encode()).hexdigest()[:10]

    def races(self, row):
        """Whether a finished run is of the same race."""
        return (row["task"], row["algo"], row["seed"]) == (self.task.name, self.algo, str(self.seed)) and any(
            row["method"] == f"tune: {name}" for name in TUNED[self.algo]
        )


def plain(task, algo, setting, seed, **rules):
    """A run of plain RL."""
    return Cell(task, algo, f"tune: {setting}", seed, {"lam": 0, **TUNED[algo][setting]}, **rules)


def taught(task, algo, method, seed, flags, error=None, **rules):
    """A run with the embedded teacher, whose mistakes are other ones for each seed."""
    replay = method.startswith("best") or "ask-share" in flags
    return Cell(task, algo, method, seed, {**flags, "model": task.teacher(seed, error)}, replay, **rules)


def tune(rows):
    """Plain RL, tuned before anything taught is measured.

    All settings on seed 1; the best two of those that got there on seeds 2 and 3 too.
    """
    for algo, settings in TUNED.items():
        for task in TASKS.values():
            # A race only among the settings of seed 1: the frames of the other seeds are to be averaged.
            cells = {name: plain(task, algo, name, 1, frames_after_solved=0, is_race=True) for name in settings}
            yield from cells.values()
            solved = {name: _frames(rows.get(cell.id)) for name, cell in cells.items()}
            if None not in solved.values():
                best = sorted((name for name in solved if solved[name] < float("inf")), key=solved.get)[:2]
                for name in best:
                    yield from (plain(task, algo, name, seed, frames_after_solved=0) for seed in (2, 3))


def _frames(row):
    """The frames that a run needed; None if it has not been made."""
    return row and float(row["solved_frames"] or "inf")


def headline(_rows):
    """Plain RL, the paper's method, and the best one: four tasks, two algorithms, five seeds."""
    for seed in range(1, 6):
        for algo, task in itertools.product(ALGOS, TASKS.values()):
            if task.name in PLAIN[algo]:
                yield replace(plain(task, algo, PLAIN[algo][task.name], seed, frames=FOLLOWED), method="plain")
            # Its teacher is asked at every frame for ever, so that it is followed a little beyond the threshold only.
            yield taught(task, algo, "paper", seed, PAPER, frames=FOLLOWED, frames_after_solved=10_000)
            yield taught(task, algo, "best", seed, BEST, frames=FOLLOWED)


def threshold(_rows):
    """Samples to threshold alone: every run ends where it gets there, so that many seeds cost little."""
    for seed in range(1, 6):
        for algo, task in itertools.product(ALGOS, TASKS.values()):
            setting = PLAIN[algo].get(task.name)
            if setting:  # the runs of the tuning are among these
                yield replace(
                    plain(task, algo, setting, seed, frames_after_solved=0, is_race=seed == 1), method="plain"
                )
            for method, flags in (("paper", PAPER), ("best", BEST)):
                yield taught(task, algo, method, seed, flags, frames_after_solved=0)


def whole(cells):
    """Those among some cells that others are compared with when something is taken away."""
    return (cell for cell in cells if cell.algo == "ppo" and cell.task.name in ABLATED and cell.seed <= 3)


def ablation(_rows):
    """The paper's Fig. 4, and the best method with each of its parts taken away."""
    yield from whole(threshold(_rows))
    for seed, name in itertools.product((1, 2, 3), ABLATED):
        task = TASKS[name]
        methods = {f"paper, lambda {lam}": {"lam": lam} for lam in (0.1, 0.5, 2, 5)}
        methods |= {"paper, hard labels": PAPER | {"label-type": "hard"}}
        methods |= {f"best without {part}": without for part, without in PARTS.items()}
        for method, flags in methods.items():
            yield taught(task, "ppo", method, seed, flags, frames=30_000, frames_after_solved=0)
        # Four epochs of two minibatches, and the 32 that the best method replays.
        extra = {"lam": 0, "num-envs": 8, "num-steps": 32, "num-minibatches": 2, "update-epochs": 20}
        yield Cell(task, "ppo", "plain, as many minibatches", seed, extra, frames=30_000, frames_after_solved=0)


def quality(rows):
    """Worse teachers, and fewer labels."""
    yield from worse_teachers(rows)
    yield from fewer_labels()


def worse_teachers(rows):
    """The paper's method and the best one, followed to the end, with teachers that fail more and more often."""
    for cell in whole(headline(rows)):
        if cell.method == "plain":
            yield cell
        elif cell.method == "best":
            yield replace(cell, method="best, teacher 0.96")
    for seed, name in itertools.product((1, 2, 3), ABLATED):
        task = TASKS[name]
        # The paper's method asks about every frame to the end, which takes several times as long.
        yield taught(task, "ppo", "paper, teacher 0.96", seed, PAPER, frames=60_000)
        for success, errors in ERRORS.items():
            for method, flags, frames in (("paper", PAPER, 60_000), ("best", BEST, FOLLOWED)):
                yield taught(task, "ppo", f"{method}, teacher {success}", seed, flags, errors[name], frames=frames)


def fewer_labels():
    """The same two where only a share of the frames is asked about; the best one with a tenth on all four tasks."""
    methods = {"paper": PAPER, "best": BEST}
    for seed, task, method, share in itertools.product((1, 2, 3), TASKS.values(), methods, (1, *SHARES)):
        if task.name in ABLATED or (method != "paper" and share in (1, min(SHARES))):
            flags = methods[method]
            if share < 1:
                flags = (PAPER_SHARED if method == "paper" else flags) | {"ask-share": share}
            rules = {"frames": HORIZON if share == 1 else 60_000, "frames_after_solved": 0}
            yield taught(task, "ppo", f"{method}, {share:.0%} of the labels", seed, flags, **rules)


def smoke(_rows):
    """One small task, two seeds: whether the machinery works."""
    task = Task("MiniGrid-Empty-5x5-v0", 0.9, 0.0)
    for algo, seed in itertools.product(ALGOS, (1, 2)):
        yield Cell(task, algo, "plain", seed, {"lam": 0}, frames=2000)
        yield taught(task, algo, "paper", seed, PAPER, frames=2000, frames_after_solved=0)
        yield taught(task, algo, "best", seed, BEST, frames=2000)


SUITES = {suite.__name__: suite for suite in (tune, threshold, headline, ablation, quality, smoke)}
