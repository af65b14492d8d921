"""quickstart-keras: A Flower / keras app."""
