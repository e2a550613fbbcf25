"""The best split under given curves: for one device, for many, for a price."""
