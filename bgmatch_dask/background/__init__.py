"""Floor 3: reference choice, differences, the joint solution and the offsets."""
