"""The cloud's releases as static files, for any web server or cache to hand out."""
