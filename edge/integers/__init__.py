"""What the chip computes: programs of integers, and NumPy that runs them bit by bit."""
