"""Profile to bytes: folded stacks, SVG, pprof, text table."""
