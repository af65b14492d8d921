"""The clients, as a Flower app has them: a model from the message, one epoch, its weights back."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Trains on the rows that the node's configuration names."""
    from model import small_model

    config = context.run_config
    with np.load(str(context.node_config["rows"])) as rows:
        inputs, labels = rows["inputs"], rows["labels"]
    model = small_model(int(config["inputs"]), float(config["rate"]))
    model.set_weights(message.content["arrays"].to_numpy_ndarrays())
    fitted = model.fit(inputs, labels, batch_size=int(config["batch"]), verbose=0)
    metrics = {"loss": float(fitted.history["loss"][0]), "num-examples": len(labels)}
    content = {"arrays": ArrayRecord(model.get_weights()), "metrics": MetricRecord(metrics)}
    return Message(RecordDict(content), reply_to=message)
