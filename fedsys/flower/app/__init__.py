"""A Flower app, unmodified, from its folder, on nodes in this process."""
