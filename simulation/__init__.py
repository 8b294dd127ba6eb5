"""LaMP users replayed as clients: data, the synthetic world, studies and reports."""
