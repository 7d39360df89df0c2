"""How a view and an advice show themselves in a notebook. What a model or an environment says stays text there."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

_BAR = "display:inline-block;height:0.8em;background:#2a7f62;margin-right:0.4em;width"


def view_html(pictures: Iterable[bytes], facts: Mapping[str, str]) -> str:
    """Pictures side by side above named facts.

    Args:
        pictures: PNG files.
        facts: what the teacher is told in text.
    """
    shown = "".join(
        f'<img alt="what the teacher is shown" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for png in pictures
    )
    return f"<div>{shown}{_table(facts)}</div>"


def advice_html(probs: NDArray[np.float32], actions: Iterable[str], analysis: str, facts: Mapping[str, str]) -> str:
    """A bar for every action, beside the analysis.

    Args:
        probs: (n_actions,) the distribution.
        actions: the actions' names.
        analysis: the first stage's answer as JSON text, or ``""``.
        facts: where the advice is from.
    """
    bars = "".join(
        f'<tr><td style="text-align:left">{html.escape(name)}</td>'
        f'<td style="text-align:left"><span style="{_BAR}:{12 * float(p):.3f}em"></span>{p:.3f}</td></tr>'
        for name, p in zip(actions, probs, strict=True)
    )
    said = {name: value if isinstance(value, str) else json.dumps(value) for name, value in _read(analysis).items()}
    return f"<div><table>{bars}</table>{_table(said)}{_table(facts)}</div>"


def _read(analysis: str) -> dict[str, object]:
    found = json.loads(analysis) if analysis else {}
    return found if isinstance(found, dict) else {"analysis": found}


def _table(facts: Mapping[str, str]) -> str:
    rows = "".join(
        f'<tr><td style="text-align:left">{html.escape(name)}</td>'
        f'<td style="text-align:left">{html.escape(told)}</td></tr>'
        for name, told in facts.items()
        if told
    )
    return f"<table>{rows}</table>" if rows else ""
