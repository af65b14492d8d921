"""Whatever is wrong is told in one line that names it, where it is and what to do about it."""

import gzip
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fedsys
from fedsys.errors import StorageError, UsageError
from fedsys.experiment import Experiment
from fedsys.simulation import simulate
from fedsys.strategies import FedAvg

from .conftest import Cli, lines

pytestmark = pytest.mark.usefixtures("no_pictures")

QUICK = ("--clients", 6, "--cohort", 3, "--rounds", 2, "--epochs", 1, "--compiler", "graph")


# --- what is asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--task", "fashion-mnst"], ["task: unknown task", "did you mean 'fashion-mnist'?"]),
        (["--strategy", "fedprxo"], ["strategy: unknown strategy", "did you mean 'fedprox'?"]),
        (["--partition", "iidd"], ["partition: unknown partition", "did you mean 'iid'?"]),
        (["--optimizer", "lion"], ["local.optimizer: unknown optimizer 'lion'; known: adam, sgd"]),
        (["--faults", "nans"], ["faults: unknown fault 'nans'; did you mean 'nan'?"]),
        (["--model", "resnet"], ["task.model: unknown model 'resnet' of task 'digits'"]),
        (["--compiler", "jit"], ["compiler: unknown 'jit'; known: auto, graph, xla"]),
        (["--weighting", "size"], ["weighting: unknown 'size'; known: examples, uniform"]),
        (["--label", "x"], ["task.label: unknown key of 'digits'; known: model"]),
        (["--data", "x"], ["task.data: unknown key of 'digits'"]),
        (["--set", "local.epoch=1"], ["local.epoch: unknown key; did you mean 'epochs'?"]),
        (["--set", "sed=1"], ["sed: unknown key; did you mean 'seed'?"]),
        (["--set", "strategy.mu=1"], ["strategy.mu: unknown key of 'fedavg'; known: rate"]),
        (["--set", "rounds"], ["--set rounds: write it as KEY=VALUE"]),
        (["--set", "=5"], ["'' is no key: write it like local.rate"]),
        (["--set", "local.=5"], ["is no key"]),
        (["--set", "local=5"], ["local must be a table, not '5'"]),
        (["--set", "rounds.x=5"], ["rounds.x: rounds is 50 and has no keys"]),
        (["--seed", "1.5"], ["seed must be a whole number, not '1.5'"]),
        (["--seed", "-1"], ["seed must be at least 0, not -1"]),
        (["--seed", "99999999999999999999"], ["seed must be at most"]),
        (["--rounds", "ten"], ["rounds must be a whole number, not 'ten'"]),
        (["--rounds", "0"], ["rounds must be at least 1, not 0"]),
        (["--rate", "fast"], ["local.rate must be a number, not 'fast'"]),
        (["--rate", "nan"], ["local.rate must be above 0, not nan"]),
        (["--rate", "0"], ["local.rate must be above 0, not 0.0"]),
        (["--rate", "inf"], ["local.rate must be finite, not inf"]),
        (["--set", "strategy.rate=inf"], ["strategy.rate must be finite, not inf"]),
        (["--epochs", "99999999999999999999"], ["local.epochs must be at most"]),
        (["--epochs", "0"], ["local.epochs must be at least 1"]),
        (["--steps", "0"], ["local.steps must be at least 1"]),
        (["--batch", "-1"], ["local.batch must be at least 0"]),
        (["--clip", "0"], ["local.clip must be above 0"]),
        (["--quorum", "2"], ["quorum must be at most 1"]),
        (["--quorum", "0"], ["quorum must be above 0"]),
        (["--faults", "nan:2"], ["faults.share must be at most 1"]),
        (["--partition", "dirichlet"], ["partition: 'dirichlet' needs alpha"]),
        (["--partition", "dirichlet:x"], ["partition.alpha must be a number, not 'x'"]),
        (["--partition", "dirichlet:1,2"], ["'dirichlet' takes at most 1 values (alpha)"]),
        (["--partition", "iid:3"], ["partition: 'iid' takes at most 0 values (none), got '3'"]),
        (["--strategy", "fedprox:-1"], ["strategy.mu must be at least 0"]),
        (["--optimizer", "sgd:1"], ["local.optimizer.momentum must be below 1"]),
        (["--clients", "5", "--cohort", "20"], ["cohort 20 is larger than the 5 clients"]),
        (["--task", "table"], ["task: 'table' needs data, label"]),
        (["--task", "x.py"], ["task: 'x.py' names no function; write x.py:FUNCTION"]),
        (["--task", "x.py:1"], ["task: '1' is no name of a function"]),
        (["--workers", "0"], ["Invalid value for '--workers': 0 is not in the range x>=1"]),
        (["--nosuch"], ["No such option '--nosuch'", "see fedsys simulate --help"]),
        (["one.toml", "two.toml"], ["unexpected extra argument (two.toml)"]),
        (["none.toml"], ["none.toml: no such file; write one with a line such as: task ="]),
        (["."], [".: cannot be read: Is a directory: give an experiment in TOML"]),
        (["--resume", "x", "--seed", "3"], ["takes --rounds alone, not --seed"]),
        (["--resume", "x", "y.toml"], ["takes --rounds alone, not y.toml"]),
        (["--resume", "x", "--set", "a=b"], ["takes --rounds alone, not --set a=b"]),
        (["--resume", "x", "--rounds", "many"], ["rounds must be a whole number, not 'many'"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and len(value) < 5 else None,
)
def test_a_wrong_request_is_refused_before_anything_is_written(cli: Cli, arguments, parts):
    outcome = cli("simulate", *arguments)
    outcome.refused(2, *parts)
    assert outcome.err.count("\n") == 1
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("\nrounds = = 3", ["my.toml: not TOML", "line 2"]),
        ("rounds = 1\nrounds = 2", ["my.toml: not TOML", "overwrite a value"]),
        ('rounds = "3"', ["my.toml.rounds must be a whole number, not '3'"]),
        ("rounds = true", ["my.toml.rounds must be a whole number, not True"]),
        ("rounds = 3.0", ["my.toml.rounds must be a whole number, not 3.0"]),
        ("quorum = 2026-01-01", ["my.toml.quorum must be a number"]),
        ("runds = 3", ["my.toml.runds: unknown key; did you mean 'rounds'?"]),
        ("local = 3", ["my.toml.local must be a table, not 3"]),
        ("[local]\nrate = -1", ["my.toml.local.rate must be above 0"]),
        ("[local]\nrates = 1", ["my.toml.local.rates: unknown key; did you mean 'rate'?"]),
        ("task = 3", ["my.toml.task must be a name or a table, not 3"]),
        ('[task]\nmodel = "cnn"', ["my.toml.task needs a name; known: credit-default, digits"]),
        ('[partition]\nname = "labels"', ["my.toml.partition: 'labels' needs k"]),
        ('[strategy]\nname = "fedavg"\nmu = 1', ["my.toml.strategy.mu: unknown key of 'fedavg'"]),
        ('partition = "dirichlet:-1"', ["my.toml.partition.alpha must be"]),
        ("\0", ["my.toml: not TOML"]),
    ],
)
def test_a_wrong_file_is_named_with_the_key(cli: Cli, text, parts):
    Path("my.toml").write_text(text)
    outcome = cli("simulate", "my.toml")
    outcome.refused(2, *parts)
    assert outcome.err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["my.toml"]


def test_a_file_that_is_no_text_is_refused(cli: Cli):
    Path("my.toml").write_bytes(b"\xff\xfe")
    cli("simulate", "my.toml").refused(2, "my.toml: cannot be read", "give an experiment in TOML")


def test_python_gets_the_same_messages_as_exceptions():
    with pytest.raises(UsageError, match="strategy: unknown strategy 'fedprxo'; did you mean"):
        Experiment(strategy="fedprxo")
    with pytest.raises(UsageError, match="cohort 20 is larger than the 5 clients"):
        Experiment(clients=5, cohort=20)
    with pytest.raises(fedsys.FedsysError, match="unknown model"):
        Experiment(task="digits:resnet")
    with pytest.raises(UsageError, match=r"strategy is the class FedAvg: give FedAvg"):
        Experiment(strategy=FedAvg)


def test_more_clients_than_rows(cli: Cli):
    outcome = cli("simulate", "--clients", 2000)
    outcome.refused(2, "2000 clients but only 1438 rows to share out: ask for at most 1438")
    assert not list(Path().iterdir())


def test_a_cohort_larger_than_the_natural_clients(cli: Cli):
    cli("simulate", "--task", "synthetic", "--cohort", 31).refused(
        2, "cohort 31 is larger than the 30 clients: lower --cohort"
    )


# --- data ----------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part, rows in (("train", 40), ("t10k", 20)):
        for kind, array in (
            ("images-idx3", rng.integers(0, 256, (rows, 28, 28))),
            ("labels-idx1", np.arange(rows) % 10),
        ):
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    return folder


def test_images_as_they_should_be(cli: Cli, images):
    arguments = ("--task", "fashion-mnist", "--model", "logistic", "--data", images)
    assert cli("simulate", *arguments, *QUICK).code == 0


@pytest.mark.parametrize("order", [0, 1])
def test_options_may_come_in_any_order(cli: Cli, images, order):
    arguments = [("--task", "fashion-mnist"), ("--data", images), ("--model", "logistic")]
    flat = [word for pair in (arguments, arguments[::-1])[order] for word in pair]
    assert cli("simulate", *flat, *QUICK).code == 0


def fashion(cli: Cli, folder: object, *parts: str) -> None:
    before = set(Path().iterdir())
    outcome = cli("simulate", "--task", "fashion-mnist", "--data", folder, *QUICK)
    outcome.refused(3, *parts)
    assert outcome.err.count("\n") == 1
    assert set(Path().iterdir()) == before


def test_a_data_folder_that_is_missing_or_no_folder_or_lacks_a_file(cli: Cli, images):
    fashion(cli, "nowhere", "task.data: 'nowhere' does not exist (looked in ", "pass --data FOLDER")
    file = images / "t10k-labels-idx1-ubyte.gz"
    fashion(cli, file, "is a file, not a folder; pass --data FOLDER")
    file.unlink()
    fashion(cli, images, f"folder '{images}' lacks t10k-labels-idx1-ubyte.gz; pass --data FOLDER")


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (lambda raw: raw[:-20], "is truncated: expected 15"),
        (lambda raw: raw[:100] + b"x" * 50 + raw[150:], "is damaged (gzip"),
        (lambda raw: b"", "is truncated: its header alone"),
        (lambda raw: b"<html>Not found</html>", "is no IDX file"),
        (lambda raw: gzip.decompress(raw)[:-1], "is truncated: expected 15"),
        (lambda raw: gzip.decompress(raw) + b"x", "is too long"),
    ],
    ids=["truncated", "damaged", "empty", "a page", "unpacked", "long"],
)
def test_image_files_that_are_damaged(cli: Cli, images, damage, part):
    path = images / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    fashion(cli, images, str(path), part)


def test_data_that_may_not_be_read(cli: Cli, images, monkeypatch):
    path = images / "train-images-idx3-ubyte.gz"
    path.chmod(0)
    if not os.geteuid():  # root reads everything
        real = Path.read_bytes

        def refused(self: Path) -> bytes:
            if self == path:
                raise PermissionError(13, "Permission denied", str(path))
            return real(self)

        monkeypatch.setattr(Path, "read_bytes", refused)
    fashion(cli, images, f"task.data: cannot read '{path}': Permission denied; pass --data FOLDER")


CSV = "age,town,sick\n" + "".join(
    f"{20 + row},{'ab'[row % 2]},{(row // 3) % 2}\n" for row in range(60)
)


def table(cli: Cli, text: str, *parts: str, label: str = "sick", code: int = 3) -> None:
    Path("my.csv").write_text(text)
    arguments = ("--task", "table", "--data", "my.csv", "--label", label)
    outcome = cli("simulate", *arguments, *QUICK)
    outcome.refused(code, *parts)
    assert outcome.err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["my.csv"]


def test_tables_that_cannot_be_learned_from(cli: Cli):
    table(cli, CSV, "task.label: 'my.csv' has no column 'sik'; did you mean 'sick'?", label="sik")
    table(cli, CSV.replace("23,b", "x?,b"), "column 'age', row 4 (line 5): 'x?' is not a number")
    table(cli, CSV.replace("23,b", "inf,b"), "column 'age', row 4 (line 5): inf is not finite")
    table(cli, CSV.replace("23,b,1", "23,b,"), "task.label: column 'sick' has no value in row 4")
    table(cli, CSV.splitlines()[0] + "\n", "task.data: 'my.csv' has a header but no rows")
    table(cli, "", "task.data: 'my.csv' is empty")
    table(cli, CSV.replace(",", ";"), "has no column 'sick'", "is it separated by commas?")
    table(cli, CSV.replace("23,b,1", "23,b,1,1,1"), "is no CSV table", "line 5")
    table(cli, "sick\n" + "0\n1\n" * 20, "has no columns to predict from")
    table(cli, "age,sick\n" + "1,1\n" * 20, "is '1' in every row, so there is nothing to learn")


def test_a_table_that_is_not_there_or_a_folder(cli: Cli):
    arguments = ("simulate", "--task", "table", "--label", "x", "--data")
    cli(*arguments, "none.csv").refused(3, "task.data: 'none.csv' does not exist (looked in ")
    cli(*arguments, ".").refused(3, "task.data: '.' is a folder, not a file")
    cli("simulate", "--task", "heart").refused(3, "'heart' cannot be downloaded; pass --data")
    cli("simulate", "--task", "credit-default", "--data", "no").refused(3, "'no' does not exist")


# --- tasks of one's own --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code", "parts"),
    [
        (("Dense(3", "Dense(2"), 8, ["output has shape (rows, 2) but the labels go up to 2: end"]),
        (("def task", "def other"), 3, ["own.py: no function 'task'; ", "other"]),
        (("import keras", "import kears"), 3, ["own.py:2: ModuleNotFoundError: No module named"]),
        (("import keras", "import keras:"), 3, ["own.py:2: SyntaxError"]),
        (("return fedsys.Task(", "return dict("), 3, ["task() returned dict, must return a"]),
        (("y[:240]", "y[:200]"), 3, ["240 rows of inputs but 200 labels: give one label a row"]),
        (("x[240:], y[240:]", "x[:0], y[:0]"), 3, ["task 'own': no test rows"]),
        (("return keras", "return [inputs]; keras"), 8, ["gave list, not a Keras model"]),
        (("rng = ", "raise SystemExit(4); rng = "), 3, ["own.py:18: SystemExit: 4"]),
        (("name=\"own\",", "name=\"own\", objective=\"clases\","), 2, ["own.py", "'clases'"]),
    ],
    ids=["outputs", "name", "import", "syntax", "type", "labels", "test", "model", "exit", "goal"],
)  # fmt: skip
def test_a_task_file_that_is_wrong(cli: Cli, own_task, change, code, parts):
    text = Path("own.py").read_text()
    assert change[0] in text
    Path("own.py").write_text(text.replace(*change, 1))
    outcome = cli("simulate", "--task", own_task, *QUICK)
    outcome.refused(code, *parts)
    assert outcome.err.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize("where", ["build", "train"])
def test_a_model_that_fails_is_told_with_the_task(cli: Cli, own_task, where):
    text = Path("own.py").read_text()
    change = {
        "build": ('x = keras.layers.Dense(8, name="dense")', "x = keras.layers.Conv2D(8, 3)"),
        "train": ("x = rng.normal(size=(300, 6))", "x = rng.normal(size=(300, 5))"),
    }
    Path("own.py").write_text(text.replace(*change[where]))
    outcome = cli("simulate", "--task", own_task, *QUICK)
    outcome.refused(8, "task 'own': the model cannot be built for rows of shape", "ValueError")
    assert outcome.err.count("\n") == 1
    assert not Path("runs").exists()


def test_a_model_that_keras_cannot_save_loses_no_round(cli: Cli, own_task):
    text = Path("own.py").read_text()
    Path("own.py").write_text(
        text.replace("def model():", OWN_CLASS).replace(
            'return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="own")',
            'return keras.Model(inputs, Odd(3)(x), name="own")',
        )
    )
    outcome = cli("simulate", "--task", own_task, *QUICK)
    if outcome.code:  # later versions of Keras may save it after all
        outcome.refused(8, "task 'own': Keras cannot save the model", "get_config")
    (folder,) = Path("runs").iterdir()
    assert len(lines(folder)) == 2
    assert list(folder.glob("checkpoints/*"))


OWN_CLASS = """class Odd(keras.layers.Dense):
    def get_config(self):
        raise NotImplementedError("no config")


def model():"""


# --- training ------------------------------------------------------------------------------------


def test_a_loss_that_becomes_nan_names_the_round_and_what_to_try(cli: Cli):
    outcome = cli("simulate", "--rate", "1e30", *QUICK)
    outcome.refused(8, "round 1: ", "NaN or infinite", "try a lower --rate", "(--clip 1)")
    (folder,) = Path("runs").iterdir()
    facts = fedsys.Run.open(folder).facts
    assert facts["status"] == "failed" and facts["error"].startswith("round 1: ")
    assert "failed" in cli("runs").out


def test_a_round_that_is_too_long_to_plan(cli: Cli):
    outcome = cli("simulate", "--epochs", 2_000_000_000, "--quiet")
    outcome.refused(2, "a round of 10 clients would visit", "lower --epochs, --steps or --cohort")


def test_a_batch_that_no_client_fills_costs_no_memory(cli: Cli):
    outcome = cli("simulate", *QUICK[:8], "--batch", 10**12)
    assert outcome.code == 0


@pytest.mark.parametrize("kind", ["numpy", "tensorflow"])
def test_memory_that_runs_out_is_told(cli: Cli, monkeypatch, kind):
    import tensorflow as tf

    errors = {
        "numpy": MemoryError("Unable to allocate 9 TiB"),
        "tensorflow": tf.errors.ResourceExhaustedError(None, None, "Out of memory [Op:x]"),
    }

    def run(self, work):
        raise errors[kind]

    monkeypatch.setattr("fedsys.engines.compiled.CompiledEngine.run", run)
    cli("simulate", *QUICK).refused(8, "out of memory (", "): lower --batch, --workers or --cohort")
    (folder,) = Path("runs").iterdir()
    assert fedsys.Run.open(folder).facts["status"] == "failed"


def test_a_server_that_diverges_makes_no_noise(cli: Cli):
    outcome = cli("simulate", "--strategy", "fedadam:1e39", "--quiet", *QUICK)
    outcome.refused(8, "round 1: the global weights became NaN or infinite")
    assert outcome.err.count("\n") == 1


def test_a_quorum_that_is_missed_names_the_round_and_the_reasons(cli: Cli):
    arguments = (*QUICK[:4], "--rounds", 9, "--faults", "nan:1.0", "--compiler", "graph")
    outcome = cli("simulate", *arguments)
    outcome.refused(7, "round 3: 0 of 3 updates", "(3 not finite)", "or lower --quorum")
    (folder,) = Path("runs").iterdir()
    assert [line["reasons"] for line in lines(folder)] == [{"not finite": 3}] * 3
    again = cli("simulate", "--resume", folder)
    again.refused(7, "round 4: 0 of 3 updates")


# --- folders -------------------------------------------------------------------------------------


def test_a_folder_of_runs_that_cannot_be(cli: Cli, monkeypatch):
    Path("file").write_text("mine")
    for out in ("file", "file/deeper", "/dev/null"):
        outcome = cli("simulate", "--out", out, *QUICK)
        outcome.refused(9, out, "cannot be written", ": choose another place")
        assert "--resume" not in outcome.err  # there is nothing to resume
    assert Path("file").read_text() == "mine"
    with pytest.raises(StorageError, match="cannot be written"):
        simulate(Experiment(rounds=1, clients=4), folder="file")


def test_a_folder_that_may_not_be_written(cli: Cli, monkeypatch):
    Path("out").mkdir()
    Path("out").chmod(0o500)
    if not os.geteuid():  # root writes everything

        def refused(self: Path, *given: object, **options: object) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "mkdir", refused)
    cli("simulate", "--out", "out", *QUICK).refused(
        9, "cannot be written: Permission denied: choose another place"
    )


@pytest.fixture
def run(cli: Cli) -> Path:
    assert cli("simulate", *QUICK, "--out", "runs").code == 0
    (folder,) = Path("runs").iterdir()
    return folder


def test_runs_that_are_not_there(cli: Cli):
    assert cli("runs").out == "no runs yet: begin one with: fedsys simulate\n"
    for command in (["report"], ["simulate", "--resume"], ["compare", "a"]):
        outcome = cli(*command, "nope")
        outcome.refused(9, "there are no runs in runs")
    assert not list(Path().iterdir())


def test_runs_by_other_names(cli: Cli, run: Path):
    cli("report", "digits-fedavgg").refused(9, f"did you mean '{run.name}'?")
    assert cli("report", "digits").code == 0  # the start of a name is enough
    shutil.copytree(run, "runs/digits-fedavg-2")
    cli("report", "digits").refused(9, "is one of", run.name, "digits-fedavg-2", "say which")


def test_comparing_one_run_or_one_without_a_round(cli: Cli, run: Path):
    cli("compare", run).refused(2, "compare needs at least two runs")
    cli("compare").refused(2, "Missing argument", "see fedsys compare --help")
    shutil.copytree(run, "runs/other")
    Path("runs/other/metrics.jsonl").unlink()
    cli("compare", run, "other").refused(9, "other: has no metrics to compare")
    cli("compare", run, run, "--html", "no/where.html").refused(9, "no/where.html: cannot be")


@pytest.mark.parametrize("name", ["experiment.toml", "run.json", "metrics.jsonl", "clients.csv"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe\n"], ids=str)
def test_a_damaged_run_folder_is_listed_and_told_and_never_a_traceback(
    cli: Cli, run: Path, name, content
):
    path = run / name
    path.unlink() if content is None else path.write_bytes(content)
    for command in ("runs", "report", "compare", "simulate --resume"):
        names = {"runs": [], "compare": [run, run]}.get(command, [run])
        outcome = cli(*command.split(), *names)
        assert "Traceback" not in outcome.err
        assert outcome.code in (0, 2, 9)
        assert not outcome.code or outcome.err.splitlines()[-1].startswith("fedsys: ")
    assert cli("runs").code == 0


def test_standard_output_on_a_full_disk(tmp_path):
    with open("/dev/full", "w") as full:
        found = subprocess.run(
            [sys.executable, "-c", "from fedsys.cli import main; main()", "runs"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=tmp_path,
        )
    assert found.returncode
    assert "No space left on device" in found.stderr
    assert "Traceback" not in found.stderr
