"""How rows train over clients: shifts in a whole federation, adapters by averaging their tensors."""
