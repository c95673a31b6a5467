"""Control plane: graph records, composition, provider resolution, and registration of workers."""
