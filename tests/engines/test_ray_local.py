"""A Ray of our own: it begins with a run and ends with it, however that ends."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from fedsys.layout import read_weights
from fedsys.runs import Run

from ..conftest import lines, until

pytest.importorskip("ray", reason="needs ray")

ENDLESS = ("--rounds", 100_000, "--evaluate", 0, "--workers", 1)
RUN = Path("runs")


def stat(process):
    """Name, state, parent and group of a process; None of one that is gone."""
    with suppress(OSError):
        text = Path(f"/proc/{process}/stat").read_text()
        name, _, rest = text.partition("(")[2].rpartition(")")
        state, parent, group = rest.split()[:3]
        return name, state, int(parent), int(group)
    return None


def all_processes():
    found = {int(name): stat(name) for name in os.listdir("/proc") if name.isdecimal()}
    return {number: one for number, one in found.items() if one and one[1] != "Z"}


def group_of_foreman(child):
    """The group of processes that a run started."""
    for number, (_, _, parent, group) in all_processes().items():
        if parent == child and group == number:
            return group
    return 0


def members(group):
    return {number: one[0] for number, one in all_processes().items() if one[3] == group}


def title(process):
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text()
    return ""


def listening(processes):
    """Addresses, as the kernel has them in hexadecimal, on which the processes listen."""
    inodes = set()
    for process in processes:
        with suppress(OSError):
            for file in os.listdir(f"/proc/{process}/fd"):
                with suppress(OSError):
                    target = os.readlink(f"/proc/{process}/fd/{file}")
                    if target.startswith("socket:["):
                        inodes.add(target[8:-1])
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def under_way(nursery, *more):
    """A run on Ray that has done a round, its folder and its group of processes."""
    child = nursery.start("simulate", "--engine", "ray", *ENDLESS, *more)
    until(lambda: any(len(lines(folder)) > 1 for folder in RUN.glob("*")))
    group = group_of_foreman(child.pid)
    assert "raylet" in members(group).values()
    (folder,) = RUN.glob("*")
    return child, folder, group


def test_ray_that_dies_ends_the_run_in_a_line_and_the_run_goes_on_until_ctrl_c(nursery, own_task):
    """Ctrl-C lets the round end, and ends all of Ray with the run."""
    child, folder, group = under_way(nursery, "--task", own_task, "--seed", 3)
    assert listening(members(group)) <= LOOPBACK and listening(members(group))
    (raylet,) = (number for number, name in members(group).items() if name == "raylet")
    os.kill(raylet, signal.SIGKILL)
    child.wait().refused(12, "Ray", "died")
    assert not members(group)
    died = Run(folder).records[-1]["round"]
    child = nursery.start("simulate", "--resume", folder, "--rounds", 100_000)
    until(lambda: lines(folder)[-1]["round"] > died)
    group = group_of_foreman(child.pid)
    child.kill(signal.SIGINT)
    outcome = child.wait()
    assert outcome.code == 130 and "go on with --resume" in outcome.err, outcome.err
    assert "Traceback" not in outcome.err and group and not members(group)
    assert Run(folder).facts["status"] == "stopped"
    assert Run(folder).facts["where"] == "Ray, 1 worker on 1 node"
    done = Run(folder).records[-1]["round"] + 1
    last = nursery.run("simulate", "--resume", folder, "--rounds", done, "--engine", "compiled")
    assert last.code == 0, last.err
    compiled = nursery.run("simulate", "--task", own_task, "--seed", 3, "--rounds", done,
                           "--evaluate", 0, "--workers", 1, "--out", "compiled")  # fmt: skip
    assert compiled.code == 0, compiled.err
    (other,) = Path("compiled").glob("*")
    ours, theirs = (read_weights(Run(place).model) for place in (folder, other))
    np.testing.assert_allclose(ours, theirs, atol=1e-6 * (1 + done / 10))


def test_a_killed_run_leaves_no_process_and_no_file(nursery):
    child, _, group = under_way(nursery)
    told = "\0".join(map(title, members(group)))
    made = {Path(path) for path in re.findall(r"/[^\0=:, ]*/fedsys-ray-\w+", told)}
    assert len(made) == 1 and all(path.exists() for path in made), made
    child.kill(signal.SIGKILL)
    child.wait()
    until(lambda: not members(group))
    assert not [path for path in made if path.exists()]


def test_ctrl_c_twice_ends_all_at_once_amid_a_round(nursery):
    child = nursery.start("simulate", "--engine", "ray", *ENDLESS, "--epochs", 200_000)
    until(lambda: group_of_foreman(child.pid))
    group = group_of_foreman(child.pid)
    until(lambda: any(title(process).startswith("ray::Worker.run") for process in members(group)))
    child.kill(signal.SIGINT)
    time.sleep(1.0)
    assert group in members(group), "one Ctrl-C lets the round end"
    child.kill(signal.SIGINT)
    outcome = child.wait()
    assert outcome.code == 130 and "Traceback" not in outcome.err
    until(lambda: not members(group))


def test_ctrl_c_while_ray_starts_ends_it(nursery):
    child = nursery.start("simulate", "--engine", "ray", *ENDLESS)
    until(lambda: group_of_foreman(child.pid))
    group = group_of_foreman(child.pid)
    time.sleep(0.5)  # amid the start of its processes
    child.kill(signal.SIGINT)
    outcome = child.wait()
    assert outcome.code == 130 and "Traceback" not in outcome.err
    assert not members(group)


@pytest.mark.parametrize(
    "address, said",
    [
        ("nowhere", "'nowhere' is no address of a Ray: write HOST:PORT or ray://HOST:PORT"),
        ("127.0.0.1:1", "no Ray answers at 127.0.0.1:1 (Connection refused): start one with"),
        ("ray://127.0.0.1:1", "`ray start --head --ray-client-server-port=1` there"),
    ],
)
def test_a_bad_address_is_one_line(nursery, address, said):
    nursery.run("simulate", "--ray", address, "--rounds", 1, "--quiet").refused(12, said)


def test_options_that_contradict_each_other_are_refused(cli):
    cli("simulate", "--engine", "compiled", "--ray", "a:1").refused(2, "--ray a:1 is for --engine")
    cli("simulate", "--engine", "ray:data=here").refused(2, "data must be one of auto, shared")
    cli("simulate", "--engine", "ray:threads=0").refused(2, "threads must be at least 1")


def test_without_ray_the_command_that_installs_it_is_said(cli, monkeypatch):
    def version(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr("fedsys.engines.choice.version", version)
    cli("simulate", "--ray", "127.0.0.1:1").refused(
        12, "engine 'ray': ray is not installed: fedsys engines install ray"
    )
