"""The peers: what each is called, where it runs, and in which ways it may be set up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.peers.environments import command, installed, interpreter

CONVOLUTIONS = ("convolution", "cifar")
"""Workloads in which XLA is hopeless on a CPU, and not tried."""


@dataclass(frozen=True)
class Peer:
    """A simulator.

    title: in tables. module: of this package, its worker. environment: the name of its own, or None
    for ours. ways: set-ups, of which the quickest counts; those of `dense` are tried only without
    convolutions. packages: whose versions are printed. variables: set for it. note: what should be
    known about it. target: how many times quicker ours should be on the logistic regression.
    """

    name: str
    title: str
    module: str
    environment: str | None
    ways: tuple[str, ...]
    packages: tuple[str, ...]
    dense: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    target: float | None = None

    @property
    def missing(self) -> str:
        """What to say where its environment is not there; empty where nothing is missing."""
        if self.environment is None or installed(self.environment):
            return ""
        return f"not installed: {command(self.environment)}"

    @property
    def python(self) -> str:
        return sys.executable if self.environment is None else str(interpreter(self.environment))

    def ways_on(self, workload: str) -> tuple[str, ...]:
        """The set-ups to try on a workload."""
        return self.ways if workload in CONVOLUTIONS else self.ways + self.dense

    def versions(self) -> str:
        """Of its packages, as installed where it runs."""
        script = (
            "import json, sys; from importlib.metadata import version; "
            "print(json.dumps([version(name) for name in sys.argv[1:]]))"
        )
        ran = subprocess.run(
            [self.python, "-c", script, *self.packages], capture_output=True, text=True, check=True
        )
        found = zip(self.packages, json.loads(ran.stdout), strict=True)
        return ", ".join(f"{name} {version}" for name, version in found)


OURS = Peer("ours", "fedsys", "ours", None, ("compiled",), ("tensorflow", "keras"))

PEERS = (
    Peer(
        "flower",
        "Flower",
        "flower",
        "flower",
        ("graph", "fit"),
        ("flwr", "ray", "tensorflow"),
        note="Its server looks for answers every 0.1 s, so that no round is shorter.",
        target=50,
    ),
    Peer(
        "tff",
        "TFF",
        "tff_fedavg",
        "tff",
        ("functional", "keras"),
        ("tensorflow-federated", "tensorflow"),
        note="Rows come in the plan's order: a shuffling of its own would be another order.",
        target=50,
    ),
    Peer(
        "pfl",
        "pfl (TensorFlow)",
        "pfl_tensorflow",
        "pfl",
        ("graph",),
        ("pfl", "tensorflow", "tf-keras"),
        dense=("xla",),
        note="With the older Keras: with Keras 3 it silently keeps one kernel and one bias of a "
        "network. One process: its TensorFlow side divides work among machines alone.",
        target=20,
    ),
    Peer(
        "pfl-torch",
        "pfl (PyTorch)",
        "pfl_pytorch",
        "pfl-torch",
        ("many", "one"),
        ("pfl", "torch"),
        note="`many` needs at least as many clients a round as cores. Float32 sums in another "
        "order: on CIFAR a pooling whose two largest values are all but equal may choose the "
        "other. In float64 its weights are TensorFlow's to 1e-14.",
        target=20,
    ),
    Peer(
        "fedjax",
        "FedJAX",
        "fedjax_fedavg",
        "fedjax",
        ("jit", "pmap"),
        ("fedjax", "jax", "jaxlib"),
        variables={"JAX_PMAP_NO_RANK_REDUCTION": "0"},
        note="Its pmap needs an older behaviour of JAX, which a variable brings back.",
        target=5,
    ),
    Peer(
        "keras",
        "keras.fit",
        "keras_fit",
        None,
        ("graph",),
        ("tensorflow", "keras"),
        dense=("xla",),
    ),
)


def named(names: str | None) -> tuple[Peer, ...]:
    """The peers of a list with commas; all if None. Raises ValueError for a name that is none."""
    if names is None:
        return PEERS
    known = {peer.name: peer for peer in PEERS}
    wanted = names.split(",")
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(f"no peer {unknown[0]!r}: use some of {', '.join(known)}")
    return tuple(known[name] for name in wanted)
