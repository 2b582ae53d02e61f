"""Models: bundles of ONNX with a manifest, scoring, conversion with its proof, training."""
