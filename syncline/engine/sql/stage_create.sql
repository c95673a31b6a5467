-- Private to the connection and emptied at every commit: no catalog churn per cycle, nothing left by a crash.
CREATE TEMP TABLE IF NOT EXISTS @{stage} (@{definitions}) ON COMMIT DELETE ROWS
