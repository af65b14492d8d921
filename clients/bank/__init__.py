"""A bank's agent: Flower's node and a warm trainer beside the rows, which stay where they are."""
