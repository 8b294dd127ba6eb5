"""What programs need of a machine: files, processes, command lines, Flower's environment."""
