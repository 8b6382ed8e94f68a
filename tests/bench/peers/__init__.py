"""Programs that measure other job systems, each in an environment of its own; none imports this project."""
