"""Federated algorithms, one file each: what it changes in FedAvg, and nothing else."""

from fedsys.choices import Family
from fedsys.strategies.fedadagrad import FedAdagrad
from fedsys.strategies.fedadam import FedAdam
from fedsys.strategies.fedavg import FedAvg
from fedsys.strategies.fedavgm import FedAvgM
from fedsys.strategies.fedprox import FedProx
from fedsys.strategies.fedsgd import FedSGD
from fedsys.strategies.fedyogi import FedYogi
from fedsys.strategies.scaffold import Scaffold

STRATEGIES = Family(
    "strategy",
    {
        "fedavg": FedAvg,
        "fedsgd": FedSGD,
        "fedprox": FedProx,
        "fedavgm": FedAvgM,
        "fedadagrad": FedAdagrad,
        "fedadam": FedAdam,
        "fedyogi": FedYogi,
        "scaffold": Scaffold,
    },
)

__all__ = [
    "STRATEGIES",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedProx",
    "FedSGD",
    "FedYogi",
    "Scaffold",
]
