"""Whether generated C computes what the reference does: compilers, emulator, interpreter."""
