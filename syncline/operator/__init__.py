"""Operations on a graph's data and fleet: dead letters, parked rows, explain, workers, health checks."""
