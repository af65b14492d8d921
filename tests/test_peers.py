"""The benchmark of the peers: what it makes of results, what it hands out, what it leaves behind.

Peers themselves are run where their environments are installed, on tiny sizes; no figure is judged.
"""

import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "benchmarks" / "peers" / "requirements"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


@pytest.fixture
def nothing_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDSYS_HOME", str(tmp_path))


def peers():
    from benchmarks.peers.catalogue import PEERS

    return PEERS


def results():
    """Two workloads with made-up figures: Flower takes 60 and 2 times ours, TFF is not there."""
    from benchmarks.peers.catalogue import OURS
    from benchmarks.peers.measure import Measured, Result
    from benchmarks.workloads import WORKLOADS

    flower, tff, *_ = peers()

    def result(name, ours, theirs, rounding, difference):
        return Result(
            WORKLOADS[name],
            Measured(OURS, "", "compiled", ours, 4.0, 500_000_000, rounding),
            (
                Measured(flower, "", "graph", theirs, 20.0, 2_000_000_000, difference),
                Measured(tff, "not installed: python -m benchmarks.peers --install tff"),
            ),
        )

    return [
        result("logistic", [0.002, 0.001, 0.003], [0.12, 0.08, 0.15], 1e-8, 1e-6),
        result("cifar", [2.0, 2.0, 2.0], [4.0, 3.0, 5.0], 1e-4, 1e-2),
    ]


def cells(markdown):
    """Rows of cells, without the line below the header."""
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in markdown.splitlines()]
    assert all(len(row) == len(rows[0]) for row in rows)
    return rows[:1] + rows[2:]


# --- requirements and environments ----------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.glob("*.txt")), ids=lambda path: path.stem)
def test_every_requirement_is_pinned_with_hashes_and_names_no_host(path):
    text = path.read_text()
    assert "://" not in text and "index" not in text
    found = re.split(r"\n(?=\S)", text.strip())
    assert len(found) > 15
    for requirement in found:
        first, *hashes = [line.rstrip(" \\") for line in requirement.splitlines()]
        assert re.fullmatch(r"[a-z0-9-]+==[^\s;]+( ; .+)?", first), first
        assert hashes and all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}", h) for h in hashes)


def test_each_peer_has_pins_a_worker_and_packages_among_the_pins():
    for peer in peers():
        assert (ROOT / "benchmarks" / "peers" / f"{peer.module}.py").exists()
        if peer.environment is not None:
            pins = (REQUIREMENTS / f"{peer.environment}.txt").read_text()
            for package in peer.packages:
                assert re.search(rf"^{package}==", pins, re.MULTILINE), package


@pytest.mark.usefixtures("nothing_installed")
def test_a_missing_environment_names_the_command_that_makes_it():
    flower = peers()[0]
    assert flower.missing == "not installed: python -m benchmarks.peers --install flower"


def test_an_environment_of_other_pins_counts_as_missing(monkeypatch, tmp_path):
    from benchmarks.peers import environments

    monkeypatch.setenv("FEDSYS_HOME", str(tmp_path))
    mark = tmp_path / "peers" / "flower" / "installed"
    mark.parent.mkdir(parents=True)
    mark.write_text(environments._digest("flower"))
    assert environments.installed("flower")
    mark.write_text(environments._digest("tff"))
    assert not environments.installed("flower")


def command(*arguments, **variables):
    run = [sys.executable, "-m", "benchmarks.peers", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_mistakes_end_in_one_line(tmp_path):
    unknown = command("--install", "nobody")
    assert unknown.returncode == 2 and unknown.stdout == ""
    (line,) = unknown.stderr.splitlines()
    assert "'nobody'" in line and "flower" in line

    misspelt = command("--peers", "tf")
    assert misspelt.returncode == 2
    assert "no peer 'tf'" in misspelt.stderr.splitlines()[-1]

    occupied = tmp_path / "file"
    occupied.touch()
    full = command("--install", "flower", FEDSYS_HOME=str(occupied))
    assert full.returncode == 12
    (line,) = full.stderr.splitlines()
    assert str(occupied) in line and "FEDSYS_HOME" in line


# --- tables and the plot --------------------------------------------------------------------------


def test_ratios_are_medians_turn_by_turn():
    from benchmarks.peers import tables

    header, logistic, cifar = cells(tables.ratios(results()))
    assert header == ["times ours", "Flower", "TFF"]
    assert logistic[:2] == ["logistic", "60"] and cifar[:2] == ["cifar", "2"]
    assert logistic[2].startswith("not installed: ")


def test_times_show_median_and_least():
    from benchmarks.peers import tables

    _, logistic, _ = cells(tables.times(results()))
    assert logistic[:3] == ["logistic", "2 (1)", "120 (80)"]


def test_targets_are_met_or_missed():
    from benchmarks.peers import tables

    _, *rows = cells(tables.targets(results()))
    assert rows == [
        ["logistic", "Flower", ">= 50", "60", "met"],
        ["logistic", "TFF", ">= 50", "not measured", ""],
        ["logistic", "every peer", "> 1", "60", "met"],
        ["cifar", "the best of them", ">= 3", "2", "missed"],
        ["cifar", "every peer", "> 1", "2", "met"],
    ]


def test_other_tables_have_a_row_a_workload():
    from benchmarks.peers import tables

    for each in (tables.startups, tables.peaks, tables.differences, tables.ways):
        assert [row[0] for row in cells(each(results()))[1:]] == ["logistic", "cifar"]
    _, logistic, cifar = cells(tables.differences(results()))
    assert logistic[1:4] == ["1e-08", "1e-04", "1e-06 holds"]
    assert cifar[1:4] == ["1e-04", "1e-03", "1e-02 misses"]
    assert cells(tables.peaks(results()))[1][1:3] == ["500", "2,000"]


@pytest.mark.usefixtures("nothing_installed")
def test_versions_of_what_is_installed():
    from benchmarks.peers import tables

    _, ours, flower, *_ = cells(tables.versions(peers()))
    assert ours[1].startswith("tensorflow 2.")
    assert flower[1] == "" and flower[2].startswith("not installed")


def test_the_plot_shows_each_figure_and_is_the_same_each_time(tmp_path):
    from benchmarks.peers import tables
    from benchmarks.peers.plot import plot

    for name in ("a.svg", "b.svg"):
        plot(tables.summary(results()), tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    ElementTree.fromstring(text)
    for shown in ("logistic", "cifar", "fedsys", "Flower", "2 ms", "120 ms", "2 s", "4 s"):
        assert f">{shown}<" in text
    assert "TFF" not in text
    assert text == (tmp_path / "b.svg").read_text()


@pytest.mark.parametrize("seconds, text", [(0.00194, "1.9 ms"), (0.12, "120 ms"), (20.7, "21 s")])
def test_durations(seconds, text):
    from benchmarks.peers.plot import duration

    assert duration(seconds) == text


# --- what is handed out ---------------------------------------------------------------------------


@pytest.mark.parametrize("mapped", [False, True])
def test_a_federation_is_read_as_it_was_written(tmp_path, mapped):
    from benchmarks.peers.federation import Federation
    from benchmarks.peers.measure import federation
    from benchmarks.workloads import workload

    made = federation(workload("convolution", tiny=True), 3)
    made.write(tmp_path / "new")
    read = Federation.read(tmp_path / "new", mapped=mapped)
    for name in ("inputs", "labels", "cohorts", "plans"):
        assert np.array_equal(getattr(read, name), getattr(made, name))
    assert all(map(np.array_equal, read.weights, made.weights))
    assert (read.name, read.rate, read.dropout) == ("convolution", made.rate, False)
    assert (read.cohort, read.batch, read.rows) == (3, 32, 64)
    assert np.array_equal(read.plan_of(4), made.plans[1])
    assert np.array_equal(read.cohort_of(5), made.cohorts[2])


def test_plans_hold_each_row_of_the_cohort_once():
    from benchmarks.peers.measure import federation
    from benchmarks.workloads import workload

    work = workload("logistic", tiny=True)
    made = federation(work, 2)
    partition = work.partition(work.examples())
    for cohort, plan in zip(made.cohorts, made.plans, strict=True):
        for client, rows in zip(cohort, plan, strict=True):
            assert np.array_equal(np.sort(rows.ravel()), np.sort(partition[client]))


# --- processes ------------------------------------------------------------------------------------

NEST = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
print("ready", flush=True)
time.sleep(float(sys.argv[1]))
"""


def alive(process):
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(processes):
    end = time.monotonic() + 20
    while any(map(alive, processes)):
        assert time.monotonic() < end
        time.sleep(0.02)
    return True


def guarded(seconds, **options):
    guard = [sys.executable, "-m", "benchmarks.peers.guard"]
    process = subprocess.Popen(
        [*guard, sys.executable, "-c", NEST, str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.skipif(sys.platform != "linux", reason="the guard is for Linux")
@pytest.mark.parametrize("how", ["ends by itself", "is told to end"])
def test_the_guard_leaves_nothing_behind(how):
    from benchmarks.peers.guard import below

    process = guarded(1000 if how == "is told to end" else 1.5)
    started = below(process.pid)
    assert len(started) == 2
    if how == "is told to end":
        process.send_signal(signal.SIGTERM)
    assert process.wait(20) == (143 if how == "is told to end" else 0)
    process.stdout.close()
    assert gone(started)


@pytest.mark.skipif(sys.platform != "linux", reason="the guard is for Linux")
def test_the_guard_ends_all_when_its_parent_is_killed():
    from benchmarks.peers.guard import below

    parent = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    guard = [sys.executable, "-m", "benchmarks.peers.guard", sys.executable, "-c", NEST, "1000"]
    process = subprocess.Popen(
        [sys.executable, "-c", parent, *guard], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    started = below(process.pid)
    assert len(started) == 3
    process.kill()
    process.wait()
    process.stdout.close()
    assert gone(started)


# --- the peers themselves -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory):
    """The tiny logistic regression, for measuring and comparing."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.peers.measure import federation
    from benchmarks.workloads import workload

    folder = tmp_path_factory.mktemp("federation")
    work = workload("logistic", tiny=True)
    federation(work, 3).write(folder / "measured")
    federation(work.comparable(), 2).write(folder / "comparable")
    return folder


def by_hand(folder):
    """The weights after two rounds of softmax regression, in float64."""
    from benchmarks.peers.federation import AGREED, Federation

    given = Federation.read(folder / "comparable")
    kernel, bias = (weight.astype(np.float64) for weight in given.weights)
    for round in range(AGREED):
        ended = []
        for plan in given.plan_of(round):
            w, b = kernel, bias
            for rows in plan:
                x, labels = given.inputs[rows].astype(np.float64), given.labels[rows]
                logits = x @ w + b
                shares = np.exp(logits - logits.max(1, keepdims=True))
                shares /= shares.sum(1, keepdims=True)
                slope = (shares - np.eye(10)[labels]) / len(rows)
                w, b = w - given.rate * x.T @ slope, b - given.rate * slope.sum(0)
            ended.append((w, b))
        kernel, bias = (np.mean(parts, axis=0) for parts in zip(*ended, strict=True))
    return np.concatenate([kernel.ravel(), bias])


def each_in_one_way():
    sys.path.insert(0, str(ROOT))
    from benchmarks.peers.catalogue import OURS

    for peer in (OURS, *peers()):
        # pfl's processes must not be more than the three clients of a tiny cohort.
        way = next(way for way in peer.ways if way != "many")
        yield pytest.param(peer, way, id=f"{peer.name}-{way}")


@pytest.mark.skipif(sys.platform != "linux", reason="the peers run on Linux")
@pytest.mark.parametrize("peer, way", list(each_in_one_way()))
def test_a_peer_computes_what_is_computed_by_hand(peer, way, handed_out, tmp_path):
    from benchmarks.peers.federation import Federation
    from benchmarks.peers.guard import below
    from benchmarks.peers.processes import PeerWorker

    if peer.missing:
        pytest.skip(peer.missing)
    path = tmp_path / "weights.npy"
    with ExitStack() as stack:
        worker = stack.enter_context(PeerWorker(peer, handed_out, way))
        assert worker.first() > 0
        assert worker.ask("turn", times=2) > 0
        worker.ask("agree", path=str(path), federation="comparable")
        assert worker.weighed() > 50e6
        started = below(worker._process.pid)
    assert started and gone(started)
    begin = np.concatenate([w.ravel() for w in Federation.read(handed_out / "comparable").weights])
    expected = by_hand(handed_out)
    moved = np.linalg.norm(expected - begin)
    assert moved > 0.01
    assert np.linalg.norm(np.load(path) - expected) < 1e-4 * moved


@pytest.mark.usefixtures("nothing_installed")
def test_a_run_with_peers_that_are_missing(tmp_path):
    picture = tmp_path / "peers.svg"
    arguments = ["--tiny", "--turns", "1", "--only", "logistic", "--peers", "tff,fedjax"]
    ran = command(*arguments, "--plot", str(picture))
    assert ran.returncode == 0, ran.stderr
    tables = ran.stdout.split("\n\n")
    header, row = cells(tables[1])
    assert header == ["ms a round", "fedsys", "TFF", "FedJAX"]
    assert row[0] == "logistic" and re.fullmatch(r"[\d.]+ \([\d.]+\)", row[1])
    assert row[2] == "not installed: python -m benchmarks.peers --install tff"
    assert "fedsys" in picture.read_text()


def test_a_peer_that_fails_says_why(tmp_path):
    from benchmarks.peers.measure import quickest

    said = []
    with ExitStack() as stack:
        found = quickest(peers()[-1], tmp_path / "nowhere", "cifar", stack, said.append)
    assert found.startswith("graph: FileNotFoundError") and "nowhere" in found
    assert len(said) == 1
