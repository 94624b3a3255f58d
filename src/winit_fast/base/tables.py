"""Tables of text for the terminal."""

from collections.abc import Collection, Sequence


def number(value: float | None) -> str:
    """Format a number for a cell, with four digits; None, which was not measured, is a dash.

    Examples
    --------
    >>> number(0.123456), number(None)
    ('0.1235', '-')
    """
    return "-" if value is None else f"{value:.4g}"


def table(rows: Sequence[Sequence[str]], right: Collection[int]) -> str:
    """Align the columns of a table, two spaces apart.

    Parameters
    ----------
    rows : sequence of sequence of str
        All of one length; usually the first has the titles.
    right : collection of int
        The columns that are aligned to the right; the others are to the left.

    Returns
    -------
    str
        One line a row, without spaces at the end.

    Examples
    --------
    >>> print(table([("layer", "units"), ("fc", "8"), ("out", "1000")], right={1}))
    layer  units
    fc         8
    out     1000
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            text.rjust(width) if at in right else text.ljust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
