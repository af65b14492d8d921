"""quickstart-keras: A Flower / Keras app."""

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from kerasexample.task import load_data, load_model

# Create ServerApp
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Main entry point for the ServerApp."""
    num_rounds: int = context.run_config["num-server-rounds"]
    fraction_train: float = context.run_config["fraction-train"]

    # Load the initial global model
    model = load_model(seed=context.run_config["seed"])
    arrays = ArrayRecord(model.get_weights())

    # Start strategy, run FedAvg until num_rounds is reached
    strategy = FedAvg(fraction_train=fraction_train)
    result = strategy.start(
        grid=grid, initial_arrays=arrays, num_rounds=num_rounds, evaluate_fn=global_evaluate
    )

    # Save the final model
    print("\nSaving final model...")
    model.set_weights(result.arrays.to_numpy_ndarrays())
    model.save("final_model.keras")


def global_evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Evaluate the model on all digits."""
    model = load_model()
    model.set_weights(arrays.to_numpy_ndarrays())
    x, y, _, _ = load_data(0, 1)
    loss, accuracy = model.evaluate(x, y, verbose=0)
    return MetricRecord({"loss": loss, "accuracy": accuracy})
