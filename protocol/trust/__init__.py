"""What is signed and by whom: keys, certificates, releases, enrolment bundles."""
