"""How far a bundle is from its checkpoint."""
