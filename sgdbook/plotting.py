"""The book's figures: colours that survive colour blindness, dark mode, a slider."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from itertools import count

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

# Okabe and Ito's palette, in the order in which curves are drawn.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, SKY, AMBER = "#CC79A7", "#56B4E9", "#E69F00"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER)
_numbers = count()


def use_book_style() -> None:
    """Set matplotlib's defaults for a chapter: vector images, quiet axes.

    The background is transparent and lines and text are dark; in dark mode the pages
    invert the image, which keeps its hues.

    Examples
    --------
    >>> use_book_style()
    >>> mpl.rcParams["figure.facecolor"]
    'none'
    """
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:  # outside of a notebook there is no inline backend
        pass
    else:
        set_matplotlib_formats("svg")
    mpl.rcParams.update(
        {
            "figure.figsize": (6.0, 3.5),
            "figure.facecolor": "none",
            "figure.constrained_layout.use": True,
            "axes.facecolor": "none",
            "axes.prop_cycle": mpl.cycler(color=COLOURS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "font.size": 12.0,
            "legend.frameon": False,
            "legend.fontsize": "small",
            "lines.linewidth": 1.8,
            "errorbar.capsize": 2.5,
            "svg.fonttype": "path",
            "svg.hashsalt": "sgdbook",
        }
    )
    plt.close("all")


def noise_ellipse(axes, centre, matrix, *, scale=1.0, **style):
    r"""Draw where noise of a covariance puts a point one standard deviation away.

    The ellipse is :math:`\{c + sA^{1/2}e : |e| = 1\}`; where A has rank one it is a
    segment.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    centre : array_like, shape (2,)
        The point c.
    matrix : array_like, shape (2, 2)
        The covariance A, symmetric and positive semidefinite.
    scale : float
        The factor s of all lengths.
    **style
        Passed on to ``axes.plot``.

    Returns
    -------
    matplotlib.lines.Line2D

    Raises
    ------
    ValueError
        If the matrix is not 2 x 2, symmetric, finite and positive semidefinite.

    Examples
    --------
    >>> figure, axes = plt.subplots()
    >>> line = noise_ellipse(axes, [1, 0], [[4, 0], [0, 0]])
    >>> bool(np.isclose(line.get_xdata().max(), 3.0))
    True
    >>> plt.close(figure)
    """
    matrix, centre = np.asarray(matrix, float), np.asarray(centre, float)
    scaled = np.abs(matrix).max(initial=0.0)
    if (
        matrix.shape != (2, 2)
        or not np.isfinite(matrix).all()
        or np.abs(matrix - matrix.T).max() > 1e-8 * scaled
        or np.linalg.eigvalsh(matrix)[0] < -1e-8 * scaled
    ):
        raise ValueError(
            "matrix must be a covariance: 2 x 2, symmetric, finite, with no negative "
            f"eigenvalue; got {matrix.tolist()}. Pass D at the point, or two of its "
            "rows and columns."
        )
    values, axes_of = np.linalg.eigh(matrix)
    angle = np.linspace(0, 2 * np.pi, 121)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    curve = (axes_of * np.sqrt(values.clip(min=0))) @ circle * scale
    style = {"color": "0.3", "linewidth": 1.0, **style}
    return axes.plot(*(centre[:, None] + curve), **style)[0]


class Slider:
    """Frames of a figure, one a value, with a slider; made by `slider`."""

    def __init__(self, values, frames, label, alt, caption):
        self.values, self.frames = values, frames
        self.label, self.alt, self.caption = label, alt, caption

    def __repr__(self):
        return f"{self.alt} ({len(self.frames)} frames, {self.label})"

    def _repr_html_(self):
        """Return the figure as HTML that needs nothing from outside the page."""
        name = f"slider-{next(_numbers)}"
        others = json.dumps(["data:image/svg+xml;base64," + f for f in self.frames[1:]])
        values = json.dumps(self.values, ensure_ascii=False)
        label, alt = html.escape(self.label), html.escape(self.alt)
        return f"""<figure class="slider" id="{name}">
<img alt="{alt}" src="data:image/svg+xml;base64,{self.frames[0]}">
<label>{label} <input type="range" min="0" max="{len(self.frames) - 1}" value="0">
<output>{html.escape(self.values[0])}</output></label>
<figcaption>{html.escape(self.caption)}</figcaption>
<script>(() => {{
  const figure = document.getElementById("{name}");
  const input = figure.querySelector("input"), picture = figure.querySelector("img");
  const sources = [picture.src, ...{others}], values = {values};
  const show = () => {{
    picture.src = sources[input.value];
    figure.querySelector("output").textContent = values[input.value];
    input.setAttribute("aria-valuetext", values[input.value]);
  }};
  input.addEventListener("input", show);
  show();
}})();</script>
</figure>"""


def slider(values, draw, *, label, alt, caption):
    """Return a figure with a slider, which stays in the page and needs no kernel.

    Parameters
    ----------
    values : sequence
        One value a frame.
    draw : callable
        Value -> `matplotlib.figure.Figure`, which is closed afterwards. Fix the axes'
        limits, or the picture jumps.
    label : str
        What the slider moves.
    alt : str
        The picture in words.
    caption : str
        Plain text below it.

    Returns
    -------
    Slider
        Shown by a notebook where it is the last line of a cell.

    Raises
    ------
    ValueError
        If there are fewer than two values, or a text is empty.

    Examples
    --------
    >>> def draw(k):
    ...     figure, axes = plt.subplots(figsize=(1, 1))
    ...     axes.plot([0, k], [0, 1])
    ...     return figure
    >>> slider([1, 2], draw, label="slope", alt="A line.", caption="Lines.")
    A line. (2 frames, slope)
    """
    values = list(values)
    if len(values) < 2:
        raise ValueError(
            f"values must be at least two, one a frame; got {len(values)}. For one "
            "picture draw a figure."
        )
    for text, name in ((label, "label"), (alt, "alt"), (caption, "caption")):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(
                f"{name} must be a text; got {text!r}. Readers who cannot see the "
                "picture, or work the slider, depend on it."
            )
    frames = []
    for value in values:
        figure, file = draw(value), io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
        plt.close(figure)
        svg = re.sub(rb' d="[^"]*"', _shortened, file.getvalue())
        frames.append(base64.b64encode(svg).decode())
    shown = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in values]
    return Slider(shown, frames, label, alt, caption)


def _shortened(path):
    """Return a path of an SVG with its coordinates cut to hundredths of a point."""
    return re.sub(rb"(\.\d\d)\d+", rb"\1", path[0])
