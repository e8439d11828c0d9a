"""What the product costs, measured against named peers on the same machine in the same run."""
