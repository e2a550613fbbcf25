"""Many devices on one band: who sends when, judged on measured tables. Without PyTorch."""
