"""Our rounds as Flower's messages, over any grid of its."""
