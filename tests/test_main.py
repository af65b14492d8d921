"""`python -m fedsys`."""

import subprocess
import sys

INTERRUPTED = """
import runpy, sys
class AmidImports:
    def find_spec(self, name, path=None, target=None):
        if name == "fedsys.cli":
            raise KeyboardInterrupt
sys.meta_path.insert(0, AmidImports())
runpy.run_module("fedsys", run_name="__main__")
"""


def ran(*words):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True)


def test_the_module_is_the_command():
    done = ran("-m", "fedsys", "federation", "--help")
    assert done.returncode == 0 and done.stdout.startswith("Usage: fedsys federation")
    wrong = ran("-m", "fedsys", "federatoin")
    assert wrong.returncode == 2 and wrong.stderr.startswith("fedsys: No such command")
    listed = [line.split()[0] for line in done.stdout.partition("Commands:")[2].splitlines()[1:]]
    assert listed[:3] == ["create", "invite", "approve"], "in the order in which they are used"


def test_ctrl_c_amid_its_imports_is_a_line():
    done = ran("-c", INTERRUPTED)
    assert (done.returncode, done.stderr) == (130, "fedsys: interrupted\n")
