"""Time methods side by side, after they were shown to be right.

A race runs every method once, checks its answer, then runs all of them in turn, round
after round, so that a busy machine slows all alike.  What counts is the ratio.  The
results go to ``benchmarks/results/<part>-<device>.json``, which the book shows.
"""

from __future__ import annotations

import datetime
import importlib
import json
import math
import os
import platform
import signal
import statistics
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import numpy
import torch

RESULTS = Path(__file__).with_name("results")
PARTS = {
    "a": "ensembles",
    "b": "first_passage",
    "c": "diffusion_matrix",
    "d": "christoffel",
    "e": "symbolic",
    "f": "fokker_planck",
}


@dataclass
class Method:
    """One way to the answer.

    ``run()`` returns the answer; ``error(answer)`` says how wrong it is, in units that
    the race names; ``allowed`` is the error above which the method does not race.  A
    method without ``run`` is one that could not be had: ``why`` says so.  ``prepare()``
    is called before every run and not timed; ``facts(answer)`` is a dict of further
    numbers for the table, such as the size of a formula.
    """

    name: str
    run: object = None
    error: object = None
    allowed: float = math.inf
    why: str = ""
    prepare: object = None
    facts: object = None


@dataclass
class Race:
    """The outcome of one race, all times in seconds."""

    title: str
    unit: str
    work: float
    baseline: str
    goal: str
    error_name: str = "error"
    targets: dict = field(default_factory=dict)
    rows: list[dict] = field(default_factory=list)


# geomstats and fplanck call these; NumPy has renamed them.
RENAMED = {"trapz": "trapezoid", "product": "prod"}


def peer(name):
    """Import a peer; return the module, or None and note why in ``absent``."""
    for old, new in RENAMED.items():
        if not hasattr(numpy, old):
            setattr(numpy, old, getattr(numpy, new))
    try:
        return importlib.import_module(name)
    except Exception as problem:  # a peer may fail to import in any way it likes
        first = (str(problem).splitlines() or ["no message"])[0]
        absent[name] = f"{type(problem).__name__}: {first}"
        return None


absent: dict[str, str] = {}


def race(
    title,
    methods,
    *,
    ours="sgdbook",
    unit="ms",
    work=1.0,
    goal="",
    rounds=7,
    error_name="error",
    patience=60.0,
    limit=None,
    targets=None,
):
    """Check all methods, time them in turn, and return the race.

    Parameters
    ----------
    title : str
        What is computed, with its sizes.
    methods : list of Method
        The one named ``ours`` is what the ratios refer to.
    unit : str
        ``"ms"`` for times; any other unit makes the figure ``work / seconds / 1e6``,
        for instance million particle-steps a second.
    work : float
        How much one run does, if the figure is a rate.
    goal : str
        The goal, in words.
    rounds : int
        Timed rounds.  A method that took longer than ``patience`` seconds when it was
        checked is not run again: that one time stands.
    error_name : str
        What the errors are.
    limit : float, optional
        Seconds after which a run is cut off, for code in pure Python; its row says so.
    targets : dict, optional
        The goal in numbers, which the book's page judges: for the name of a method
        ``{"ratio": least ratio}``, or with ``"error"`` the least ratio of the errors.
    """
    names = [m.name for m in methods]
    if len(set(names)) < len(names) or ours not in names:
        raise ValueError(f"the methods must differ and include {ours!r}; got {names}.")
    if unknown := set(targets or {}) - set(names):
        raise ValueError(f"targets name {sorted(unknown)}; there are {names}.")
    result = Race(title, unit, work, ours, goal, error_name, dict(targets or {}))
    times, errors, failed, facts, cut = {}, {}, {}, {}, {}
    for m in methods:
        if m.run is None:
            failed[m.name] = m.why or "not to be had"
            continue
        try:
            answer, took = _timed(m, limit)  # warms compilers, caches, thread pools
            if took <= patience:
                answer, took = _timed(m, limit)
        except OverTime:
            if m.name == ours:
                raise
            cut[m.name] = limit
            failed[m.name] = f"cut off after {limit:g} s"
            continue
        except Exception as problem:  # a peer that breaks gets a row that says so
            if m.name == ours:
                raise
            failed[m.name] = f"{type(problem).__name__}: {str(problem)[:200]}"
            continue
        if m.error is not None:
            errors[m.name] = float(m.error(answer))
            if not errors[m.name] <= m.allowed:
                failed[m.name] = (
                    f"{error_name} {errors[m.name]:.2g} is above {m.allowed:.2g}"
                )
                if m.name == ours:
                    raise AssertionError(f"{title}: {ours} is wrong: {failed[m.name]}")
                continue
        if m.facts is not None:
            facts[m.name] = m.facts(answer)
        times[m.name] = [took] if took > patience else []
    slow = {name for name, taken in times.items() if taken}
    for _ in range(rounds):
        for m in methods:
            if m.name in times and m.name not in slow:
                times[m.name].append(_timed(m)[1])
    mine = statistics.median(times[ours])
    for m in methods:
        error = errors.get(m.name, math.nan)
        row = {"name": m.name, "error": error if math.isfinite(error) else None}
        if m.name in times:
            took = statistics.median(times[m.name])
            row |= {
                "seconds": took,
                "fastest": min(times[m.name]),
                "runs": len(times[m.name]),
                "ratio": took / mine,
            }
            if m.name in facts:
                row["facts"] = facts[m.name]
        else:
            row["why"] = failed[m.name]
            if m.name in cut:
                row |= {"cut": cut[m.name], "ratio_above": cut[m.name] / mine}
        result.rows.append(row)
    show(result)
    return result


class OverTime(BaseException):
    """A run was cut off; no peer's ``except Exception`` may catch it."""


@contextmanager
def _limit(seconds):
    """Raise `OverTime` in the body after so many seconds, if any."""
    if seconds is None:
        yield
        return

    def stop(*_):
        raise OverTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _timed(method, limit=None):
    """Return what a run of the method returns and the seconds that it took."""
    if method.prepare is not None:
        method.prepare()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    with _limit(limit):
        began = time.perf_counter()
        answer = method.run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return answer, time.perf_counter() - began


def show(result):
    """Print one race as a table."""
    print(f"\n{result.title}")
    if result.goal:
        print(f"goal: {result.goal}")
    wide = max(len(row["name"]) for row in result.rows)
    rate = result.unit != "ms"
    for row in result.rows:
        head = f"  {row['name']:<{wide}}"
        if "why" in row:
            print(f"{head}  - {row['why']}")
            continue
        figure = result.work / row["seconds"] / 1e6 if rate else 1e3 * row["seconds"]
        error = "" if row["error"] is None else f"  error {row['error']:.1e}"
        more = "".join(f"  {k} {v}" for k, v in row.get("facts", {}).items())
        print(
            f"{head}  {figure:>10.4g} {result.unit}  x {row['ratio']:<8.4g}"
            f" ({row['runs']} runs){error}{more}"
        )


def machine(device="cpu"):
    """Say on what and with what it was measured."""
    return {
        "date": datetime.date.today().isoformat(),
        "device": (torch.cuda.get_device_name() if device == "cuda" else _processor()),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }


def _processor():
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def save(part, races, packages, *, device="cpu", notes=()):
    """Write the races of one part as data, with machine, versions and date.

    Parameters
    ----------
    part : str
        A letter or name of `PARTS`; the file is ``results/<name>-<device>.json``.
    races : list of Race
    packages : list of str
        Names of the installed packages whose versions matter, as pip knows them.
    device : {"cpu", "cuda"}
    notes : sequence of str
        What a reader of the figures has to know: limits, failures, surprises.
    """
    stem = PARTS.get(part.lower(), part)
    letters = {value: letter for letter, value in PARTS.items()}
    if stem not in letters:
        raise ValueError(f"part must be one of {PARTS}; got {part!r}. Use a letter.")
    versions = {}
    for name in ["torch", "numpy", *packages]:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    content = {
        "part": letters[stem],
        "machine": machine(device),
        "versions": versions,
        "notes": list(notes),
        "races": [asdict(r) for r in races],
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{stem}-{device}.json"
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")
    print(f"\nwritten: {path.relative_to(RESULTS.parents[1])}")


def threads():
    """Use every core, or what OMP_NUM_THREADS says; return how many."""
    count = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    torch.set_num_threads(count)
    return count
