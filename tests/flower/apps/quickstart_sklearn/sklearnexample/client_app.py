"""quickstart-sklearn: A Flower / sklearn app."""

import warnings

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from sklearn.metrics import log_loss

from sklearnexample.task import (
    get_model,
    get_model_params,
    load_data,
    set_initial_params,
    set_model_params,
)

app = ClientApp()


def prepared(msg: Message, context: Context):
    """The global model and this client's data."""
    model = get_model(context.run_config["penalty"], context.run_config["local-epochs"])
    set_initial_params(model)
    set_model_params(model, msg.content["arrays"].to_numpy_ndarrays())
    partition_id = context.node_config["partition-id"]
    num_partitions = context.node_config["num-partitions"]
    return model, load_data(partition_id, num_partitions)


@app.train()
def train(msg: Message, context: Context):
    """Train the model on local data."""
    model, (x_train, _, y_train, _) = prepared(msg, context)

    # Ignore convergence failure due to low local epochs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x_train, y_train)

    train_logloss = log_loss(y_train, model.predict_proba(x_train), labels=range(10))
    metrics = {
        "num-examples": len(x_train),
        "train_logloss": train_logloss,
        "train_accuracy": model.score(x_train, y_train),
    }
    content = RecordDict(
        {"arrays": ArrayRecord(get_model_params(model)), "metrics": MetricRecord(metrics)}
    )
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context):
    """Evaluate the model on local test data."""
    model, (_, x_test, _, y_test) = prepared(msg, context)
    loss = log_loss(y_test, model.predict_proba(x_test), labels=range(10))
    metrics = {
        "num-examples": len(x_test),
        "test_logloss": loss,
        "accuracy": model.score(x_test, y_test),
    }
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)
