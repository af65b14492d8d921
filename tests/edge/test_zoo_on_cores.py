"""Projects of the whole zoo on emulated cores: every layer is what the reference computes."""

import pytest

from fedsys.edge.verification import toolchain
from fedsys.edge.verification.verify import verify
from tests.edge import zoo
from tests.edge.exported import made

CORES = ("cortex-m0", "cortex-m4", "cortex-m55")

pytestmark = pytest.mark.skipif(
    bool(toolchain.missing("cc", "arm-none-eabi-gcc", "qemu-system-arm")),
    reason="cc, arm-none-eabi-gcc or qemu-system-arm is not installed",
)


@pytest.mark.parametrize("name", list(zoo.SHAPES))
def test_a_project_of_the_zoo_passes_here_and_on_three_cores(name, tmp_path):
    folder = made(zoo.int8(name)).write(tmp_path / "project")
    found = verify(folder, CORES)
    assert found.failed == ()
    ran = {trial.place for trial in found.trials if trial.status == "passed"}
    assert {f"{core} {option}" for core in CORES for option in ("-Os", "-O3")} < ran
    assert {"interpreter", "host"} < ran
