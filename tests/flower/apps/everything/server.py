"""Strategies and a loop of its own, one after the other; all that comes out goes into a file."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideFixedClipping,
    FedAdam,
    FedAvg,
    FedMedian,
    FedTrimmedAvg,
    Krum,
)

NODES = 9
ALL = {"min_train_nodes": NODES, "min_evaluate_nodes": NODES, "min_available_nodes": NODES}
app = ServerApp()


class outer:  # noqa: N801
    """A reference may have dots."""

    app = app


@app.lifespan()
def lifespan(context: Context):
    Path("begun.txt").write_text("begun")
    yield
    Path("ended.txt").write_text("ended")


@app.main()
def main(grid: Grid, context: Context) -> None:
    found = {
        "word": context.run_config["word"],
        "node": context.node_id,
        "config": dict(context.node_config),
    }
    arrays = ArrayRecord([np.arange(6.0).reshape(2, 3), np.ones(2)])
    rounds = context.run_config["rounds"]
    for strategy in (FedAvg(**ALL), FedMedian(**ALL), FedAdam(eta=0.5, **ALL), Krum(**ALL),
                     FedTrimmedAvg(beta=0.25, **ALL), Spoiled(**ALL, fraction_evaluate=0.0),
                     Spoiled(**ALL, fraction_evaluate=0.0, action="configured")):  # fmt: skip
        name = type(strategy).__name__ + getattr(strategy, "action", "")
        config = ConfigRecord({"lr": 0.25, "values": [1, 2]})
        found[name] = told(
            strategy.start(grid, arrays, rounds, 60, config, None, evaluated), arrays
        )
        found[name]["sent"] = dict(config.items())
    clipped = DifferentialPrivacyClientSideFixedClipping(
        Spoiled(min_train_nodes=NODES, min_available_nodes=NODES, fraction_evaluate=0.0,
                action="clipped"), 0.0, 3.0, NODES)  # fmt: skip
    found["clipped"] = told(clipped.start(grid, arrays, 1, 60), arrays)
    half = Half(fraction_train=0.5, fraction_evaluate=0.0)
    half.start(grid, arrays, 1, 60, ConfigRecord({"lr": 0.25, "values": [1, 2]}))
    found["half"] = half.heard
    found["nodes"] = len(list(grid.get_node_ids()))  # with Flower none, perhaps, at the start
    found["loop"] = loop(grid)
    Path("found.json").write_text(json.dumps(found, indent=1, sort_keys=True))


class Spoiled(FedAvg):
    """FedAvg whose clients do something of their own with the message."""

    def __init__(self, *, action="spoiling", **options):
        super().__init__(**options)
        self.action = action

    def configure_train(self, server_round, arrays, config, grid):
        for message in super().configure_train(server_round, arrays, config, grid):
            message.metadata.message_type = f"train.{self.action}"
            yield message


def evaluated(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    return MetricRecord({"sum": float(sum(w.sum() for w in arrays.to_numpy_ndarrays()))})


class Half(Spoiled):
    """Notes how many nodes answered; which they are is chance, so they keep no state of it."""

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        self.heard = len(replies), len({reply.metadata.src_node_id for reply in replies})
        return super().aggregate_train(server_round, replies)


def told(result, before: ArrayRecord) -> dict:
    """A result in plain values, and the initial arrays, which nobody may have changed."""
    metrics = (
        result.train_metrics_clientapp,
        result.evaluate_metrics_clientapp,
        result.evaluate_metrics_serverapp,
    )
    return {
        "arrays": [w.tolist() for w in result.arrays.to_numpy_ndarrays()],
        "before": [w.tolist() for w in before.to_numpy_ndarrays()],
        "metrics": [{k: dict(v) for k, v in each.items()} for each in metrics],
    }


def loop(grid: Grid) -> dict:
    """Pushes and pulls by hand, with messages that nobody can answer."""
    nodes = list(grid.get_node_ids())
    content = RecordDict({"arrays": ArrayRecord([np.ones(1)])})
    asked = [Message(content, node, "query", group_id="7", ttl=60.0) for node in nodes]
    # To any node: Flower's first may be the one that fails, and this fails at all of them.
    asked += [Message(content, nodes[0], kind) for kind in ("query.unknown", "train.unknown")]
    asked += [Message(content, 12345, "query")]  # no such node
    ids = list(grid.push_messages(asked))
    replies, open_ = [], set(ids)
    while open_:
        for reply in grid.pull_messages(open_):
            replies.append(reply)
            open_.discard(reply.metadata.reply_to_message_id)
        time.sleep(0.02)
    again = list(grid.pull_messages(ids[:2]))
    unknown = list(grid.pull_messages(["no-such-id"]))
    by_id = {reply.metadata.reply_to_message_id: reply for reply in replies}
    short = list(grid.send_and_receive([Message(content, nodes[0], "query")], timeout=0))
    forbidden = grid.send_and_receive([Message(content, nodes[0], "train.configured")])
    failing = grid.send_and_receive(Message(content, node, "train") for node in nodes)
    return {
        "sent": len(ids),
        "facts": sorted(
            [dict(by_id[name].content["facts"]) for name in ids[: len(nodes)]],
            key=lambda facts: facts["partition"],
        ),
        "errors": [by_id[name].error.code for name in ids[len(nodes) :] if by_id[name].has_error()],
        "again": [(reply.error.code, reply.metadata.message_type) for reply in again],
        "unknown": [(reply.error.code, reply.metadata.reply_to_message_id) for reply in unknown],
        "short": len(short),
        "failing": sorted(reply.error.code for reply in failing if reply.has_error()),
        "forbidden": [reply.error.code for reply in forbidden if reply.has_error()],
    }
