"""The synthetic world: users with known latent preferences, written in LaMP's own file formats."""
