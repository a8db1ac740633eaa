"""Captures: command line, engines that load BPF, process table, Capture, Profile."""
