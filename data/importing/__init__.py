"""Frames of somebody else's tools, read leniently and counted, into the COCO layout used here."""
