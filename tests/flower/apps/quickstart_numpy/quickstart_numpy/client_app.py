"""quickstart-numpy: A Flower / NumPy app."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from quickstart_numpy.task import load_data
from quickstart_numpy.task import test as test_fn
from quickstart_numpy.task import train as train_fn

# Flower ClientApp
app = ClientApp()


@app.train()
def train(msg: Message, context: Context):
    """Train the model on local data."""
    weights = msg.content["arrays"].to_numpy_ndarrays()

    partition_id = context.node_config["partition-id"]
    num_partitions = context.node_config["num-partitions"]
    data, _ = load_data(partition_id, num_partitions)

    loss = train_fn(
        weights,
        data,
        context.run_config["local-epochs"],
        msg.content["config"]["lr"],
        context.run_config["shuffle"],
    )

    model_record = ArrayRecord(weights)
    metrics = {"train_loss": loss, "num-examples": len(data[1])}
    content = RecordDict({"arrays": model_record, "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context):
    """Evaluate the model on local data."""
    weights = msg.content["arrays"].to_numpy_ndarrays()

    partition_id = context.node_config["partition-id"]
    num_partitions = context.node_config["num-partitions"]
    _, data = load_data(partition_id, num_partitions)

    metrics = {"eval_loss": test_fn(weights, data), "num-examples": len(data[1])}
    content = RecordDict({"metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=msg)
