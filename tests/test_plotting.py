"""Figures: ellipses against samples, and a slider that stands on its own."""

import base64
import json
import re

import numpy as np
import pytest
from matplotlib import pyplot as plt

from sgdbook import plotting


def test_ellipse_is_one_standard_deviation_away():
    matrix, centre = np.array([[3.0, 1.0], [1.0, 2.0]]), np.array([1.0, -1.0])
    figure, axes = plt.subplots()
    line = plotting.noise_ellipse(axes, centre, matrix, scale=2, color="red")
    plt.close(figure)
    points = line.get_xydata() - centre
    distance = np.einsum("ki,ij,kj->k", points, np.linalg.inv(matrix), points)
    assert np.allclose(distance, 4)
    assert np.allclose(points.max(0), 2 * np.sqrt(np.diag(matrix)), rtol=1e-3)
    assert line.get_color() == "red"


def test_ellipses_of_rank_one_are_segments():
    figure, axes = plt.subplots()
    for angle in np.linspace(0.1, 3, 30):  # rounding makes some eigenvalues negative
        v = np.array([np.cos(angle), np.sin(angle)])
        points = plotting.noise_ellipse(axes, [0, 0], np.outer(v, v)).get_xydata()
        assert np.abs(points @ [-v[1], v[0]]).max() < 1e-7
        assert abs(np.abs(points @ v).max() - 1) < 1e-7
    plt.close(figure)


@pytest.mark.parametrize(
    "matrix",
    [
        [[1.0, 0.0]],
        [[1.0, 2.0], [0.0, 1.0]],
        [[1.0, 0.0], [0.0, -1.0]],
        [[np.nan, 0.0], [0.0, 1.0]],
    ],
)
def test_no_covariance(matrix):
    figure, axes = plt.subplots()
    plt.close(figure)
    with pytest.raises(ValueError, match="matrix must be a covariance"):
        plotting.noise_ellipse(axes, [0, 0], matrix)


def draw(slope):
    figure, axes = plt.subplots(figsize=(1, 1))
    axes.plot([0, slope], [0, 1])
    return figure


def test_slider_holds_its_frames():
    open_before = plt.get_fignums()
    texts = {"label": "slope <k>", "alt": 'A "line"', "caption": "Lines & slopes."}
    shown = plotting.slider([1.0, 2.5, 1 / 3], draw, **texts)
    assert plt.get_fignums() == open_before
    page = shown._repr_html_()
    others = json.loads(re.search(r"sources = \[picture.src, \.\.\.(\[.*?\])", page)[1])
    sources = [re.search('<img .* src="(.*?)"', page)[1], *others]
    assert len(set(sources)) == 3
    for source in sources:
        kind, data = source.split(",")
        assert kind == "data:image/svg+xml;base64"
        frame = base64.b64decode(data)
        assert b"<svg" in frame and b"<dc:date>" not in frame  # builds are equal
        paths = b"".join(re.findall(rb' d="M [^"]*"', frame))
        assert re.search(rb"\.\d\d\b", paths) and not re.search(rb"\.\d{3}", paths)
    assert json.loads(re.search(r"values = (\[.*?\])", page)[1]) == [
        "1",
        "2.5",
        "0.333",
    ]
    assert 'max="2"' in page and "slope &lt;k&gt;" in page
    assert 'alt="A &quot;line&quot;"' in page and "Lines &amp; slopes." in page
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    name = re.search('id="(.*?)"', page)[1]
    assert name not in shown._repr_html_()  # shown twice, two sliders


@pytest.mark.parametrize(
    "change, text",
    [
        ({"values": [1.0]}, "values must be at least two.*got 1"),
        ({"alt": " "}, "alt must be a text"),
        ({"label": None}, "label must be a text"),
        ({"caption": ""}, "caption must be a text"),
    ],
)
def test_bad_slider(change, text):
    arguments = {"values": [1, 2], "label": "k", "alt": "k", "caption": "k"} | change
    with pytest.raises(ValueError, match=text):
        plotting.slider(arguments.pop("values"), draw, **arguments)
