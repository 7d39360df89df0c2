"""What a teacher sees of an environment and what it answers, as one picture.

python benchmarks/teacher_picture.py
"""

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import matplotlib.pyplot as plt
import tyro

from lvlm2p_wrappers import Teacher
from lvlm2p_wrappers.views import viewer


@dataclass
class Args:
    """Which moment of which environment."""

    env_id: str = "MiniGrid-LavaGapS7-v0"  # id of the environment
    seed: int = 0  # seed of its reset
    actions: tuple[int, ...] = (1, 2, 2, 2)  # played before the picture is taken
    model: str = "embedded/minigrid-planner"  # the teacher
    store: str | None = "default"  # where its answers are kept
    out: Path = Path(__file__).resolve().parents[1] / "docs" / "images" / "teacher.png"  # the picture


def main(args):
    """Ask, draw, save."""
    env = gym.make(args.env_id)
    env.reset(seed=args.seed)
    for action in args.actions:
        env.step(action)
    view = viewer(env).view()
    advice = Teacher(args.model, store=args.store).advise(view)
    analysis = json.loads(advice.analysis)

    plt.rcParams.update({"font.size": 10, "font.family": "sans-serif"})
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(12, 3.9), width_ratios=[1, 1.15, 1.1], layout="constrained"
    )
    left.imshow(view.picture.pixels)
    left.set_title("What the teacher is shown", loc="left", weight="bold")
    left.set_xlabel(textwrap.fill(f"Mission: {view.mission}", 44) + f"\nCarrying: {view.carrying}", loc="left")
    left.set_xticks([])
    left.set_yticks([])

    middle.set_title("1. Its analysis", loc="left", weight="bold")
    facts = {key: value for key, value in analysis.items() if value not in ([], "")}
    lines = [textwrap.fill(f"{key}: {_in_words(value)}", 46, subsequent_indent="   ") for key, value in facts.items()]
    middle.text(0, 1, "\n".join(lines), va="top", family="monospace", size=8.5, linespacing=1.35)
    middle.axis("off")

    best = advice.probs.max()
    colours = ["#2a7f62" if prob == best else "#9db8ae" for prob in advice.probs]
    right.barh(view.env_info.actions, advice.probs, color=colours)
    right.invert_yaxis()
    right.set_xlim(0, 1.08)
    for row, prob in enumerate(advice.probs):
        right.text(prob + 0.015, row, f"{prob:.3f}", va="center", size=9)
    right.set_title('2. info["teacher_probs"]', loc="left", weight="bold")
    right.spines[["top", "right", "bottom"]].set_visible(False)
    right.set_xticks([])
    figure.savefig(args.out, dpi=110)


def _in_words(value):
    cells = value if isinstance(value, list) else None
    return "; ".join(f"{c['what']} ({c['row']}, {c['column']})" for c in cells) if cells else str(value)


if __name__ == "__main__":
    main(tyro.cli(Args))
