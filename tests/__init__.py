"""A package, since some distributions (opensimplex, which Crafter needs) install a top-level ``tests`` of their own."""
