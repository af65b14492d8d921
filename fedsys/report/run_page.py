"""The report of a run: one HTML file with everything that its folder holds, for a reader."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.report.contents import Contents, Records, falls, metric_names, read, series
from fedsys.report.headline import alarm, heading, headline, updates_sent
from fedsys.report.page import Picture, curve, following, page, picture
from fedsys.report.run_figures import (
    Line,
    clients_picture,
    curves_picture,
    refusals_picture,
    sizes_picture,
)
from fedsys.report.svg import embedded
from fedsys.report.wording import NOTHING, day, duration, ranges, shown, title, word

if TYPE_CHECKING:
    from fedsys.runs import Run

WORST = 10  # clients in the table of the worst


def render(run: Run) -> str:
    """The report as one HTML file that needs no other, of whatever the run's folder holds."""
    return page("report.html.j2", **_story(read(run)))


def _story(found: Contents) -> dict[str, Any]:
    """Everything that the template says."""
    records = found.records
    return {
        "run": found,
        "heading": heading(found),
        "alarm": alarm(found),
        "tiles": headline(found),
        "curves": [curve(_lines(records, name), name) for name in _curve_names(records)],
        "partition": _partition(found),
        "clients": _clients(found),
        "time": _time(found),
        "refusals": _refusals(records),
        "model": _model(found.facts),
        "command": "fedsys simulate experiment.toml",
        "resume": "" if found.status == "done" else f"fedsys simulate --resume {found.name}",
        "environment": _environment(found.facts),
    }


def _curve_names(records: Records) -> list[str]:
    """Metrics to draw: those of the test set or of clients, and the loss in any case."""
    names = metric_names(records)
    names += [name for name in metric_names(records, "clients_") if name not in names]
    trained = len(series(records, "train_loss")[0]) > 0
    return names + (["loss"] if trained and "loss" not in names else [])


def _lines(records: Records, name: str) -> list[Line]:
    """What is known of a metric by round: of the test set, of the training, of the clients."""
    lines = [Line("Test set", *series(records, f"test_{name}"))]
    if name == "loss":
        lines.append(Line("Training", *series(records, "train_loss"), colour=1))
    rounds, mean = series(records, f"clients_{name}")
    spread = series(records, f"clients_{name}_spread")[1]
    if len(rounds) > 1 and len(rounds) == len(spread):  # of one, the clients' own section tells
        top = 1.0 if name == "accuracy" else np.inf
        low, high = np.clip([mean - spread, mean + spread], 0, top)
        lines.append(Line("Clients, mean ± spread", rounds, mean, low, high, colour=2))
        worst = Line("Worst client", *series(records, f"clients_{name}_worst"), colour=2, dash=2)
        lines.append(worst)
    return [line for line in lines if len(line.rounds)]


def _partition(found: Contents) -> dict[str, Any]:
    lines = [str(line) for line in found.facts.get("partition_lines", [])]
    said = [line.partition(": ") for line in lines]
    pairs = [(head.capitalize(), tail) if tail else ("", head) for head, _, tail in said]
    svg, why = None, ""
    if found.partition:
        svg = embedded(found.partition)
        why = "" if svg else "partition.svg is left out: it is not a picture that fedsys drew"
    return {"picture": Picture(svg, "Who holds what") if svg else None, "pairs": pairs, "why": why}


def _clients(found: Contents) -> dict[str, Any] | None:
    """How the clients fare at the end, by the metric that matters most."""
    scores = found.scores
    if scores is None or not scores.metrics:
        return None
    name = min(scores.metrics, key=lambda name: (name != "accuracy", name == "loss", name))
    values, percent = scores.metrics[name], name == "accuracy"
    held = np.flatnonzero((scores.rows > 0) & np.isfinite(values))
    if not len(held):
        return None
    rows, some = scores.rows[held], values[held]
    mean = float(np.average(some, weights=rows))
    figure = clients_picture(some, f"Clients by {word(name)}", mean=mean, percent=percent)
    pictures = [picture(figure, f"Clients by {word(name)}")]
    if len(held) > 2 and rows.max() > rows.min() + 1:
        label = f"{title(name)} against rows"
        figure = sizes_picture(rows, some, label, percent=percent)
        pictures.append(picture(figure, label))
    by_worth = held[np.argsort(-some if falls(name) else some, kind="stable")]
    quantile = 0.9 if falls(name) else 0.1
    lost = int(np.count_nonzero((scores.rows > 0) & ~np.isfinite(values)))
    return {
        "metric": word(name),
        "pictures": pictures,
        "pairs": [
            ("Mean over all rows", shown(name, mean)),
            ("Mean over clients", shown(name, float(some.mean()))),
            ("Spread over clients", _spread(name, float(some.std()))),
            ("Worst tenth of clients, from", shown(name, float(np.quantile(some, quantile)))),
            ("Worst client", shown(name, float(values[by_worth[0]]))),
            *([("Without rows", f"{np.count_nonzero(scores.rows == 0):,}")]
              if (scores.rows == 0).any() else []),
            *([("Not finite", f"{lost:,}")] if lost else []),
        ],
        "columns": [title(metric) for metric in scores.metrics],
        "owners": bool(scores.owners),
        "total": len(held),
        "worst": [
            {
                "client": int(scores.clients[place]),
                "owner": scores.owners[place] if scores.owners else "",
                "rows": f"{scores.rows[place]:,}",
                "values": [shown(key, float(each[place])) for key, each in scores.metrics.items()],
            }
            for place in by_worth[:WORST].tolist()
        ],
    }  # fmt: skip


def _spread(name: str, value: float) -> str:
    return f"± {100 * value:.2f} points" if name == "accuracy" else f"± {shown(name, value)}"


def _time(found: Contents) -> dict[str, Any] | None:
    """Where the time went."""
    rounds, training = series(found.records, "seconds")
    if not len(rounds):
        return None
    watched = [
        record
        for record in found.records
        if any(key.startswith(("test_", "clients_")) for key in record)
    ]
    evaluation = series(watched, "evaluation_seconds")
    lines = [Line("Training", rounds, training, colour=1)]
    lines += [Line("Evaluation", *evaluation)] if len(evaluation[0]) else []
    figure = curves_picture(lines, "Seconds a round")
    slowest = int(training.argmax())
    spent = {"Training": float(training.sum())}
    spent["Evaluation"] = float(series(found.records, "evaluation_seconds")[1].sum())
    total = float(found.facts.get("seconds") or 0.0)
    rest = total - sum(spent.values())
    if rest > 0:
        spent["The rest: preparing and writing"] = rest
    whole = sum(spent.values())
    return {
        "picture": following(figure, "Seconds a round", lines, "seconds"),
        "pairs": [
            ("Median round", duration(float(np.median(training)))),
            ("Nine in ten rounds within", duration(float(np.quantile(training, 0.9)))),
            ("Slowest round", f"{duration(float(training[slowest]))} (round {rounds[slowest]:,})"),
            *([("Median evaluation", duration(float(np.median(evaluation[1]))))]
              if len(evaluation[0]) else []),
        ],
        "shares": [
            {"label": label, "seconds": duration(seconds), "share": seconds / whole if whole else 0}
            for label, seconds in spent.items()
        ],
        "total": duration(whole),
    }  # fmt: skip


def _refusals(records: Records) -> dict[str, Any] | None:
    """Which updates were refused, and which rounds moved nothing."""
    idle = [int(record["round"]) for record in records if record.get("moved") is False]
    sent, refused = updates_sent(records)
    if not refused and not idle:
        return None
    reasons: dict[str, dict[int, int]] = defaultdict(dict)
    for record in records:
        told = Counter(record.get("reasons") or {})
        if rest := int(record.get("refused", 0)) - sum(told.values()):
            told["no reason on record"] += rest
        for reason, count in told.items():
            reasons[str(reason)][int(record["round"])] = count
    order = sorted(reasons, key=lambda reason: (-sum(reasons[reason].values()), reason))
    figure = refusals_picture(len(records), {reason: reasons[reason] for reason in order})
    label = "Refused updates by round"
    return {
        "picture": picture(figure, label) if refused else None,
        "reasons": [
            {
                "reason": reason,
                "count": f"{sum(reasons[reason].values()):,}",
                "share": f"{sum(reasons[reason].values()) / sent:.1%}" if sent else NOTHING,
                "rounds": ranges(reasons[reason]),
            }
            for reason in order
        ],
        "idle": ranges(idle),
        "idle_number": len(idle),
    }


def _model(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    if "parameters" not in facts:
        return None
    parameters, buffers = int(facts["parameters"]), int(facts.get("buffers", 0))
    size = 4 * (parameters + buffers) / 1024
    pairs = [("Trainable parameters", f"{parameters:,}")]
    if buffers:
        pairs.append(("Averaged buffers", f"{buffers:,}"))
    pairs.append(
        ("As 32-bit floats", f"{size:,.1f} KiB" if size < 1024 else f"{size / 1024:,.1f} MiB")
    )
    if facts.get("accumulates"):
        pairs.append(("Multiply-accumulates a row", f"{facts['accumulates']:,}"))
    layers = [
        {
            "name": name,
            "kind": kind,
            "shape": str(shape).replace("None", "rows"),
            "parameters": count,
        }
        for name, kind, shape, count in facts.get("layers", [])
    ]
    return {"name": facts.get("model_name", ""), "pairs": pairs, "layers": layers}


def _environment(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Versions and the machine, as far as they are known."""
    names = {
        "created": "Begun",
        "fedsys": "fedsys",
        "tensorflow": "TensorFlow",
        "keras": "Keras",
        "python": "Python",
        "machine": "Machine",
        "engine": "Engine",
        "workers": "Workers",
        "xla": "Compiler",
        "trajectory": "Trajectory",
    }
    said = []
    for key, name in names.items():
        value = facts.get(key)
        if key == "xla" and value is not None:
            value = "XLA" if value else "TensorFlow graph"
        if key == "created" and value is not None:
            value = day(str(value))
        said += [(name, str(value))] if value is not None else []
    return said
