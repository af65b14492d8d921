"""quickstart-sklearn: A Flower / sklearn app."""
