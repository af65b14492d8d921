"""What the banks of a job would send if nothing failed: trained here, from their rows."""

import json

import numpy as np

from fedsys.clients.trainer import Trainer
from fedsys.federation.banks import Banks
from fedsys.federation.jobs.folder import JobFolder
from fedsys.layout import read_weights
from fedsys.objectives import objective
from fedsys.randomness import seeded_globals
from fedsys.tables import Preparation, prepare
from fedsys.trust.jobs import open_job
from fedsys.trust.signing import ring
from tests.federation.faults.federation import Federation


class Honest:
    """The banks of a job. start: [numbers], the model before the first round. rows: bank -> how
    many it trains on."""

    def __init__(self, federation: Federation, job: JobFolder) -> None:
        home = federation.home
        signed = (job.folder / "job.json").read_bytes()
        opened, _ = open_job(signed, ring(home.keys.signing.public_key()), home.facts.name)
        made = Preparation.of(
            json.loads((home.folder / "preparation.json").read_text()), home.schema
        )
        terms = opened.terms
        self._strategy, self._layout = terms.strategy, opened.layout
        with seeded_globals(terms.seed):
            self.start = read_weights(opened.model())
        self.rows, self._trainers = {}, {}
        for bank in Banks(home.folder / "banks.json").all():
            examples = prepare(federation.bank(bank.name).source(), home.schema, made).examples
            self.rows[bank.name] = len(examples)
            self._trainers[bank.name] = Trainer(
                opened.model(), objective(terms.objective), terms.local, terms.strategy, examples,
                client=bank.number, weight=float(len(examples)), seed=terms.seed,
            )  # fmt: skip

    def moves(self, round: int, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Bank -> how far it moves in a round ([numbers] float64), from these weights."""
        state = self._strategy.begin(weights[: self._layout.parameters])
        found = {}
        for name, trainer in self._trainers.items():
            tensors = trainer.train(round, weights, state).update.tensors
            found[name] = self._layout.gather(tensors).astype(np.float64)
        return found
