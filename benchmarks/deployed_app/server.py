"""The server, as a Flower app has it: FedAvg, and a line with the time after every round."""

import time

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs the rounds."""
    from model import small_model

    config = context.run_config

    def stamp(round: int, arrays: ArrayRecord) -> MetricRecord:
        with open(str(config["times"]), "a", encoding="utf-8") as file:
            file.write(f"{round} {time.time()}\n")
        return MetricRecord({"round": round})

    model = small_model(int(config["inputs"]), float(config["rate"]))
    FedAvg(fraction_evaluate=0.0).start(
        grid,
        ArrayRecord(model.get_weights()),
        num_rounds=int(config["rounds"]),
        evaluate_fn=stamp,
    )
