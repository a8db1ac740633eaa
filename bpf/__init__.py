"""BPF programs in C and their built objects, one folder per architecture."""
