"""quickstart-keras: A Flower / Keras app."""

import keras
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from kerasexample.task import load_data, load_model

# Flower ClientApp
app = ClientApp()


@app.train()
def train(msg: Message, context: Context):
    """Train the model on local data."""
    # Reset local Tensorflow state
    keras.backend.clear_session()

    # Load the model and initialize it with the received weights
    model = load_model(context.run_config["learning-rate"])
    model.set_weights(msg.content["arrays"].to_numpy_ndarrays())

    # Load the data
    partition_id = context.node_config["partition-id"]
    num_partitions = context.node_config["num-partitions"]
    x_train, y_train, _, _ = load_data(partition_id, num_partitions)

    # Train the model on local data
    history = model.fit(
        x_train,
        y_train,
        epochs=context.run_config["local-epochs"],
        batch_size=context.run_config["batch-size"],
        shuffle=context.run_config["shuffle"],
        verbose=0,
    )

    # Construct and return reply Message
    metrics = {
        "num-examples": len(x_train),
        "train_loss": history.history["loss"][-1],
        "train_acc": history.history["accuracy"][-1],
    }
    content = RecordDict(
        {"arrays": ArrayRecord(model.get_weights()), "metrics": MetricRecord(metrics)}
    )
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context):
    """Evaluate the model on local data."""
    keras.backend.clear_session()

    model = load_model(context.run_config["learning-rate"])
    model.set_weights(msg.content["arrays"].to_numpy_ndarrays())

    partition_id = context.node_config["partition-id"]
    num_partitions = context.node_config["num-partitions"]
    _, _, x_test, y_test = load_data(partition_id, num_partitions)
    loss, accuracy = model.evaluate(x_test, y_test, verbose=0)

    metrics = {"eval_loss": loss, "eval_acc": accuracy, "num-examples": len(x_test)}
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)
