"""A synthetic world: users with known latent preferences, written as LaMP files."""
