"""A table of teachers, from report cards that anybody can add.

python benchmarks/compare_teachers.py

A card is the evaluation.json that `lvlm2p evaluate` writes. Those in results/cards/ become docs/teachers_compared.md.
"""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import tyro

from lvlm2p_wrappers import UsageError
from lvlm2p_wrappers.evaluation import read_card
from lvlm2p_wrappers.redaction import printable
from lvlm2p_wrappers.units import duration, money

ROOT = Path(__file__).resolve().parents[1]
TITLES = ("teacher", "success, drawn", "best action optimal", "mass on optimal", "cell and heading", "bad replies",
          "a label costs", "takes", "states", "prompts", "made")  # fmt: skip
HEAD = """\
# Teachers compared

Report cards of teachers, one table an environment, made by `python benchmarks/compare_teachers.py` from the cards in
`benchmarks/results/cards/`. [Evaluating](evaluating.md) says what is measured. In brackets: 95% intervals.

To add a model, run `lvlm2p evaluate ENV_ID --model M --out FOLDER`, copy `FOLDER/evaluation.json` to
`benchmarks/results/cards/MODEL__ENV_ID.json` (any name will do), run the command above, and open a pull request.

The teachers here are the embedded planner, without errors and with each kind of error that it can be given; it is a
script, no LVLM. *prompts* is the fingerprint of the prompt set: rows of other prompts are other teachers.
"""


@dataclass
class Args:
    """Where the cards are, and where the page goes."""

    cards: Path = Path(__file__).parent / "results" / "cards"  # a folder of evaluation.json files of any name
    out: Path = ROOT / "docs" / "teachers_compared.md"  # the page


def rate(found):
    """A rate and its interval."""
    return "-" if found is None else f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def row(card):
    """The cells of one teacher."""
    found = card.metrics
    sampled = found.rollouts.get("sampled")
    return (
        f"`{printable(card.model)}`",
        rate(sampled and sampled.success),
        rate(found.action and found.action.agreement),
        rate(found.action and found.action.mass_optimal),
        rate(found.analysis and found.analysis.pose),
        f"{found.replies.bad_replies} of {found.replies.labels}",
        money(found.price.usd_per_label),
        duration(found.price.latency_p50_s),
        str(found.replies.labels),
        f"`{printable(card.fingerprint)}`",
        card.written or "-",
    )


def table(rows):
    """A Markdown table; a text cannot end a cell."""
    lines = [TITLES, ["---"] * len(TITLES), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(cards):
    """The whole page: a table for each environment, the best teacher first."""
    parts = [HEAD]
    cards = sorted(cards, key=lambda card: card.env_id)
    for env_id, of_env in groupby(cards, key=lambda card: card.env_id):
        best = sorted(of_env, key=lambda card: (-success(card), card.model))
        parts.append(f"## {printable(env_id)}\n\n{table(map(row, best))}\n")
    return "\n".join(parts)


def success(card):
    """By what teachers are ranked: the success of their actions, drawn."""
    sampled = card.metrics.rollouts.get("sampled")
    return sampled.success.value if sampled else 0.0


def main(args):
    """Write the page."""
    cards = [read_card(file) for file in sorted(args.cards.glob("*.json"))]
    if unfinished := [card for card in cards if not card.complete]:
        raise UsageError(f"the card of {unfinished[0].model} on {unfinished[0].env_id} is not complete")
    args.out.write_text(page(cards))
    print(f"{args.out}: {len(cards)} cards")


if __name__ == "__main__":
    main(tyro.cli(Args))
