"""Jobs: asked for, run with banks, and what came of them."""
