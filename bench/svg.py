"""A plot as SVG: lines or steps over a linear or logarithmic axis, readable on light and dark ground."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 72, 24, 56, 56
COLOURS = ("#3b78c2", "#d0742a", "#3d9a5b", "#9a56b5")
INK = "#7a7a7a"  # between black and white, so that it shows on both

Line = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Plot:
    """What is drawn.

    Attributes:
        lines: by name, each a list of [x, y].
        log_x: the x axis is logarithmic; an x of 0 stands at its left end.
        bars: each y holds from its x to the next one, as in a histogram; so the last one only ends the others.
    """

    title: str
    x: str
    y: str
    lines: Mapping[str, Line]
    log_x: bool = False
    bars: bool = False

    def svg(self) -> str:
        """The whole file."""
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
            f' font-family="sans-serif" font-size="12" fill="{INK}">',
            f"<title>{escape(self.title)}</title>",
            f'<text x="{LEFT}" y="20" font-size="14">{escape(self.title)}</text>',
            *self._axes(),
            *self._legend(),
            *(self._line(line, COLOURS[n % len(COLOURS)]) for n, line in enumerate(self.lines.values())),
            "</svg>",
        ]
        return "\n".join(parts) + "\n"

    def _axes(self) -> Iterator[str]:
        base, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        for tick in ticks(self._top()):
            y = self._at_y(tick)
            yield f'<path d="M{LEFT} {y:.1f}H{right}" stroke="{INK}" stroke-opacity=".25"/>'
            yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(tick)}</text>'
        for tick in self._x_ticks():
            x = self._at_x(tick)
            yield f'<path d="M{x:.1f} {base}v5" stroke="{INK}"/>'
            yield f'<text x="{x:.1f}" y="{base + 18}" text-anchor="middle">{short(tick)}</text>'
        yield f'<path d="M{LEFT} {base}H{right}" stroke="{INK}"/>'
        yield f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{escape(self.x)}</text>'
        middle = (TOP + base) / 2
        yield f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">{escape(self.y)}</text>'

    def _legend(self) -> Iterator[str]:
        x = LEFT
        for n, name in enumerate(self.lines):
            yield f'<rect x="{x}" y="32" width="14" height="4" fill="{COLOURS[n % len(COLOURS)]}"/>'
            yield f'<text x="{x + 20}" y="38">{escape(name)}</text>'
            x += 44 + 7 * len(name)

    def _line(self, line: Line, colour: str) -> str:
        places = [(self._at_x(x), self._at_y(y)) for x, y in line]
        if not places:
            return ""
        if self.bars:
            ends = [x for x, _ in [*places[1:], places[-1]]]
            path = f"M{places[0][0]:.1f} {HEIGHT - BOTTOM}"
            path += "".join(f"L{x:.1f} {y:.1f}H{end:.1f}" for (x, y), end in zip(places, ends, strict=True))
            return f'<path d="{path}V{HEIGHT - BOTTOM}" fill="{colour}" fill-opacity=".25" stroke="{colour}"/>'
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places)
        return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/><g fill="{colour}">{dots}</g>'

    def _xs(self) -> list[float]:
        return sorted({x for line in self.lines.values() for x, _ in line})

    def _x_ticks(self) -> list[float]:
        xs = self._xs()
        return xs[:: max(math.ceil(len(xs) / 12), 1)]

    def _top(self) -> float:
        return max((y for line in self.lines.values() for _, y in line), default=0.0) or 1.0

    def _at_x(self, x: float) -> float:
        xs = self._xs()
        if self.log_x:
            least = min((each for each in xs if each > 0), default=1.0)
            zero = least / 10 if 0 in xs else least  # one decade left of the first
            low, high, x = math.log(zero), math.log(max(xs[-1], zero)), math.log(max(x, zero))
        else:
            low, high = xs[0], xs[-1]
        return LEFT + (x - low) / ((high - low) or 1.0) * (WIDTH - LEFT - RIGHT)

    def _at_y(self, y: float) -> float:
        return HEIGHT - BOTTOM - y / ticks(self._top())[-1] * (HEIGHT - TOP - BOTTOM)


def ticks(top: float) -> list[float]:
    """Round numbers from 0 up to the first at or above `top`, five or so."""
    rough = top / 5
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(n * magnitude for n in (1, 2, 2.5, 5, 10) if n * magnitude >= rough * 0.999)
    return [n * step for n in range(math.ceil(top / step * 0.999) + 1)]


def short(value: float) -> str:
    """Such as 0.35, 12, 5k, 1M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
