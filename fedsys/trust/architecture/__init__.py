"""Models as tables that may travel: what may be in them, and how large they would be."""
