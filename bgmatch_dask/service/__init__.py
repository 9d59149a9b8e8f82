"""Floor 5: clusters and progress shown to people."""
