"""PyTorch layers, the paper's networks, and their training (needs ``bnnmcu[train]``)."""
