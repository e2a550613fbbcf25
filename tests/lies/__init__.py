"""Deliberate lies: each falsifies what the project measures, and must make a test fail.

``python -m tests.lies`` puts them into copies of the tree one at a time and runs the tests
that each lie names. See docs/contributing.md.
"""
