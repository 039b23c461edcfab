"""What leaves the project: splat files, videos, picture sheets and the report page."""
