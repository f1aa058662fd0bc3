"""Evaluation: benchmarks from YAML, answered once, scored as often as wanted."""
