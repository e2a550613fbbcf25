"""The simulated device: capture, apply, inference, COCO mAP."""
