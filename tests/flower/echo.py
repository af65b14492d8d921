"""A bank's app that sends back what it is sent, plus one; run as a script by `deployed.py`."""

import sys
import threading
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedsys.child import end_with_parent
from fedsys.flower.processes.answering import serve


def answer(content: RecordDict) -> RecordDict:
    asked = content.get("asked", ConfigRecord())
    time.sleep(float(asked.get("sleep", 0)))
    arrays = content["arrays"]
    added = {name: Array(np.asarray(array.numpy() + 1)) for name, array in arrays.items()}
    if "more" in asked:
        added["more"] = Array(np.arange(asked["more"]))
    return RecordDict({"arrays": ArrayRecord(added)})


def refuse(content: RecordDict) -> RecordDict:
    return RecordDict({"refused": ConfigRecord({"why": "not ours"})})


end_with_parent()
serve(sys.argv[1], Path(sys.argv[2]), answer, refuse, threading.Event())
