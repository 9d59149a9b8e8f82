"""Floor 3: coaddition of matched warps."""
