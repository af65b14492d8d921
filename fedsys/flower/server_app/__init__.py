"""Our algorithms in a plain ServerApp of Flower's."""
