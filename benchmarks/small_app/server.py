"""Plain FedAvg over all nodes. After each round it says so, and waits until it may go on."""

import sys

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    nodes = context.run_config["nodes"]
    strategy = FedAvg(min_train_nodes=nodes, min_evaluate_nodes=nodes, min_available_nodes=nodes)
    arrays = ArrayRecord([np.zeros((1_000, 10), "float32"), np.zeros(10, "float32")])
    result = strategy.start(grid, arrays, num_rounds=context.run_config["rounds"], evaluate_fn=turn)
    loss = result.evaluate_metrics_clientapp[context.run_config["rounds"]]["loss"]
    print(f"loss {loss!r}", flush=True)


def turn(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    print(f"round {server_round}", flush=True)
    sys.stdin.readline()
    return MetricRecord()
