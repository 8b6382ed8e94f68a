"""The scenarios: each a function that sets a stage, plays on it, and returns figures beside their targets."""
