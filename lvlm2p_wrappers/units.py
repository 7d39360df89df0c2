"""Amounts with their units, as reports and commands show them: two digits are enough to read."""

from __future__ import annotations

import humanize


def money(usd: float | None) -> str:
    """US dollars, with as many digits as matter.

    >>> [money(usd) for usd in (None, 0, 0.00012345, 0.5, 1234.5)]
    ['unpriced', '$0', '$0.00012', '$0.5', '$1,234.50']
    """
    if usd is None:
        return "unpriced"
    if usd == 0:
        return "$0"
    return f"${usd:,.2f}" if usd >= 1 else f"${float(f'{usd:.2g}'):.12f}".rstrip("0")


def duration(seconds: float | None) -> str:
    """A time in the unit that fits.

    >>> [duration(seconds) for seconds in (None, 0.0042, 1.234, 90, 5400, 200_000)]
    ['unknown', '4.2 ms', '1.2 s', '1.5 min', '1.5 h', '2.3 days']
    """
    if seconds is None:
        return "unknown"
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.2g} {unit}"
    return humanize.metric(seconds, "s", precision=2)


def count(number: float | None) -> str:
    """A number of things, or the mean of several.

    >>> [count(number) for number in (None, 12345, 3.25)]
    ['unknown', '12,345', '3.2']
    """
    if number is None:
        return "unknown"
    return f"{number:,.0f}" if number == round(number) or number >= 100 else f"{number:,.1f}"
