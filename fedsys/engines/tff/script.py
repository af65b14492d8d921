"""Programs of TensorFlow Federated's own, run in its environment: for tutorials and for tests."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fedsys.engines.tff import environment
from fedsys.engines.tff.kept import Kept
from fedsys.errors import EngineError
from fedsys.supervision import how_it_ended


def run_script(source: str, *arguments: str, timeout: float = 600.0) -> str:
    """What a Python program printed that was run where TensorFlow Federated is.

    source: the program. arguments: its `sys.argv[1:]`. timeout: seconds. Raises EngineError where
    there is no such environment, where the program fails (with its last line) or takes too long.
    """
    found = environment.installed()
    if found is None:
        raise EngineError(
            f"engine 'tff': TensorFlow Federated is not installed: {environment.COMMAND}"
        )
    with tempfile.TemporaryDirectory(prefix="fedsys-tff-") as place:
        folder = Path(place)
        program, log = folder / "program.py", folder / "log.txt"
        program.write_text(source, encoding="utf-8")
        said = folder / "said.txt"
        # Its own words go to a file, apart from what the libraries have to say.
        begin = "import runpy, sys; sys.stdout = open(sys.argv[1], 'w'); sys.argv[:2] = []; "
        begin += "runpy.run_path(sys.argv[0], run_name='__main__'); sys.stdout.flush()"
        kept = Kept(
            [str(found.python), "-s", "-c", begin, str(said), str(program), *arguments],
            log=log,
            ended=folder / "ended",
            removed=folder,
            variables={**environment.QUIET, "TF_CPP_MIN_LOG_LEVEL": "3", "TMPDIR": place},
        )
        try:
            if kept.running(timeout):
                raise EngineError(f"engine 'tff': the program is not done after {timeout:g} s")
            code = kept.code()
        finally:
            kept.end()
        if code:
            raise EngineError(f"engine 'tff': the program {how_it_ended(code, log)}")
        return said.read_text(encoding="utf-8")
