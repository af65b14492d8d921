"""Data larger than memory: a process with little room reads what would not fit it at once."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOM = 56  # MiB that a process may take beyond what it has once all is imported
ROWS, COLUMNS = {"csv": 80_000, "parquet": 200_000}, 40
BLOCK = 20_000

LIMITED = """
import resource, sys
from pathlib import Path
from fedsys.tables import check, open_source, read_schema, summarise
import fedsys.tables.csv_file, fedsys.tables.parquet_file
if "parquet" in sys.argv[1]:
    import pyarrow.parquet
    # Its pool of memory and its threads set room aside; one small file shows how much.
    list(open_source(sys.argv[2]).chunks(["c0"]))
schema = read_schema(Path(sys.argv[3]))
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + {room} * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
{work}
"""
STREAMED = """
report = check(open_source(sys.argv[1]), schema)
assert report.code == 0, report.text()
print(report.rows, summarise(open_source(sys.argv[1]), schema).numbers["c0"].moments.count)
"""
AT_ONCE = """
source = open_source(sys.argv[1])
rows = [chunk for chunk in source.chunks(source.columns())]
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Tables that take 190 MB (CSV) and 65 MB (Parquet) in memory, small ones, and the schema."""
    folder = tmp_path_factory.mktemp("memory")
    names = [f"c{number}" for number in range(COLUMNS)]
    numbers = np.random.default_rng(0).random((BLOCK, COLUMNS)).round(6)
    block = pd.DataFrame(numbers, columns=names).assign(y=np.arange(BLOCK) % 2)
    text = block.to_csv(index=False, header=False)
    with open(folder / "large.csv", "w") as file:
        file.write(",".join(block.columns) + "\n")
        for _ in range(ROWS["csv"] // BLOCK):
            file.write(text)
    pd.concat([block] * (ROWS["parquet"] // BLOCK)).to_parquet(
        folder / "large.parquet", row_group_size=BLOCK
    )
    block.head(100).to_parquet(folder / "small.parquet")
    block.head(100).to_csv(folder / "small.csv", index=False)
    (folder / "schema.toml").write_text(
        '[label]\ncolumn = "y"\nclasses = "binary"\n'
        + "".join(f'[columns.{name}]\ntype = "number"\nrange = [0, 1]\n' for name in names)
    )
    return folder


def limited(folder: Path, kind: str, work: str):
    """Runs the work in a process of its own with little room."""
    arguments = [folder / f"large.{kind}", folder / f"small.{kind}", folder / "schema.toml"]
    return subprocess.run(
        [sys.executable, "-c", LIMITED.format(room=ROOM, work=work), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={"OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system", "PATH": ""},
    )


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_larger_than_memory_is_checked_and_summed(files, kind):
    done = limited(files, kind, STREAMED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(ROWS[kind])] * 2


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_which_the_same_room_does_not_hold_at_once(files, kind):
    """Or the test above would show nothing."""
    done = limited(files, kind, AT_ONCE)
    assert done.returncode != 0
    assert "MemoryError" in done.stderr or "realloc" in done.stderr or "alloc" in done.stderr


MEASURED = """
import re, sys
from pathlib import Path
from fedsys.tables import Preparation, open_source, prepare, read_schema, summarise
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
source, schema = open_source(sys.argv[1]), read_schema(Path(sys.argv[2]))
preparation = Preparation.derive(schema, summarise(source, schema))
before = peak()
inputs = prepare(source, schema, preparation).inputs
print(peak() - before, inputs.nbytes, int(inputs.sum()))
"""


def test_prepared_rows_are_not_there_twice(tmp_path):
    """One column of 250 categories becomes 100 MB of inputs; a second copy would show."""
    names = [f"k{number}" for number in range(250)]
    codes = np.random.default_rng(0).integers(0, 250, 100_000)
    table = pd.DataFrame({"k": np.array(names)[codes], "y": codes % 2})
    table.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "schema.toml").write_text(
        '[label]\ncolumn = "y"\nclasses = "binary"\n[columns.k]\ntype = "category"\n'
        f"categories = {names}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, tmp_path / "rows.csv", tmp_path / "schema.toml"],
        capture_output=True,
        text=True,
        check=True,
    )
    grown, result, ones = map(int, done.stdout.split())
    assert result == 100_000 * 250 * 4 and ones == 100_000
    assert grown < 1.5 * result
