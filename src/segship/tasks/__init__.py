"""Tasks give a network's outputs a meaning: decode, agreement, metric."""
