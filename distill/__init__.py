"""Large model in, budgeted bytes out: training, pruning, quantization, packaging."""
