"""Users and their files: LaMP's layouts, downloads, who takes part in a study."""
