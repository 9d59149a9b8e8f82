"""Jobs: submitted once, carried out beside the cluster, looked at from anywhere."""
