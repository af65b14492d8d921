"""Other simulators beside ours, on the same work in one run. See README.md in the folder above."""
