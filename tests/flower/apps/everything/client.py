"""Clients that fail, remember, spoil their messages and go through mods."""

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import (
    LocalDpMod,
    arrays_size_mod,
    fixedclipping_mod,
    message_size_mod,
)

app = ClientApp(mods=[message_size_mod])
FAILING = 8  # of nine: eight equal weights add up without rounding
began = []


@app.lifespan()
def lifespan(context: Context):
    began.append(context.node_id)
    yield


def reply_to(msg: Message, arrays, **metrics) -> Message:
    records = {"metrics": MetricRecord({"num-examples": 4, **metrics})}
    if arrays is not None:
        records["arrays"] = ArrayRecord(arrays)
    return Message(RecordDict(records), reply_to=msg)


def counted(context: Context) -> int:
    """How often this node trained, as its state tells."""
    record = context.state.setdefault("count", MetricRecord({"trained": 0}))
    record["trained"] += 1
    return record["trained"]


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Fails at one node, in the middle of changing its state."""
    partition = context.node_config["partition-id"]
    trained = counted(context)
    context.state["seen"] = ConfigRecord({"rounds": [trained] * trained})
    if partition == FAILING:
        raise ValueError(f"no luck at {trained}")
    weights = [w + 2.0**partition * trained for w in msg.content["arrays"].to_numpy_ndarrays()]
    return reply_to(msg, weights, trained=trained, partition=float(partition))


@app.train("spoiling")
def spoiling(msg: Message, context: Context) -> Message:
    """Empties and overwrites whatever it was sent."""
    partition = context.node_config["partition-id"]
    if partition == FAILING:
        raise RuntimeError("no luck")
    weights = msg.content["arrays"].to_numpy_ndarrays(keep_input=False)
    left = len(msg.content["arrays"])
    for w in weights:
        w += context.run_config["nested.step"] * partition
    values = msg.content["config"]["values"]
    values.append(partition)
    msg.content["config"]["lr"] = -1.0
    del msg.content["config"]["server-round"]
    return reply_to(msg, weights, left=left, values=float(sum(values)))


@app.train("clipped", mods=[fixedclipping_mod, arrays_size_mod, LocalDpMod(1e9, 0.0, 1.0, 0.1)])
def clipped(msg: Message, context: Context) -> Message:
    weights = [w + 3.0 for w in msg.content["arrays"].to_numpy_ndarrays()]
    return reply_to(msg, weights, squares=9.0)


@app.train("configured")
def configured(msg: Message, context: Context) -> Message:
    """Writes into its run config, which is forbidden."""
    context.run_config["word"] = "mine"
    return reply_to(msg, [np.zeros(1)])


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    partition = context.node_config["partition-id"]
    total = float(sum(w.sum() for w in msg.content["arrays"].to_numpy_ndarrays()))
    if partition == FAILING:
        raise KeyError("nothing to evaluate")
    return reply_to(msg, None, total=total, squares=[float(partition**2), 1.0])


@app.query()
def query(msg: Message, context: Context) -> Message:
    """Says what a client finds in its context and its message."""
    seen = context.state["seen"]["rounds"] if "seen" in context.state else []
    facts = {
        "partition": context.node_config["partition-id"],
        "partitions": context.node_config["num-partitions"],
        "keys": " ".join(sorted(context.node_config)),
        "word": context.run_config["word"],
        "step": context.run_config["nested.step"],
        "state": "has " + " ".join(sorted(context.state)),
        "seen": "saw " + " ".join(str(number) for number in seen),
        "group": msg.metadata.group_id,
        "type": msg.metadata.message_type,
        "from": msg.metadata.src_node_id,
        "to-me": msg.metadata.dst_node_id == context.node_id,
        "same-run": msg.metadata.run_id == context.run_id,
        "ttl": msg.metadata.ttl,
        "delivered": msg.metadata.delivered_at != "",
        "named": msg.metadata.message_id != "",
        "alive": context.node_id in began,
    }
    return Message(RecordDict({"facts": ConfigRecord(facts)}), reply_to=msg)
