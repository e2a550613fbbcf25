"""Many simulated days on measured tables: policies compared before anything is trained."""
