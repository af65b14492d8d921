"""Many small programs as C, compiled and run at once, since a compiler takes long to start."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedsys.edge.code import generate
from fedsys.edge.integers.program import Program

from .c import SANITIZERS, STRICT

# Rooms are of the exact size, so that the sanitizer sees one byte too many.
CASE = """
#include "{name}.h"

static void {name}_case(void)
{{
    void *rooms[] = {{{rooms}}};
    size_t sizes[] = {{{sizes}}};
    for (int i = 0; i < {inputs}; i++) {{
        if (fread(rooms[i], 1, sizes[i], stdin) != sizes[i]) {{
            exit(1);
        }}
    }}
    {name}_run({arguments});
    for (int i = 0; i < {all}; i++) {{
        if (i >= {inputs}) {{
            fwrite(rooms[i], 1, sizes[i], stdout);
        }}
        free(rooms[i]);
    }}
}}
"""


def outputs(
    programs: Sequence[Program],
    inputs: Sequence[Sequence[np.ndarray]],
    folder: Path,
    variant: str = "PLAIN",
) -> list[list[bytes]]:
    """The bytes of each output of each program for one row, computed by its generated C.

    inputs: for each program an array for each of its inputs. variant: "PLAIN" or "DSP", of the
    kernels. AssertionError with the words of the
    compiler or the sanitizer where they find fault.
    """
    sources, cases, calls, tensors = [], [], [], []
    for number, program in enumerate(programs):
        generated = generate(program, f"m{number}")
        for file, text in generated.sources.items():
            (folder / file).write_text(text)
        sources.append(str(folder / f"m{number}.c"))
        model = program.model
        ports = [model.tensors[n] for n in (*model.inputs, *model.outputs)]
        tensors.append(ports[len(model.inputs) :])
        cases.append(
            CASE.format(
                name=generated.name,
                rooms=", ".join(f"malloc({tensor.bytes})" for tensor in ports),
                sizes=", ".join(str(tensor.bytes) for tensor in ports),
                inputs=len(model.inputs),
                all=len(ports),
                arguments=", ".join(f"rooms[{i}]" for i in range(len(ports))),
            )
        )
        calls.append(f"    {generated.name}_case();\n")
    head = "".join(f"#include <{name}.h>\n" for name in ("stddef", "stdint", "stdio", "stdlib"))
    main = f"int main(void)\n{{\n{''.join(calls)}    return 0;\n}}\n"
    (folder / "main.c").write_text(head + "".join(cases) + main)
    variants = [f"-DM{number}_{variant}" for number in range(len(programs))]
    command = ["gcc", *STRICT, *SANITIZERS, *variants, "-O0", *sources, str(folder / "main.c")]
    done = subprocess.run(
        [*command, "-lm", "-o", str(folder / "main")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    given = b"".join(array.tobytes() for arrays in inputs for array in arrays)
    ran = subprocess.run([str(folder / "main")], input=given, capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()
    found, at = [], 0
    for results in tensors:
        found.append([ran.stdout[at : (at := at + tensor.bytes)] for tensor in results])
    assert at == len(ran.stdout)
    return found
