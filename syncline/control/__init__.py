"""The workers of a deployment: each tells the control plane about itself, and anybody may ask."""
