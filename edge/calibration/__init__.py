"""Ranges of activations, learned by clients that keep their rows."""
