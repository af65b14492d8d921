"""Flower's nodes as an engine: in this process, or in its own simulation on Ray."""
