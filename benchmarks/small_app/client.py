"""Softmax regression of 10,010 parameters on 20 rows, one step a round."""

from functools import cache

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

ROWS, FEATURES, CLASSES = 20, 1_000, 10
app = ClientApp()


@cache
def load_data(partition_id: int):
    rng = np.random.default_rng(partition_id)
    x = rng.normal(size=(ROWS, FEATURES)).astype("float32")
    return x, np.eye(CLASSES, dtype="float32")[rng.integers(0, CLASSES, ROWS)]


def scores(weights, x):
    logits = x @ weights[0] + weights[1]
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    return likely / likely.sum(axis=1, keepdims=True)


@app.train()
def train(msg: Message, context: Context):
    weights = msg.content["arrays"].to_numpy_ndarrays()
    x, y = load_data(context.node_config["partition-id"])
    error = (scores(weights, x) - y) / len(y)
    weights = [weights[0] - 0.1 * (x.T @ error), weights[1] - 0.1 * error.sum(axis=0)]
    metrics = MetricRecord({"num-examples": len(y), "error": float(np.abs(error).sum())})
    return Message(RecordDict({"arrays": ArrayRecord(weights), "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context):
    x, y = load_data(context.node_config["partition-id"])
    likely = scores(msg.content["arrays"].to_numpy_ndarrays(), x)
    loss = float(-np.log((likely * y).sum(axis=1) + 1e-9).mean())
    metrics = MetricRecord({"num-examples": len(y), "loss": loss})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)
