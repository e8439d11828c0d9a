"""What the parts of a bundle are: files at hand or on the hub, by their content and by their names."""
