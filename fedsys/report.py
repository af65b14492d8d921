"""The report of a run: one HTML file with everything that its folder holds, for a reader.

`read` takes what can be read of a folder, however the run ended; everything after it is a
function of that value, so that the same folder always gives the same text.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from fedsys.errors import FedsysError

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

    from fedsys.pictures import Line
    from fedsys.runs import Run

NOTHING = "\N{EN DASH}"  # where a number is not known
WORST = 10  # clients in the table of the worst
ENDS = {
    "running": "is still running, or was killed,",
    "stopped": "was stopped",
    "failed": "failed",
}

Records = Sequence[Mapping[str, Any]]
"""The metrics of each round, as `Run.records` gives them."""


def render(run: Run) -> str:
    """The report as one HTML file that needs no other, of whatever the run's folder holds."""
    return page("report.html.j2", **_story(read(run)))


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Scores:
    """The clients at the end of a run.

    clients, rows: [clients]; metrics: name -> [clients], NaN for a client without rows.
    owners: their names, or nothing.
    """

    clients: np.ndarray
    rows: np.ndarray
    metrics: Mapping[str, np.ndarray]
    owners: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Contents:
    """What could be read of a run folder.

    facts: `run.json`. records: `metrics.jsonl`. table: `experiment.toml`, whose text is `toml`.
    scores: `clients.csv`. partition: `partition.svg`. missing: what could not be read, and why.
    """

    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    records: Records = ()
    table: Mapping[str, Any] = field(default_factory=dict)
    toml: str = ""
    scores: Scores | None = None
    partition: str = ""
    missing: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """How it ended, as far as is known."""
        return str(self.facts.get("status", "unknown"))

    @property
    def rounds(self) -> int:
        """Rounds done."""
        return int(self.records[-1]["round"]) if self.records else 0


def read(run: Run) -> Contents:
    """What the run's folder holds. What is missing or damaged is told, and never raised."""
    found = outline(run)
    missing = list(found.missing)
    ended = (
        "the run is done, so it was removed"
        if found.status == "done"
        else "it is written at the end of a run, which this one has not reached"
    )
    return replace(
        found,
        scores=_read_scores(run.folder / "clients.csv", missing, ended),
        partition=_read_text(run.folder / "partition.svg", missing, _BEGUN),
        missing=tuple(missing),
    )


_BEGUN = "it is written when a run begins, which this one did not, or it was removed"


def outline(run: Run) -> Contents:
    """Like `read`, but of the experiment, the facts and the metrics alone, for a list of runs."""
    missing: list[str] = []
    facts: Any = {}
    try:
        facts = run.facts
    except FedsysError as error:
        there = (run.folder / "run.json").exists()
        missing.append(_reason(run.folder, error) if there else f"run.json: is missing: {_BEGUN}")
    if not isinstance(facts, dict):
        missing.append("run.json: is not a table")
        facts = {}
    toml = _read_text(run.folder / "experiment.toml", missing, "there is none")
    table: dict[str, Any] = {}
    try:
        table = tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        missing.append(f"experiment.toml: not TOML: {error}")
    records = _read_records(run.folder / "metrics.jsonl", missing)
    return Contents(run.name, facts, records, table, toml, missing=tuple(missing))


def _reason(folder: Path, error: Exception) -> str:
    """A message about a file in the folder, without the folder, in one line."""
    return " ".join(str(error).replace(f"{folder}/", "").split())


def _read_text(path: Path, missing: list[str], why: str) -> str:
    """The text of a file; nothing where it cannot be read, and then `missing` has a line more."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        missing.append(f"{path.name}: is missing: {why}")
        return ""
    except (OSError, ValueError) as error:
        missing.append(f"{path.name}: cannot be read: {error}")
        return ""
    if not text:
        missing.append(f"{path.name}: is empty")
    return text


def _read_records(path: Path, missing: list[str]) -> Records:
    """The rounds up to the first damaged line; the last line may have been cut by a kill."""
    why = "not one round was finished"
    records: list[Mapping[str, Any]] = []
    text = _read_text(path, missing, why)
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("round"), int):
            missing.append(f"metrics.jsonl: line {number} is damaged: the rounds end before it")
            break
        records.append(record)
    if text and "\n" not in text:
        missing.append(f"metrics.jsonl: holds no whole line: {why}")
    return records


def _read_scores(path: Path, missing: list[str], why: str) -> Scores | None:
    text = _read_text(path, missing, why)
    if not text:
        return None
    try:
        lines = list(csv.DictReader(io.StringIO(text, newline="")))
        names = [name for name in lines[0] if name not in ("client", "rows", "owner")]
        return Scores(
            np.array([int(line["client"]) for line in lines]),
            np.array([int(line["rows"]) for line in lines]),
            {name: np.array([float(line[name]) for line in lines]) for name in names},
            tuple(str(line["owner"]) for line in lines) if "owner" in lines[0] else (),
        )
    except (IndexError, KeyError, TypeError, ValueError, csv.Error) as error:
        missing.append(f"{path.name}: is damaged: {error}")
        return None


# --- metrics -------------------------------------------------------------------------------------


def series(records: Records, key: str) -> tuple[np.ndarray, np.ndarray]:
    """The rounds that have a number under `key`, and those numbers."""
    held = [
        (record["round"], float(record[key]))
        for record in records
        if isinstance(record.get(key), int | float)
    ]
    rounds, values = zip(*held, strict=True) if held else ((), ())
    return np.array(rounds, np.int64), np.array(values, np.float64)


def metric_names(records: Records, prefix: str = "test_") -> list[str]:
    """The metrics that were taken: accuracy, AUC, those of one's own, and the loss last."""
    keys = {key for record in records for key in record if key.startswith(prefix)}
    names = {key.removeprefix(prefix) for key in keys}
    names -= {name for name in names if name.endswith(("_spread", "_worst"))}
    first = {"accuracy": 0, "auc": 1, "loss": 3}
    return sorted(names, key=lambda name: (first.get(name, 2), name))


def falls(name: str) -> bool:
    """Whether less of the metric is better."""
    return name == "loss"


def best(records: Records, key: str) -> tuple[int, float] | None:
    """The first round with the best value of a metric, such as 'test_loss', and the value."""
    rounds, values = series(records, key)
    finite = np.isfinite(values)
    if not finite.any():
        return None
    rounds, values = rounds[finite], values[finite]
    place = int(values.argmin() if falls(key.removeprefix("test_")) else values.argmax())
    return int(rounds[place]), float(values[place])


def final(records: Records, key: str) -> float | None:
    """The last value of a metric, or None where it was never taken."""
    values = series(records, key)[1]
    return float(values[-1]) if len(values) else None


# --- words ---------------------------------------------------------------------------------------


def word(name: str) -> str:
    """A metric's name within a sentence."""
    return {"auc": "AUC"}.get(name, name.replace("_", " "))


def title(name: str) -> str:
    """A metric's name for a heading."""
    return word(name)[:1].upper() + word(name)[1:]


def shown(name: str, value: float | None) -> str:
    """A metric's value for a reader: accuracy in percent."""
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if name == "accuracy":
        return f"{100 * value:.2f}%"
    return f"{value:.4f}" if 0.001 <= abs(value) < 1000 else f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """Seconds for a reader: `0.42 s`, `12.3 s`, `4 min 12 s`, `2 h 05 min`."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 0.0995:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    if seconds < 3599.5:
        return "{} min {:02d} s".format(*divmod(round(seconds), 60))
    return "{} h {:02d} min".format(*divmod(round(seconds / 60), 60))


def many(number: int, thing: str) -> str:
    """`1 round`, `2,000 rounds`."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def ranges(numbers: Iterable[int], most: int = 12) -> str:
    """`3, 7-9, 12`, and how many more there are after so many parts."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    said = [f"{low}" if low == high else f"{low}{NOTHING}{high}" for low, high in parts]
    rest = len(said) - most
    return ", ".join(said[:most]) + (f" and {rest} more" if rest > 0 else "")


def choice(table: Mapping[str, Any], key: str) -> tuple[str, str]:
    """What was chosen under a key of an experiment: its name, and its options in brackets."""
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        return str(value), ""
    options = [f"{name} {plain(item)}" for name, item in value.items() if name != "name"]
    return str(value.get("name", "")), ", ".join(options)


def plain(value: Any) -> str:
    """An option's value for a reader."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- the parts of the page -----------------------------------------------------------------------


@dataclass(frozen=True)
class Tile:
    """A number that matters. `exact` is what it was rounded from."""

    label: str
    value: str
    note: str = ""
    exact: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture to put into a page.

    hover: what the page's script needs to say the values under a pointer, where it does.
    """

    svg: Markup
    label: str
    hover: Mapping[str, Any] | None = None


def _story(found: Contents) -> dict[str, Any]:
    """Everything that the template says."""
    records = found.records
    return {
        "run": found,
        "heading": heading(found),
        "alarm": _alarm(found),
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


def heading(found: Contents) -> list[tuple[str, str]]:
    """Task, strategy, partition and clients: what was run, each with its options."""
    parts = [
        (str(found.facts.get("task") or choice(found.table, "task")[0]), ""),
        choice(found.table, "strategy"),
        choice(found.table, "partition") if "partition" in found.table else (_rule(found), ""),
    ]
    model = choice(found.table, "task")[1]
    parts[0] = (parts[0][0], model)
    clients = found.facts.get("clients", found.table.get("clients"))
    if clients is not None:
        cohort = found.facts.get("cohort", found.table.get("cohort"))
        parts.append((many(clients, "client"), f"{cohort:,} a round" if cohort else ""))
    return [part for part in parts if part[0]]


def _rule(found: Contents) -> str:
    """The partition where the experiment leaves it to the data."""
    natural = found.facts.get("natural", bool(found.scores and found.scores.owners) or None)
    return {True: "natural owners", False: "iid"}.get(natural, "")


def _alarm(found: Contents) -> str:
    """How the run ended, where that was not the end that it was meant for."""
    if found.status == "done":
        return ""
    how = ENDS.get(found.status, "has left no word of how it ended,")
    error, asked = found.facts.get("error"), found.table.get("rounds")
    far = f"{found.rounds:,} of {asked:,} rounds" if asked else many(found.rounds, "round")
    return f"This run {how} after {far}{f': {error}' if error else '.'}"


def headline(found: Contents) -> list[Tile]:
    """The numbers that matter."""
    records, facts = found.records, found.facts
    tiles = [_metric_tile(records, name) for name in metric_names(records)]
    if not tiles and (loss := final(records, "train_loss")) is not None:
        tiles.append(Tile("Training loss", shown("loss", loss), "in the last round", repr(loss)))
    tiles += [tile for tile in [_worst_tile(records)] if tile]
    asked = found.table.get("rounds")
    of = f"of {asked:,}" if asked and asked != found.rounds else ""
    tiles.append(Tile("Rounds", f"{found.rounds:,}", of))
    if "clients" in facts:
        tiles.append(Tile("Clients", f"{facts['clients']:,}", _a_round(facts)))
    if "seconds" in facts or records:
        training = series(records, "seconds")[1]
        middle = f"median {duration(float(np.median(training)))} a round" if len(training) else ""
        seconds = facts.get("seconds", float(_total(records)) if records else None)
        tiles.append(Tile("Time", duration(seconds), middle, f"{seconds} s"))
    sent, refused = _sent(records)
    if records:
        part = f"of {sent:,} ({refused / sent:.1%})" if refused else f"all {sent:,} admitted"
        tiles.append(Tile("Refused updates", f"{refused:,}", part))
    return tiles


def _metric_tile(records: Records, name: str) -> Tile:
    value, top = final(records, f"test_{name}"), best(records, f"test_{name}")
    note = f"best {shown(name, top[1])} in round {top[0]:,}" if top else ""
    last = records[-1]["round"]
    taken = int(series(records, f"test_{name}")[0][-1])
    when = f" after round {taken:,}" if taken != last else ""
    return Tile(f"Test {word(name)}{when}", shown(name, value), note, repr(value))


def _worst_tile(records: Records) -> Tile | None:
    names = metric_names(records, "clients_")
    if not names:
        return None
    name = names[0]
    worst, mean = final(records, f"clients_{name}_worst"), final(records, f"clients_{name}")
    if worst is None:
        return None
    note = f"{word(name)}; mean {shown(name, mean)}"
    return Tile("Worst client", shown(name, worst), note, repr(worst))


def _a_round(facts: Mapping[str, Any]) -> str:
    cohort = facts.get("cohort")
    return "" if cohort is None else "all in every round" if cohort == facts["clients"] else (
        f"{cohort:,} a round"
    )  # fmt: skip


def _sent(records: Records) -> tuple[int, int]:
    """Updates that were sent, and those of them that were refused."""
    refused = sum(int(record.get("refused", 0)) for record in records)
    return refused + sum(int(record.get("admitted", 0)) for record in records), refused


def _total(records: Records) -> float:
    """Seconds of all rounds and their evaluations."""
    return float(sum(series(records, key)[1].sum() for key in ("seconds", "evaluation_seconds")))


# --- curves --------------------------------------------------------------------------------------


def _curve_names(records: Records) -> list[str]:
    """Metrics to draw: those of the test set or of clients, and the loss in any case."""
    names = metric_names(records)
    names += [name for name in metric_names(records, "clients_") if name not in names]
    trained = len(series(records, "train_loss")[0]) > 0
    return names + (["loss"] if trained and "loss" not in names else [])


def _lines(records: Records, name: str) -> list[Line]:
    """What is known of a metric by round: of the test set, of the training, of the clients."""
    from fedsys.pictures import Line

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


def curve(lines: Sequence[Line], name: str, label: str = "") -> Picture:
    """A picture of a metric by round, that follows the pointer.

    label: what it shows, where that is not simply the metric; it then has a legend in any case.
    """
    from fedsys.pictures import curves_picture

    percent = name == "accuracy"
    said = label or f"{title(name)} by round"
    figure = curves_picture(lines, said, percent=percent, legend=bool(label))
    return _following(figure, said, lines, "percent" if percent else "")


def _following(figure: Figure, label: str, lines: Sequence[Line], unit: str) -> Picture:
    """The picture of the lines, with what its script needs to say their values at a pointer."""
    from fedsys.pictures import COLOURS, axes_box

    picture = _picture(figure, label)  # drawn first: that is when things find their places
    rounds = sorted({int(round_) for line in lines for round_ in line.rounds})
    said = []
    for line in lines:
        known = dict(zip(line.rounds.tolist(), line.values.tolist(), strict=True))
        values = [_json_number(known.get(round_)) for round_ in rounds]
        look = {"colour": line.colour % len(COLOURS), "dash": line.dash}
        said.append({"label": line.label, "values": values, **look})
    hover = {**axes_box(figure), "rounds": rounds, "lines": said, "unit": unit}
    return replace(picture, hover=hover)


def _json_number(value: float | None) -> float | None:
    """The number with as many digits as a reader needs, None where JSON has no word for it."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None


# --- who holds what, and how the clients fare ----------------------------------------------------


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
    from fedsys.pictures import clients_picture, sizes_picture

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
    pictures = [_picture(figure, f"Clients by {word(name)}")]
    if len(held) > 2 and rows.max() > rows.min() + 1:
        label = f"{title(name)} against rows"
        figure = sizes_picture(rows, some, label, percent=percent)
        pictures.append(_picture(figure, label))
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


# --- time, refusals, model, environment ----------------------------------------------------------


def _time(found: Contents) -> dict[str, Any] | None:
    """Where the time went."""
    from fedsys.pictures import Line, curves_picture

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
        "picture": _following(figure, "Seconds a round", lines, "seconds"),
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
    from fedsys.pictures import refusals_picture

    idle = [int(record["round"]) for record in records if record.get("moved") is False]
    sent, refused = _sent(records)
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
        "picture": _picture(figure, label) if refused else None,
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
        "workers": "Threads",
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


def day(created: str) -> str:
    """`2026-11-21T01:39:51+00:00` as `2026-11-21 01:39 UTC`; other text as it is."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(:[\d.]+)?(Z|[+-]\d\d:\d\d)?", created)
    if not found:
        return created
    zone = {None: "", "Z": " UTC", "+00:00": " UTC"}.get(found[4], f" {found[4]}")
    return f"{found[1]} {found[2]}{zone}"


# --- the page ------------------------------------------------------------------------------------

# Colours of the pictures -> properties of the page, which has them for light and for dark.
_PAINTS = {
    "#000000": "ink",
    "#222222": "ink",
    "#6b6b6b": "quiet",
    "#bbbbbb": "axis",
    "#e8e8e8": "grid",
    "#4a86bd": "mark",
    "#ffffff": "card",
    "#0072b2": "line0",
    "#d55e00": "line1",
    "#009e73": "line2",
    "#cc79a7": "line3",
    "#e69f00": "line4",
    "#56b4e9": "line5",
}
_DRAWN = {"svg", "g", "defs", "path", "use", "text", "tspan", "image", "clipPath", "rect", "circle"}


def _picture(figure: Figure, label: str) -> Picture:
    from fedsys.pictures import figure_svg

    svg = embedded(figure_svg(figure))
    assert svg is not None, "our own pictures are harmless"
    return Picture(svg, label)


def embedded(svg: str) -> Markup | None:
    """An SVG that `figure_svg` drew as a part of a page, in the page's fonts and colours.

    None where it has in it what `figure_svg` does not draw: the text comes from a file, and goes
    into the page unescaped.
    """
    from markupsafe import Markup

    svg = re.sub(r"<!--.*?-->|<style.*?</style>|<metadata.*?</metadata>", "", svg, flags=re.DOTALL)
    if not _harmless(svg):
        return None
    used = set(re.findall(r'"(?:url\()?#([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda it: it[0] if it[1] in used else "", svg)
    svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'style="[^"]*"', _page_style, svg)
    return Markup(re.sub(r"\n\s+", "\n", svg))


def _page_style(found: re.Match[str]) -> str:
    style = re.sub(r"font-family:[^;\"]*;?\s*", "", found[0])
    return re.sub(
        r"#[0-9a-f]{6}\b",
        lambda it: f"var(--{_PAINTS[it[0]]})" if it[0] in _PAINTS else it[0],
        style,
    )


def _harmless(svg: str) -> bool:
    """Whether the SVG only draws: no scripts, nothing from elsewhere."""
    if "<!" in svg or "<?" in svg:
        return False
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError:
        return False
    return all(_draws(element) for element in root.iter())


def _draws(element: ElementTree.Element) -> bool:
    space, _, name = element.tag.rpartition("}")
    if space != "{http://www.w3.org/2000/svg" or name not in _DRAWN:
        return False
    for key, value in element.items():
        key = key.rpartition("}")[2].lower()
        if key.startswith("on") or re.search(r"url\((?!#)|\\|@import|expression", value.lower()):
            return False
        if key in ("href", "src") and not value.startswith(("#", "data:image/png;base64,")):
            return False
    return True


def page(template: str, **said: Any) -> str:
    """A template of this package, filled in. Whatever is not Markup is escaped."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    files = resources.files("fedsys")
    environment = Environment(
        loader=FunctionLoader(lambda name: files.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(**said)
    return text.encode("utf-8", "replace").decode()  # a folder's name may be no Unicode
