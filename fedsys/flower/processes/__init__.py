"""Flower's own server and nodes as processes of ours, and both ends of their runtime."""
