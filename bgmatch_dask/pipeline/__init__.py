"""Floor 4: plan, stages and run of a tract job."""
