"""A training main for tests of sweeps: it starts in milliseconds, and ends as it is told."""
