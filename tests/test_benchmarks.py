"""The harness: what it refuses, how it counts; and the committed results."""

import json
import math
import re
import time
from datetime import date
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks import harness
from benchmarks.harness import Method, race

ROOT = Path(__file__).resolve().parents[1]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
PAGE = (ROOT / "book" / "reference" / "benchmarks.md").read_text("utf-8")
NAMES = [
    f"{stem}-{device}" for stem in harness.PARTS.values() for device in ("cpu", "cuda")
]


class Clock:
    """A clock that methods move on."""

    now = 0.0

    def perf_counter(self):
        return self.now

    def takes(self, *seconds, answer=1.0):
        """A method's run: so many seconds, the last for ever; it counts its runs."""
        times = list(seconds)

        def run():
            run.count += 1
            self.now += times.pop(0) if len(times) > 1 else times[0]
            return answer

        run.count = 0
        return run


@pytest.fixture
def clock(monkeypatch):
    fake = Clock()
    monkeypatch.setattr(harness, "time", fake)
    return fake


def rows(found):
    return {row["name"]: row for row in found.rows}


def off_by(truth):
    return lambda answer: abs(answer - truth)


def test_ratios_are_of_medians(clock):
    ours = clock.takes(9, 5, 1, 2, 6)
    peer = clock.takes(50, 40, 3, 30, 4)
    found = race("t", [Method("sgdbook", ours), Method("peer", peer)], rounds=3)
    assert ours.count == peer.count == 5  # two runs warm up
    mine, other = rows(found)["sgdbook"], rows(found)["peer"]
    assert (mine["seconds"], mine["fastest"], mine["ratio"]) == (2, 1, 1)
    assert (other["seconds"], other["fastest"], other["ratio"]) == (4, 3, 2)
    assert mine["runs"] == other["runs"] == 3
    assert (found.baseline, found.unit, found.work) == ("sgdbook", "ms", 1.0)


def test_methods_take_turns(clock):
    order = []

    def method(name):
        def run():
            clock.now += 1
            order.append(name)

        return Method(name, run)

    race("t", [method("sgdbook"), method("a"), method("b")], rounds=2)
    assert order[:6] == ["sgdbook"] * 2 + ["a"] * 2 + ["b"] * 2
    assert order[6:] == ["sgdbook", "a", "b"] * 2


def test_another_baseline(clock):
    methods = [Method("x", clock.takes(2)), Method("y", clock.takes(6))]
    assert rows(race("t", methods, ours="y"))["x"]["ratio"] == pytest.approx(1 / 3)


def test_wrong_methods_do_not_race(clock):
    wrong = clock.takes(1, answer=1.5)
    found = race(
        "t",
        [
            Method("sgdbook", clock.takes(1), off_by(1), 0.1),
            Method("wrong", wrong, off_by(1), 0.1),
            Method("at the limit", clock.takes(1, answer=1.5), off_by(1), 0.5),
            Method("nan", clock.takes(1, answer=math.nan), off_by(1)),
        ],
        error_name="relative error",
    )
    row = rows(found)["wrong"]
    assert row["why"] == "relative error 0.5 is above 0.1"
    assert "seconds" not in row
    assert row["error"] == 0.5
    assert wrong.count == 2
    assert rows(found)["at the limit"]["error"] == 0.5
    assert rows(found)["at the limit"]["ratio"] == 1
    assert rows(found)["nan"]["error"] is None
    assert "why" in rows(found)["nan"]


def test_ours_must_be_right(clock):
    with pytest.raises(AssertionError, match="t: sgdbook is wrong: error 1 is above"):
        race("t", [Method("sgdbook", clock.takes(1), off_by(0), 0.1)])


def test_a_broken_method_has_a_row_but_ours_may_not_break(clock):
    def breaks():
        raise RuntimeError("no such mode")

    found = race("t", [Method("sgdbook", clock.takes(1)), Method("peer", breaks)])
    assert rows(found)["peer"] == {
        "name": "peer",
        "error": None,
        "why": "RuntimeError: no such mode",
    }
    with pytest.raises(RuntimeError, match="no such mode"):
        race("t", [Method("sgdbook", breaks)])


def test_a_method_that_could_not_be_had(clock):
    methods = [Method("sgdbook", clock.takes(1)), Method("peer", why="not for 3.11")]
    assert rows(race("t", methods))["peer"]["why"] == "not for 3.11"


@pytest.mark.parametrize("times, runs", [((61,), 1), ((60, 61), 2), ((60, 60), 5)])
def test_slow_methods_are_not_repeated(clock, times, runs):
    slow = clock.takes(*times)
    methods = [Method("sgdbook", clock.takes(2)), Method("slow", slow)]
    row = rows(race("t", methods, rounds=3))["slow"]
    assert slow.count == runs
    assert row["runs"] == max(1, runs - 2)
    assert row["ratio"] == times[-1] / 2


def test_a_run_is_cut_off():
    methods = [
        Method("sgdbook", lambda: time.sleep(0.001)),
        Method("endless", lambda: time.sleep(60)),
    ]
    found = rows(race("t", methods, limit=0.05, rounds=1))
    assert found["endless"]["why"] == "cut off after 0.05 s"
    assert found["endless"]["cut"] == 0.05
    ratio = 0.05 / found["sgdbook"]["seconds"]
    assert found["endless"]["ratio_above"] == pytest.approx(ratio)
    with pytest.raises(harness.OverTime):
        race("t", [Method("sgdbook", lambda: time.sleep(60))], limit=0.05)


def test_preparation_is_not_timed(clock):
    before = clock.takes(100)
    found = race("t", [Method("sgdbook", clock.takes(1), prepare=before)], rounds=4)
    assert before.count == 6
    assert rows(found)["sgdbook"]["seconds"] == 1


def test_facts(clock, capsys):
    method = Method(
        "sgdbook", clock.takes(1, answer=7), facts=lambda answer: {"size": answer}
    )
    assert rows(race("t", [method]))["sgdbook"]["facts"] == {"size": 7}
    assert "size 7" in capsys.readouterr().out


@pytest.mark.parametrize("unit, shown", [("ms", "2000 ms"), ("M/s", "1.5 M/s")])
def test_the_printed_figure(clock, capsys, unit, shown):
    methods = [Method("sgdbook", clock.takes(2))]
    race("title", methods, unit=unit, work=3e6, goal="fast")
    said = capsys.readouterr().out
    assert "title\ngoal: fast\n" in said
    assert shown in said


def test_bad_races(clock):
    twice = [Method("sgdbook", clock.takes(1)), Method("sgdbook", clock.takes(1))]
    with pytest.raises(ValueError, match="the methods must differ and include"):
        race("t", twice)
    with pytest.raises(ValueError, match="must differ and include 'sgdbook'"):
        race("t", [Method("peer", clock.takes(1))])
    with pytest.raises(ValueError, match=r"targets name \['JAX'\]"):
        race("t", twice[:1], targets={"JAX": {"ratio": 2}})


def test_a_peer_that_is_absent():
    assert harness.peer("json") is json
    assert harness.peer("no_such_package") is None
    assert "ModuleNotFoundError" in harness.absent.pop("no_such_package")


@pytest.mark.parametrize("part", ["E", "e", "symbolic"])
def test_results_survive_the_file(clock, tmp_path, monkeypatch, part):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    found = race(
        "Γ of ε",
        [
            Method("sgdbook", clock.takes(1), off_by(1)),
            Method("nan", clock.takes(1, answer=math.nan), off_by(1)),
        ],
        targets={"nan": {"ratio": 2}},
    )
    harness.save(part, [found], ["sympy", "no-such-package"], notes=["a note"])
    text = (tmp_path / "results" / "symbolic-cpu.json").read_text("utf-8")
    assert text.endswith("}\n")
    content = json.loads(text)
    check(content)
    assert content["part"] == "e"
    assert content["notes"] == ["a note"]
    assert content["versions"]["sympy"]
    assert content["versions"]["no-such-package"] is None
    (back,) = content["races"]
    assert back["rows"] == found.rows
    assert back["targets"] == {"nan": {"ratio": 2}}
    assert back["title"] == "Γ of ε"


def test_no_other_parts():
    with pytest.raises(ValueError, match=r"part must be one of .*; got 'g'\. "):
        harness.save("g", [], [])


def check(content):
    """What the page relies on."""
    assert content["part"] in harness.PARTS
    assert date.fromisoformat(content["machine"]["date"]) >= date(2026, 1, 1)
    assert content["machine"]["device"]
    assert content["machine"]["threads"] >= 1
    assert {"torch", "numpy"} <= set(content["versions"])
    assert content["races"]
    for one in content["races"]:
        names = [row["name"] for row in one["rows"]]
        assert len(set(names)) == len(names)
        assert set(one["targets"]) <= set(names)
        (ours,) = (row for row in one["rows"] if row["name"] == one["baseline"])
        assert ours["ratio"] == 1
        for row in one["rows"]:
            if "seconds" in row:
                assert row["seconds"] > 0
                ratio = row["seconds"] / ours["seconds"]
                assert row["ratio"] == pytest.approx(ratio)
            else:
                assert row["why"]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_results(path):
    content = json.loads(path.read_text("utf-8"))
    check(content)
    assert path.stem in NAMES
    assert path.stem.startswith(harness.PARTS[content["part"]])
    for name in ("/work", "/tmp", "/root", "/home"):
        assert name not in path.read_text("utf-8")


def test_the_page_reads_every_result():
    named = set(re.findall(r'"([\w-]+)\.json"', PAGE))
    assert named <= set(NAMES)
    assert {path.stem for path in RESULTS} <= named
    assert {f"{stem}-cpu" for stem in harness.PARTS.values()} <= named
    folder = re.search(r'FOLDER = Path\("(.*)"\)', PAGE)[1]
    where = (ROOT / "book" / "reference" / folder).resolve()
    assert where == harness.RESULTS


def test_the_page_shows_every_part():
    for letter in harness.PARTS:
        assert f'\nreport("{letter}")\n' in PAGE
        assert f'\nbars("{letter}")\n' in PAGE
    assert "import benchmarks" not in PAGE


def test_peers_are_pinned_and_leave_our_own_pins_alone():
    def pins(path):
        lines = (ROOT / path).read_text("utf-8").splitlines()
        return {canonicalize_name(r.name): r for r in map(Requirement, lines)}

    peers = pins("benchmarks/peers.lock")
    for requirement in peers.values():
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
    assert not set(peers) & set(pins("requirements.lock"))
    assert {"jax", "diffrax", "torchsde", "einsteinpy", "fplanck"} <= set(peers)
