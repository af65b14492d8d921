"""How banks come in, and say how they stand."""
