"""Training loops, and the checkpoints they continue from."""
