"""Users and their files: LaMP's layouts, downloads, and who takes part in a study."""
