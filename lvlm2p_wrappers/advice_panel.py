"""Pictures of a view beside what teacher and student make of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_SIDE = 224  # pixels: the larger side of a picture, and the height of its panel
_NAMES, _BARS, _GAP = 76, 130, 12
_FONT = ImageFont.load_default(11)
_COLOURS = {"teacher": "#2a7f62", "student": "#3b6ea5"}


def draw_sample(
    picture: NDArray[np.uint8],
    actions: Sequence[str],
    teacher: NDArray[np.float32] | None,
    student: NDArray[np.float32],
) -> NDArray[np.uint8]:
    """Draw a view with two bars for each action: the teacher's probability above the student's.

    Args:
        picture: (height, width, 3) uint8, what the teacher was shown.
        actions: the actions' names.
        teacher: (n_actions,) the teacher's distribution; None if it gave none.
        student: (n_actions,) the student's.

    Returns:
        (224, width, 3) uint8.

    Example:
        >>> picture = np.zeros((64, 64, 3), np.uint8)
        >>> draw_sample(picture, ["left", "right"], np.float32([0.9, 0.1]), np.float32([0.5, 0.5])).shape
        (224, 466, 3)
    """
    seen = Image.fromarray(picture)
    scale = _SIDE / max(seen.size)
    seen = seen.resize((max(1, round(seen.width * scale)), max(1, round(seen.height * scale))), Image.Resampling.BOX)
    panel = Image.new("RGB", (seen.width + _NAMES + _BARS + 3 * _GAP, _SIDE), "white")
    panel.paste(seen, (0, (_SIDE - seen.height) // 2))
    draw, left = ImageDraw.Draw(panel), seen.width + _GAP
    draw.text((left, 2), "teacher" if teacher is not None else "no advice", fill=_COLOURS["teacher"], font=_FONT)
    draw.text((left + _NAMES, 2), "student", fill=_COLOURS["student"], font=_FONT)
    height = min(24.0, (_SIDE - 20) / len(actions))
    for i, name in enumerate(actions):
        top = 20 + i * height
        draw.text((left, top + height / 2), name[:12], fill="black", font=_FONT, anchor="lm")
        for bar, (who, probs) in enumerate((("teacher", teacher), ("student", student))):
            if probs is not None:
                x, y = left + _NAMES, top + height * (0.1 + 0.4 * bar)
                draw.rectangle((x, y, x + float(probs[i]) * _BARS, y + 0.35 * height), fill=_COLOURS[who])
    return np.asarray(panel)
