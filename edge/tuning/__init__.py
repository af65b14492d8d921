"""Fine-tuning to int8, pruning and clustering, by the clients of a federation."""
